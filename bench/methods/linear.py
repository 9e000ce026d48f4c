"""A linear classifier, plain or robust: the floor of every table, with exact distances for radii."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.basics.space import Range, SearchSpace, augmentation, training
from bench.calibration import ThresholdedScore
from bench.contract import DUAL_NORM_ORDER, Curve, FitContext, LinearScore, Method, Radii, TrainingData
from fcnn.certificates import closed_form, in_domain
from fcnn.training import TrainSettings, train

# A sum of d products in float64 errs by at most about d units of this, relative to the sum of their absolute values.
ROUNDING = 2.0**-52


@dataclass(frozen=True)
class LinearSettings:
    """Recipe of a linear classifier.

    radii: norm -> radius: the score is lowered (sensitive) or raised (other) by radius x the weight's dual norm, the
    worst that a perturbation of that size can do: robust logistic regression. Empty: the plain one.
    """

    radii: dict[str, float] = field(default_factory=dict)
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(epochs=60, batch_size=32, learning_rate=0.02)
    )

    def __post_init__(self) -> None:
        for norm, radius in self.radii.items():
            if norm not in DUAL_NORM_ORDER or not radius >= 0:
                raise ValueError(
                    f"radii: {norm} = {radius}: give one of {', '.join(DUAL_NORM_ORDER)} a radius >= 0"
                )


class Linear(Method):
    """Logistic regression, whose radius is the distance to the hyperplane: |score| / ||weight||_{p*}, exactly.

    Guarantee: deterministic, native in every norm, also within the box. Source: textbook; the robust one after Xu,
    Caramanis and Mannor, "Robustness and Regularization of Support Vector Machines", JMLR 2009.
    """

    name = "linear"
    title = "Linear"
    kind = "linear"
    slot = 0
    reference = "Xu et al., JMLR 2009"
    guarantee = "deterministic"
    Settings = LinearSettings
    space = SearchSpace(
        {
            "radii.{norm}": Range(0.1, 4.0, log=True, of="{norm}"),
            **training(learning_rate=(1e-3, 0.05)),
            **augmentation(),
        },
        starts=({"radii.{norm}": 0.5}, {"radii.{norm}": 1.0}),
    )

    respects_mutable = True

    model: ThresholdedScore

    def curves(self) -> Sequence[Curve]:
        return [Curve("distance", "free"), Curve("distance", "box")]

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        return ThresholdedScore(LinearScore(torch.zeros(torch.Size(input_shape).numel()), 0.0))

    def fit(self, data: TrainingData, context: FitContext) -> None:
        self.model.float()
        train(
            self.model,
            self.loss,
            (data.x, data.y),
            self.settings.train,
            seed=context.seed,
            checkpoint=context.checkpoint,
            progress=context.progress,
        )
        self.model.double()

    def loss(self, model: ThresholdedScore, x: Tensor, y: Tensor, done: float) -> Tensor:
        """Logistic loss of the worst score within the radius: exact for a linear score."""
        margin = (2 * y - 1) * model(x)
        for norm, radius in self.settings.radii.items():
            weight = self._moving(_layer(model).weight)
            margin = margin - radius * torch.linalg.vector_norm(weight, ord=DUAL_NORM_ORDER[norm])
        return functional.softplus(-margin).mean()

    def affine(self) -> tuple[Tensor, Tensor]:
        """The weight (d,) and offset () of the score, threshold included."""
        layer = _layer(self.model)
        return layer.weight.detach()[0], layer.bias.detach()[0] - self.model.threshold

    def score(self, x: Tensor) -> Tensor:
        return self.model(x.to(self.model.threshold.dtype))

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        x = x.double()
        weight = _layer(self.model).weight.detach().double().expand(len(x), -1)
        with torch.no_grad():
            margin = self.score(x) - self._rounding(x.flatten(1), weight)
        weight = self._moving(weight)
        if curve.domain == "free":
            return {norm: Radii.from_radius(closed_form(margin, weight, 1.0, norm)) for norm in norms}
        room = torch.where(weight > 0, x.flatten(1), 1 - x.flatten(1)).clamp(min=0)
        return {norm: Radii.from_radius(in_domain(margin, weight.abs(), room, norm)) for norm in norms}

    def shares_thresholds(self, curve: Curve) -> bool:
        return True  # a certificate costs next to nothing

    def _moving(self, weight: Tensor) -> Tensor:
        """The weights of the features that an adversary can change, zero elsewhere."""
        return weight if self.mutable is None else weight * self.mutable.to(weight)

    def _rounding(self, x: Tensor, weight: Tensor) -> Tensor:
        """Bound (N,) what rounding adds to the scores of x and of a perturbed input, (N, d) both."""
        offsets = _layer(self.model).bias.detach().abs() + self.model.threshold.abs()
        terms = (weight * x).abs().sum(dim=1) + offsets.double()
        return 2 * (x.shape[1] + 2) * ROUNDING * terms

    def use_linear(self, weight: Tensor, bias: float) -> None:
        super().use_linear(weight, bias)
        self.model.double()

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.model.double()
        super().load_state(state)


def _layer(model: ThresholdedScore) -> nn.Linear:
    network = model.network
    assert isinstance(network, LinearScore)
    return network.linear
