"""Any network of known operators, written as affine layers and activations: see ``read``."""

from baselines.layered.network import Layer, LayeredNetwork
from baselines.layered.operators import ACTIVATIONS
from baselines.layered.reading import read
from baselines.layered.tracing import UnreadableNetwork

__all__ = ["ACTIVATIONS", "Layer", "LayeredNetwork", "UnreadableNetwork", "read"]
