"""What the adapters of Lipschitz networks share: training with a margin, calibration, radius = score / constant."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.lipschitz import (
    LipschitzNetwork,
    certify,
    certify_at_thresholds,
    margin_loss,
    one_sided_radius_loss,
)
from bench.contract import Curve, FitContext, Method, Radii, TrainingData
from fcnn.training import TrainSettings, train

# A guess for searches: so far beyond what is reached that training is for the mean radius.
MEAN_RADIUS = {"margin": 1.0, "radius_target": 12.0, "radius_weight": 2.0}


@dataclass(frozen=True)
class LipschitzSettings:
    """What the recipes of all Lipschitz networks have in common.

    margin: of the loss, in units of the native radius. radius_target: native radius to train sensitive inputs for,
    beside the margin of both classes; 0 trains for the margin alone. radius_weight: weight of that term.
    train: shifts and flips are among its settings.
    """

    margin: float = 0.5
    radius_target: float = 0.0
    radius_weight: float = 1.0
    train: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=40, batch_size=64))

    def __post_init__(self) -> None:
        if not self.margin > 0:
            raise ValueError(f"margin = {self.margin}: choose a number > 0")
        for name in ("radius_target", "radius_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: choose a number >= 0")


class LipschitzMethod(Method):
    """Base of the methods whose score has a known Lipschitz constant in ``native_norm``.

    The network is trained in float32 and then cast to float64: that one function predicts and is certified.
    """

    kind = "lipschitz"
    guarantee = "deterministic"
    native_norm: ClassVar[str]

    model: LipschitzNetwork

    @abstractmethod
    def network(self, input_shape: tuple[int, ...]) -> LipschitzNetwork:
        """Return an untrained network with its constant known in ``native_norm``."""

    def curves(self) -> Sequence[Curve]:
        return [Curve("lipschitz", "free", native=(self.native_norm,))]

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, done: float) -> Tensor:
        """Loss of the scores that the settings name; ``done`` is the share of training done."""
        settings = self.settings
        if not settings.radius_target:
            return margin_loss(model(x), y, settings.margin)
        return one_sided_radius_loss(
            model(x), y, settings.margin, settings.radius_target, settings.radius_weight
        )

    def fit(self, data: TrainingData, context: FitContext) -> None:
        self.model.float()
        self.model.centre_on(data.x.mean(dim=0))
        train(
            self.model,
            self.loss,
            (data.x, data.y),
            self.settings.train,
            seed=context.seed,
            after_step=self.model.project,
            checkpoint=context.checkpoint,
            progress=context.progress,
        )
        self.model.double()

    def score(self, x: Tensor) -> Tensor:
        return self.model(x.to(self.model.threshold.dtype))

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        found = certify(self.model, x, norms, self._changeable())
        return {norm: Radii.from_radius(radius) for norm, radius in found.items()}

    def shares_thresholds(self, curve: Curve) -> bool:
        return True

    def radii_at(
        self,
        x: Tensor,
        thresholds: Sequence[float],
        wanted: Tensor,
        curve: Curve,
        norms: Sequence[str],
        seed: int,
    ) -> list[dict[str, Radii]]:
        found = certify_at_thresholds(self.model, x, thresholds, norms, self._changeable())
        return [{norm: Radii.from_radius(radius) for norm, radius in radii.items()} for radii in found]

    def _changeable(self) -> int | None:
        """How many features an adversary can change: what a change in one norm is in another depends on it."""
        return None if self.mutable is None else int(self.mutable.sum())

    def use_linear(self, weight: Tensor, bias: float) -> None:
        layer = nn.Linear(weight.numel(), 1, dtype=torch.float64)
        layer.load_state_dict(
            {"weight": weight.reshape(1, -1), "bias": torch.tensor([bias], dtype=torch.float64)}
        )
        body = nn.Sequential(nn.Flatten(), layer)
        self.model = LipschitzNetwork(body, self.native_norm).double().eval().to(self.device)

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.model.double().eval()
        super().load_state(state)
