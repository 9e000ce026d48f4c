"""The methods that are known, under the name by which programs outside ask for them."""

from bench.methods import get_method, registered_methods

__all__ = ["get_method", "registered_methods"]
