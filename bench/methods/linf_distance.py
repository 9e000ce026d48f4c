"""l_inf-distance networks, trained through the p-norm schedule."""

import math
from dataclasses import dataclass, field

from torch import Tensor, nn

from baselines.lipschitz import LipschitzNetwork, linf_distance_net, scheduled_exponent, set_exponent
from bench.basics.space import Choice, Range, SearchSpace, augmentation, radius_loss, training
from bench.contract import FitContext, TrainingData
from bench.methods._lipschitz import MEAN_RADIUS, LipschitzMethod, LipschitzSettings
from fcnn.training import TrainSettings


@dataclass(frozen=True)
class LinfDistanceSettings(LipschitzSettings):
    """Recipe of an l_inf-distance network, besides what ``LipschitzSettings`` holds.

    p_start, p_end: exponents of the norm at the start and the end of
    the first ``relaxed`` share of the training; the rest trains with the exact linf distance. Where a training has
    thousands of steps, a learning rate of 0.05 loses from p = 50 on what it had won: 0.03 and p_end = 40 keep it.
    """

    hidden: tuple[int, ...] = (64, 64)
    margin: float = 0.2
    p_start: float = 8.0
    p_end: float = 1000.0
    relaxed: float = 0.8
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(epochs=40, batch_size=64, learning_rate=0.05)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 < self.p_start <= self.p_end:
            raise ValueError(f"p_start = {self.p_start}, p_end = {self.p_end}: choose 1 < p_start <= p_end")
        if not 0 < self.relaxed <= 1:
            raise ValueError(f"relaxed = {self.relaxed}: choose a share of the training in (0, 1]")


class LinfDistance(LipschitzMethod):
    """Network of l_inf-distance units, whose score is 1-Lipschitz in linf.

    Guarantee: deterministic, native in linf. Source: Zhang, Cai, Lu, He and Wang, "Towards Certifying L-infinity
    Robustness using Neural Networks with L-inf-dist Neurons", ICML 2021 (arXiv 2102.05363).
    """

    name = "linf_distance"
    title = "l∞-distance net"
    slot = 2
    reference = "Zhang et al., ICML 2021"
    native_norm = "linf"
    Settings = LinfDistanceSettings
    space = SearchSpace(
        {
            "margin": Range(0.1, 3.0, log=True, of="linf"),
            **radius_loss(of="linf"),
            "hidden": Choice([64, 64], [128, 128], [256, 128]),
            "p_end": Range(20.0, 1000.0, log=True),
            **training(learning_rate=(0.005, 0.1)),
            **augmentation(),
        },
        starts=(
            {"margin": 0.5, "radius_target": 1.5},
            {"margin": 0.3, "radius_target": 1.5},
            MEAN_RADIUS,
        ),
    )

    def network(self, input_shape: tuple[int, ...]) -> LipschitzNetwork:
        return linf_distance_net(input_shape, self.settings.hidden)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, done: float) -> Tensor:
        """Margin loss with the exponent that belongs to this moment of the training."""
        settings = self.settings
        set_exponent(model, scheduled_exponent(done, settings.p_start, settings.p_end, settings.relaxed))
        return super().loss(model, x, y, done)

    def fit(self, data: TrainingData, context: FitContext) -> None:
        super().fit(data, context)
        # Also right when the schedule has no exact part: the certificate holds for the exact distance only.
        set_exponent(self.model, math.inf)
