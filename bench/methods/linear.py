"""A linear classifier, plain or robust: the floor of every table, with exact distances for radii."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.basics.settings import from_table
from bench.basics.space import Choice, Range, SearchSpace, augmentation, radius_loss, training
from bench.calibration import ThresholdedScore
from bench.contract import DUAL_NORM_ORDER, Curve, FitContext, LinearScore, Method, Radii, TrainingData
from fcnn.certificates import closed_form, in_domain
from fcnn.losses import TINY, radius_hinge
from fcnn.training import TrainSettings, preliminary, train

# A sum of d products in float64 errs by at most about d units of this, relative to the sum of their absolute values.
ROUNDING = 2.0**-52


@dataclass(frozen=True)
class LinearSettings:
    """Recipe of a linear classifier.

    radii: norm -> radius: the score is lowered (sensitive) or raised (other) by radius x the weight's dual norm, the
    worst that a perturbation of that size can do: robust logistic regression. Empty: the plain one.
    radius_targets, radius_weight, other_share: of the loss of the radius that is added, as for feature-convex networks,
    of which this is the smallest. Empty: none.
    start: where that loss begins: settings of a linear classifier that is trained before. Empty: between the classes'
    means.
    """

    radii: dict[str, float] = field(default_factory=dict)
    radius_targets: dict[str, float] = field(default_factory=dict)
    radius_weight: float = 1.0
    other_share: float = 0.0
    start: dict[str, Any] = field(default_factory=dict)
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(epochs=60, batch_size=32, learning_rate=0.02)
    )

    def __post_init__(self) -> None:
        norms = ", ".join(DUAL_NORM_ORDER)
        for norm, radius in self.radii.items():
            if norm not in DUAL_NORM_ORDER or not radius >= 0:
                raise ValueError(f"radii: {norm} = {radius}: give one of {norms} a radius >= 0")
        for norm, target in self.radius_targets.items():
            if norm not in DUAL_NORM_ORDER or not target > 0:
                raise ValueError(f"radius_targets: {norm} = {target}: give one of {norms} a radius > 0")
        if self.start:
            if not self.radius_targets:
                raise ValueError("start is for a loss of the radius: give radius_targets, too")
            self.first_settings()

    def first_settings(self) -> "LinearSettings":
        """Of the classifier that is trained before. Raises UsageError."""
        return from_table(LinearSettings, self.start, "start")


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
            **radius_loss("radius_targets.{norm}"),
            "radius_weight": Choice(0.0, 0.5, 1.0, 2.0, 4.0),  # 0: robust logistic regression alone
            "other_share": Range(0.0, 1.0),
            # So low that little of the start between the means is left behind: pixels are many and alike.
            **training(learning_rate=(2e-6, 0.05)),
            **augmentation(),
        },
        starts=(
            *(
                {
                    "radii.{norm}": 0.1,
                    "radius_targets.{norm}": 12.0,
                    "radius_weight": 2.0,
                    "other_share": 1.0,
                    "train.learning_rate": rate,
                }
                for rate in (5e-6, 1e-3)
            ),
            {"radii.{norm}": 0.5, "radius_weight": 0.0},
            {"radii.{norm}": 1.0, "radius_weight": 0.0},
        ),
    )

    respects_mutable = True

    model: ThresholdedScore

    def curves(self) -> Sequence[Curve]:
        return [Curve("distance", "free"), Curve("distance", "box")]

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        return ThresholdedScore(LinearScore(torch.zeros(torch.Size(input_shape).numel()), 0.0))

    def fit(self, data: TrainingData, context: FitContext) -> None:
        self.model.float()
        if self.settings.start:
            first = trained_first(self.settings.first_settings(), self, data, context)
            _layer(self.model).load_state_dict(_layer(first.model).state_dict())
        elif self.settings.radius_targets:
            self._start_between_means(data.x, data.y)
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
        """Logistic loss of the worst score within the radius, exact for a linear score, + the radius's own loss."""
        settings, score = self.settings, model(x)
        weight = self._moving(_layer(model).weight)
        sizes = {
            norm: torch.linalg.vector_norm(weight, ord=DUAL_NORM_ORDER[norm])
            for norm in {*settings.radii, *settings.radius_targets}
        }
        margin = (2 * y - 1) * score
        for norm, radius in settings.radii.items():
            margin = margin - radius * sizes[norm]
        loss = functional.softplus(-margin).mean()
        for norm, target in settings.radius_targets.items():
            hinge = radius_hinge(score / (target * sizes[norm]).clamp(min=TINY), y, settings.other_share)
            loss = loss + settings.radius_weight * hinge / len(settings.radius_targets)
        return loss

    @torch.no_grad()
    def _start_between_means(self, x: Tensor, y: Tensor) -> None:
        """Start between the classes' means, at scores of -1 and 1: weights of zero have no radius to follow."""
        here, there = (x[y == label].flatten(1).mean(dim=0) for label in (1, 0))
        apart, layer = here - there, _layer(self.model)
        layer.weight.copy_((2 * apart / apart.square().sum().clamp(min=TINY))[None])
        layer.bias.copy_(-layer.weight[0] @ (here + there) / 2)

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


def trained_first(
    settings: LinearSettings, method: Method, data: TrainingData, context: FitContext
) -> Linear:
    """Train the linear classifier that another method starts as; it takes up its own training where it was cut."""
    linear = Linear(settings, method.device)
    linear.mutable = method.mutable
    linear.build(tuple(data.x.shape[1:]), context.seed)
    checkpoint = context.checkpoint and context.checkpoint.with_name(context.checkpoint.name + ".start")
    with preliminary():
        linear.fit(data, FitContext(context.seed, checkpoint, context.progress))
    return linear


def _layer(model: ThresholdedScore) -> nn.Linear:
    network = model.network
    assert isinstance(network, LinearScore)
    return network.linear
