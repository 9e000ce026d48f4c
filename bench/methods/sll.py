"""SDP-based Lipschitz layers (SLL): dense or convolutional residual networks."""

from dataclasses import dataclass, field
from typing import Literal

from baselines.lipschitz import LipschitzNetwork, sll_convnet, sll_mlp
from bench.basics.space import Choice, Range, SearchSpace, augmentation, radius_loss, training
from bench.methods._lipschitz import MEAN_RADIUS, LipschitzMethod, LipschitzSettings
from fcnn.training import TrainSettings


@dataclass(frozen=True)
class SLLSettings(LipschitzSettings):
    """Recipe of an SLL network, besides what ``LipschitzSettings`` holds.

    network: ``mlp`` with one residual block per entry of ``hidden``; ``convnet`` for images, ``width`` channels at
    first and ``depth`` blocks per resolution.
    """

    network: Literal["mlp", "convnet"] = "mlp"
    hidden: tuple[int, ...] = (200, 200)
    width: int = 16
    depth: int = 2
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(epochs=40, batch_size=64, learning_rate=2e-3)
    )


class SLL(LipschitzMethod):
    """Residual network of SDP-based Lipschitz layers, whose score is 1-Lipschitz in l2.

    Guarantee: deterministic, native in l2. Source: Araujo, Havens, Delattre, Allauzen and Hu, "A Unified Algebraic
    Perspective on Lipschitz Neural Networks", ICLR 2023 (arXiv 2303.03169), theorem 3.
    """

    name = "sll"
    title = "SLL"
    slot = 1
    reference = "Araujo et al., ICLR 2023"
    native_norm = "l2"
    Settings = SLLSettings
    space = SearchSpace(
        {
            "margin": Range(0.2, 5.0, log=True, of="l2"),
            **radius_loss(of="l2"),
            "hidden": Choice([200, 200], [400, 400], [200, 200, 200]),
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
            return sll_mlp(input_shape, self.settings.hidden)
        return sll_convnet(input_shape, self.settings.width, self.settings.depth)
