"""The suite's errors, under the name by which programs outside catch them."""

from bench.basics.errors import UsageError, unknown

__all__ = ["UsageError", "unknown"]
