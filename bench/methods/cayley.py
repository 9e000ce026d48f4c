"""Orthogonal (Cayley) networks: dense, small convolutional or ResNet9."""

from dataclasses import dataclass
from typing import Literal

from baselines.lipschitz import LipschitzNetwork, cayley_convnet, cayley_mlp, cayley_resnet9
from bench.basics.space import Choice, Range, SearchSpace, augmentation, radius_loss, training
from bench.methods._lipschitz import MEAN_RADIUS, LipschitzMethod, LipschitzSettings


@dataclass(frozen=True)
class CayleySettings(LipschitzSettings):
    """Recipe of an orthogonal network, besides what ``LipschitzSettings`` holds.

    network: ``mlp`` with layers ``hidden``; ``convnet`` or ``resnet9`` for images, ``width`` channels at first.
    """

    network: Literal["mlp", "convnet", "resnet9"] = "mlp"
    hidden: tuple[int, ...] = (200, 50)
    width: int = 16


class Cayley(LipschitzMethod):
    """Network of orthogonal layers (Cayley transform) and MaxMin, whose score is 1-Lipschitz in l2.

    Guarantee: deterministic, native in l2; the l1 radius uses the longest column of a dense first layer. Source:
    Trockman and Kolter, "Orthogonalizing Convolutional Layers with the Cayley Transform", ICLR 2021 (arXiv 2104.07167).
    """

    name = "cayley"
    title = "Cayley"
    slot = 0
    reference = "Trockman and Kolter, ICLR 2021"
    native_norm = "l2"
    Settings = CayleySettings
    space = SearchSpace(
        {
            "margin": Range(0.2, 5.0, log=True, of="l2"),
            **radius_loss(of="l2"),
            "hidden": Choice([200, 50], [400, 100], [200, 200, 50]),
            **training(),
            **augmentation(),
        },
        starts=(
            {"margin": 0.3, "radius_target": 1.7},
            {"margin": 0.6, "radius_target": 2.5},
            MEAN_RADIUS,
        ),
    )

    def network(self, input_shape: tuple[int, ...]) -> LipschitzNetwork:
        if self.settings.network == "mlp":
            return cayley_mlp(input_shape, self.settings.hidden)
        builder = cayley_convnet if self.settings.network == "convnet" else cayley_resnet9
        return builder(input_shape, self.settings.width)
