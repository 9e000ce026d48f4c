"""Networks of block reflector orthogonal (BRO) layers: dense or convolutional."""

from dataclasses import dataclass, field
from typing import Literal

from baselines.lipschitz import LipschitzNetwork, bro_convnet, bro_mlp
from bench.basics.space import Choice, Range, SearchSpace, augmentation, radius_loss, training
from bench.methods._lipschitz import MEAN_RADIUS, LipschitzMethod, LipschitzSettings
from fcnn.training import TrainSettings


@dataclass(frozen=True)
class BROSettings(LipschitzSettings):
    """Recipe of a BRO network, besides what ``LipschitzSettings`` holds.

    network: ``mlp`` with one reflector per entry of ``turned``, each turning that many directions; ``convnet`` for
    images, with ``depth`` convolutions per resolution, 2 ``width`` channels at first.
    """

    network: Literal["mlp", "convnet"] = "mlp"
    turned: tuple[int, ...] = (100, 100, 100)
    width: int = 16
    depth: int = 2
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(epochs=40, batch_size=64, learning_rate=2e-3)
    )


class BRO(LipschitzMethod):
    """Network of block reflectors and MaxMin, whose score is 1-Lipschitz in l2.

    Guarantee: deterministic, native in l2. Source: Lai, Huang, Kung and Chen, "Enhancing Certified Robustness via
    Block Reflector Orthogonal Layers and Logit Annealing Loss", ICML 2025 (arXiv 2505.15174).
    """

    name = "bro"
    title = "BRO"
    slot = 3
    reference = "Lai et al., ICML 2025"
    native_norm = "l2"
    Settings = BROSettings
    space = SearchSpace(
        {
            "margin": Range(0.2, 5.0, log=True, of="l2"),
            **radius_loss(of="l2"),
            "network": Choice("mlp", "convnet", images=True),
            "turned": Choice([100, 100, 100], [200, 200], [50, 50, 50, 50]),
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
            return bro_mlp(input_shape, self.settings.turned)
        return bro_convnet(input_shape, self.settings.width, self.settings.depth)
