"""Small networks as chains of dense layers, the form that branch and bound works on."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.layered import Layer, LayeredNetwork, UnreadableNetwork, read
from baselines.layered.network import dense
from baselines.layered.operators import RELU

ADVICE = "replace it, or use bound propagation (baselines.bounds)"
MAX_WEIGHTS = 50_000_000


class UnsupportedNetwork(ValueError):
    """The network is not a chain of affine layers and ReLUs, or too large as one; the message names the layer."""


@dataclass(frozen=True)
class Chain:
    """h_0 = x, z_k = W_k h_{k-1} + b_k, h_k = relu(z_k); the score is the last z, which has one entry.

    weights[k]: (n_{k+1}, n_k) float64; biases[k]: (n_{k+1},). The hidden layers are numbered 0 .. depth - 1.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.weights) - 1

    @property
    def dim(self) -> int:
        """Number of input coordinates d."""
        return self.weights[0].shape[1]

    def preactivations(self, x: Tensor) -> list[Tensor]:
        """All z_k at x (N, d): the hidden layers' (N, n_k), then the score's (N, 1)."""
        values = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            values.append(nn.functional.linear(x, weight, bias))
            x = values[-1].relu()
        return values

    def score(self, x: Tensor) -> Tensor:
        """Score (N,) at x (N, d)."""
        return self.preactivations(x)[-1][:, 0]

    def roundings(self, x: Tensor) -> list[Tensor]:
        """How far float64 takes each z_k at x (N, d), (N,) each, see ``LayeredNetwork.rounding``; last the score."""
        layers = [
            Layer({place: weight}, bias, RELU if place < self.depth else None)
            for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True))
        ]
        return LayeredNetwork(tuple(layers), self.dim).roundings(x)

    def score_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Score (N,) and its gradient (N, d) at x (N, d), without autograd."""
        *hidden, score = self.preactivations(x)
        gradient = self.weights[-1]
        for weight, z in zip(self.weights[-2::-1], hidden[::-1], strict=True):
            gradient = torch.where(z > 0, gradient, 0.0) @ weight
        return score[:, 0], gradient.expand_as(x)


def to_chain(
    model: nn.Module | LayeredNetwork, input_shape: tuple[int, ...], device: torch.device | None = None
) -> Chain:
    """Write a network (N, *input_shape) -> (N,) or (N, 1) as a chain, see ``to_chains``."""
    chains = to_chains(model, input_shape, device)
    if len(chains) != 1:
        raise UnsupportedNetwork(
            f"the network has {len(chains)} outputs: subtract the other class to get one score"
        )
    return chains[0]


def to_chains(
    model: nn.Module | LayeredNetwork, input_shape: tuple[int, ...], device: torch.device | None = None
) -> tuple[Chain, ...]:
    """Write a network (N, *input_shape) -> (N, M) as chains of dense float64 layers, one for each of its outputs.

    Each ReLU must apply to all that comes before it, so no shortcut may bypass one; between them stand affine operators
    of ``baselines.layered``, whose reading is compared with the network. Raises UnsupportedNetwork naming the layer
    otherwise.
    """
    if isinstance(model, LayeredNetwork):
        return as_chains(model)
    try:
        network = read(model, input_shape, device or "cpu", False, MAX_WEIGHTS, MAX_WEIGHTS)
    except UnreadableNetwork as error:
        raise UnsupportedNetwork(f"{error}; {ADVICE}") from error
    return as_chains(network)


def as_chains(network: LayeredNetwork) -> tuple[Chain, ...]:
    """The layers as chains that share all but the last; raises UnsupportedNetwork as ``to_chains`` does."""
    for place, layer in enumerate(network.layers):
        if layer.activation is not None and not layer.is_relu:
            raise UnsupportedNetwork(f"{layer.name} is not a ReLU; {ADVICE}")
        if any(matrix.shape[0] * matrix.shape[1] > MAX_WEIGHTS for matrix in layer.maps.values()):
            raise UnsupportedNetwork(f"{layer.name} is too large for a dense matrix; {ADVICE}")
        if set(layer.maps) != {place}:
            raise UnsupportedNetwork(
                f"a shortcut past a ReLU is added before {layer.name}, so that the network is no chain; {ADVICE}"
            )
    weights = tuple(dense(layer.maps[place]) for place, layer in enumerate(network.layers))
    biases = tuple(layer.bias for layer in network.layers)
    return tuple(
        Chain((*weights[:-1], weights[-1][row : row + 1]), (*biases[:-1], biases[-1][row : row + 1]))
        for row in range(network.layers[-1].width)
    )
