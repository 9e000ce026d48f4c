"""Networks that are 1-Lipschitz in l1."""

from dataclasses import dataclass, field

from baselines.lipschitz import LipschitzNetwork, l1_mlp
from bench.basics.space import Choice, Range, SearchSpace, augmentation, radius_loss, training
from bench.methods._lipschitz import MEAN_RADIUS, LipschitzMethod, LipschitzSettings
from fcnn.training import TrainSettings


@dataclass(frozen=True)
class L1LipschitzSettings(LipschitzSettings):
    """Recipe of an l1-Lipschitz network with layers ``hidden``, besides what ``LipschitzSettings`` holds."""

    hidden: tuple[int, ...] = (200, 50)
    margin: float = 1.0
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(epochs=40, batch_size=64, learning_rate=0.05)
    )


class L1Lipschitz(LipschitzMethod):
    """Network of a layer from l1 to linf with bounded entries, then of unit rows and MaxMin: 1-Lipschitz in l1.

    Guarantee: deterministic, native in l1; l2 and linf use the rows of the first layer. Source: after Anil, Lucas and
    Grosse, "Sorting Out Lipschitz Function Approximation", ICML 2019 (arXiv 1811.05381), section 4.
    """

    name = "l1_lipschitz"
    title = "ℓ1-Lipschitz net"
    slot = 4
    reference = "Anil et al., ICML 2019"
    native_norm = "l1"
    Settings = L1LipschitzSettings
    space = SearchSpace(
        {
            "margin": Range(0.1, 5.0, log=True, of="l1"),
            **radius_loss(of="l1"),
            "hidden": Choice([200, 50], [400, 100], [200, 50, 20]),
            **training(learning_rate=(0.01, 0.1)),
            **augmentation(),
        },
        starts=(
            {"margin": 0.5, "radius_target": 2.0},
            {"margin": 1.0, "radius_target": 4.0},
            MEAN_RADIUS,
        ),
    )

    def network(self, input_shape: tuple[int, ...]) -> LipschitzNetwork:
        return l1_mlp(input_shape, self.settings.hidden)
