"""Nearest class mean: the simplest classifier with an exact certificate, registered from outside the suite."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.calibration import ThresholdedScore
from bench.contract import DUAL_NORM_ORDER, Curve, FitContext, LinearScore, Method, Radii, TrainingData
from bench.methods.given import Given, GivenNetwork

# Rounding in float64 stays far below this share of a radius.
SHAVE = 1e-9


@dataclass(frozen=True)
class NearestSettings:
    """shrink: share of the way by which each class mean moves to the mean of all training inputs."""

    shrink: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.shrink < 1:
            raise ValueError(f"shrink = {self.shrink}: give a number from 0 to below 1")


class Nearest(Method):
    """Sensitive iff the input is nearer to the sensitive class's mean than to the other's, both in l2.

    The decision boundary is a hyperplane, so the certified radius is the exact distance to it in every norm:
    |score| / ||weight||_{p*}. Guarantee: deterministic, all three norms native. Source: textbook.
    """

    name = "nearest"
    title = "Nearest mean"
    reference = "textbook"
    Settings = NearestSettings

    model: ThresholdedScore

    def curves(self) -> Sequence[Curve]:
        return [Curve("distance")]

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        return ThresholdedScore(LinearScore(torch.zeros(math.prod(input_shape)), 0.0))

    def fit(self, data: TrainingData, context: FitContext) -> None:
        x = data.x.flatten(1).double()
        centre = x.mean(dim=0)
        sensitive, other = (
            mean + self.settings.shrink * (centre - mean)
            for mean in (x[data.y == 1].mean(dim=0), x[data.y == 0].mean(dim=0))
        )
        # ||x - other||^2 - ||x - sensitive||^2, halved, is linear in x.
        linear = self.model.network.linear
        with torch.no_grad():
            linear.weight.copy_((sensitive - other)[None])
            linear.bias.fill_(float(other @ other - sensitive @ sensitive) / 2)

    def score(self, x: Tensor) -> Tensor:
        return self._exact()(x.double())

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        margin = (1 - SHAVE) * self.score(x).clamp(min=0)
        weight = self._exact().network.linear.weight
        return {
            norm: Radii.from_radius(margin / torch.linalg.vector_norm(weight, DUAL_NORM_ORDER[norm]))
            for norm in norms
        }

    def _exact(self) -> nn.Module:
        """The network in float64: an exact radius holds only for the very function that is predicted with."""
        return copy.deepcopy(self.model).double().requires_grad_(False)


class GivenNearest(Given, Nearest):
    """The same distance for a linear network that somebody else trained: what ``bench.certify`` asks for."""

    certificates = ("distance",)

    @classmethod
    def obstacle(cls, network: GivenNetwork) -> str:
        if network.layered is None:
            return network.unreadable
        layers = network.layered.layers
        return "" if len(layers) == 1 and len(layers[0].bias) == 1 else "the network is not linear"

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        assert self.given.layered is not None  # nothing stood against it
        (layer,) = self.given.layered.layers
        linear = LinearScore(torch.zeros(math.prod(input_shape)), 0.0).double()
        with torch.no_grad():
            linear.linear.weight.copy_(layer.maps[0].to_dense().reshape(1, -1))
            linear.linear.bias.copy_(layer.bias)
        return ThresholdedScore(linear)
