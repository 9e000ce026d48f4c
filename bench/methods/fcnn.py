"""Feature-convex neural networks: the method under study, with its certificates as separate curves."""

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.basics.settings import from_table
from bench.basics.space import Choice, Range, SearchSpace, augmentation, radius_loss, training
from bench.calibration import BALANCED_POINT, OperatingPoint
from bench.contract import DUAL_NORM_ORDER, Curve, FitContext, Method, Radii, TrainingData
from bench.methods._kept import Validate, train_from, validation_radius
from bench.methods.given import Effort, Given, GivenNetwork
from bench.methods.linear import LinearSettings, trained_first
from fcnn.certify import CERTIFICATES, certify_at_thresholds, certify_with_bounds
from fcnn.classifier import FeatureConvexClassifier
from fcnn.convex_network import float64_copy
from fcnn.feature_maps import CenteredAbs, Identity
from fcnn.heads import start_affine
from fcnn.losses import RadiusLoss, RegularisedLoss, balanced_accuracy, median_radius
from fcnn.networks import ConvexConvNet, ConvexMLP, ConvexNetwork
from fcnn.training import History, Loss, TrainSettings, preliminary, train

# How many times shorter than the training is the one that finds the scale of radii.
SHORTER = 8
# A linear classifier is trained for so many times the network's epochs: one of its costs about a third.
LINEAR_EPOCHS = 3


@dataclass(frozen=True)
class FCNNSettings:
    """Recipe of a feature-convex classifier.

    architecture, hidden, passthrough: ``mlp``; convnet: arguments of ConvexConvNet for ``convnet``.
    centred: whether the identity map subtracts the training mean, as the paper does; centered_abs always does.
    gradient_weights: norm -> weight of the gradient regulariser for radii in that norm.
    radius_targets, box_targets: norm -> radius to train for, closed-form and inside [0, 1]^d; when either is given, the
    radius loss replaces the regulariser. target_multiples: where no targets are given, norm -> radius to train for as a
    multiple of the median that a short training with the regulariser reaches on the training split, so that a recipe
    fits data it was not made for.
    keep_best: keep the epoch with the best median radius in this norm at balanced recalls, or best balanced accuracy,
    on validation data; "" keeps the last. With ``train.patience`` training stops when that measure no longer improves.
    kept_recall: where a norm decides, the geometric mean of that median and the one at this recall of the other class
    does, 0: balanced recalls alone.
    start: of an mlp with passthrough, others start at random. ``linear`` first trains a linear classifier by the same
    recipe, the loss of the radius included, for LINEAR_EPOCHS times the epochs, and the network starts as that, its
    hidden units counting for nothing. Without ``keep_best`` the best epoch in the targets' first norm is kept then, or
    the start: on validation data it never ends below the linear classifier. linear: settings of that classifier
    instead, as of the method of that name.
    certificates: which curves to issue, as certificate:domain.
    """

    architecture: Literal["mlp", "convnet"] = "mlp"
    hidden: tuple[int, ...] = (200, 50)
    passthrough: bool = True
    convnet: dict[str, int | float | str | bool] = field(default_factory=dict)
    feature_map: Literal["identity", "centered_abs"] = "identity"
    centred: bool = True
    gradient_weights: dict[str, float] = field(default_factory=lambda: {"l2": 0.01})
    radius_targets: dict[str, float] = field(default_factory=dict)
    box_targets: dict[str, float] = field(default_factory=dict)
    target_multiples: dict[str, float] = field(default_factory=dict)
    radius_weight: float = 1.0
    other_share: float = 0.0
    keep_best: Literal["", "l1", "l2", "linf", "accuracy"] = ""
    kept_recall: float = 0.0
    start: Literal["random", "linear"] = "random"
    linear: dict[str, Any] = field(default_factory=dict)
    certificates: tuple[
        Literal["closed_form:free", "separable:free", "refined:free", "refined:box", "in_domain:box"], ...
    ] = ("closed_form:free",)
    train: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=40, batch_size=256))

    def __post_init__(self) -> None:
        if self.linear and self.start != "linear":
            raise ValueError(f'linear is for start = "linear", not "{self.start}"')
        if not 0 <= self.kept_recall < 1:
            raise ValueError(f"kept_recall = {self.kept_recall}: choose a share in [0, 1)")
        self.linear_settings({})

    def linear_settings(self, targets: dict[str, float]) -> LinearSettings:
        """Of the classifier that the network starts as, if it is to reach these radii. Raises UsageError."""
        if self.linear:
            return from_table(LinearSettings, self.linear, "linear")
        return LinearSettings(
            radius_targets=targets,
            radius_weight=self.radius_weight,
            other_share=self.other_share,
            train=dataclasses.replace(self.train, epochs=LINEAR_EPOCHS * self.train.epochs),
        )


class FCNN(Method):
    """Feature-convex classifier with deterministic certificates from tangents.

    Guarantee: deterministic, all three norms native. Source: Pfrommer, Anderson, Piet, Sojoudi, "Asymmetric Certified
    Robustness via Feature-Convex Neural Networks", NeurIPS 2023 (arXiv 2302.01961), theorem 3.1, for closed_form; the
    other certificates are derived in docs/certificates.md.
    """

    name = "fcnn"
    title = "FCNN"
    kind = "feature_convex"
    slot = 0
    reference = "Pfrommer et al., NeurIPS 2023"
    guarantee = "deterministic"
    Settings = FCNNSettings
    space = SearchSpace(
        {
            **radius_loss("radius_targets.{norm}"),
            "other_share": Range(0.0, 1.0),
            "hidden": Choice([200, 50], [400, 100]),
            "start": Choice("random", "linear"),
            # Low enough to leave what a linear start knows.
            **training(learning_rate=(2e-6, 5e-3)),
            **augmentation(),
        },
        starts=tuple(
            {
                "radius_targets.{norm}": target,
                "radius_weight": weight,
                "other_share": 0.5,
                "train.learning_rate": rate,
                "start": start,
            }
            for target, weight, start, rate in (
                (2.5, 1.0, "random", 2e-3),
                (12.0, 2.0, "linear", 5e-6),
                (12.0, 2.0, "random", 2e-3),
                (2.5, 1.0, "linear", 2e-3),
            )
        ),
        judging={"certificates": ["closed_form:free"]},
    )

    respects_mutable = True

    model: FeatureConvexClassifier

    def curves(self) -> Sequence[Curve]:
        return [Curve(*written.split(":")) for written in self.settings.certificates]

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        # The mean is set from the training split in ``fit``; it is a buffer, hence part of the state.
        mean = torch.zeros(input_shape)
        absolute = self.settings.feature_map == "centered_abs"
        feature_map = CenteredAbs(mean) if absolute else Identity(mean)
        return FeatureConvexClassifier(
            self._convex_network(feature_map.feature_shape(input_shape)), feature_map
        )

    def fit(self, data: TrainingData, context: FitContext) -> None:
        settings, feature_map = self.settings, self.model.feature_map
        centred = settings.centred or settings.feature_map == "centered_abs"
        if centred and isinstance(feature_map, Identity | CenteredAbs):
            feature_map.mean.copy_(data.x.mean(dim=0))
        targets = self._targets(data, context)
        if settings.start == "random" or settings.architecture != "mlp" or not settings.passthrough:
            self._train(data, context, targets, self._measure(data, settings.keep_best))
            return
        self._start_as_linear(data, context, targets)
        measure = self._measure(data, settings.keep_best or next(iter(targets), "accuracy"))
        assert measure is not None  # it is named
        train_from(self.model, measure, lambda: self._train(data, context, targets, measure))

    def _train(
        self,
        data: TrainingData,
        context: FitContext,
        targets: dict[str, float],
        measure: Validate | None,
    ) -> History:
        settings = self.settings
        return train(
            self.model,
            self._loss(targets),
            (data.x, data.y),
            settings.train,
            seed=context.seed,
            after_step=self.model.project,
            validate=measure,
            checkpoint=context.checkpoint,
            progress=context.progress,
        )

    def _start_as_linear(self, data: TrainingData, context: FitContext, targets: dict[str, float]) -> None:
        """Train the linear classifier and make the network the same function, of its features instead of the inputs."""
        weight, bias = trained_first(self.settings.linear_settings(targets), self, data, context).affine()
        feature_map, features = self.model.feature_map, self.model.feature_map(data.x[:1])
        if isinstance(feature_map, Identity | CenteredAbs):
            bias = bias + weight @ feature_map.mean.flatten().double()
        # Of (x - mean, |x - mean|) the first half alone.
        on_features = torch.zeros(features[0].numel(), dtype=weight.dtype, device=weight.device)
        on_features[: len(weight)] = weight
        start_affine(self.model.network, on_features, bias)

    def _targets(self, data: TrainingData, context: FitContext) -> dict[str, float]:
        """Radii to train for: those of the settings, or multiples of what a short training reaches."""
        settings = self.settings
        targets: dict[str, float] = {}
        if settings.radius_targets or settings.box_targets or not settings.target_multiples:
            return settings.radius_targets
        scout = copy.deepcopy(self.model)
        epochs = max(1, settings.train.epochs // SHORTER)
        regularised = RegularisedLoss(settings.gradient_weights)
        short = dataclasses.replace(settings.train, epochs=epochs, patience=0)
        with preliminary():
            train(scout, regularised, (data.x, data.y), short, seed=context.seed, after_step=scout.project)
        for norm, multiple in settings.target_multiples.items():
            reached = median_radius(scout, data.x, data.y, norm)
            if reached > 0:  # where half of the inputs are misclassified there is no scale
                targets[norm] = multiple * reached
        return targets

    def _measure(self, data: TrainingData, kind: str) -> Validate | None:
        """What early stopping maximises, and by what an epoch is kept, if anything; kind: as ``keep_best``."""
        if kind == "accuracy":
            return lambda model: balanced_accuracy(model, data.x_val, data.y_val)
        if not kind:
            return None
        constant = self.model.feature_map.constant(kind)
        order = DUAL_NORM_ORDER[self.model.feature_map.lands_in(kind)]

        def slope(gradient: Tensor) -> Tensor:
            return constant * torch.linalg.vector_norm(gradient, order, dim=1)

        kept = self.settings.kept_recall
        points = (BALANCED_POINT, OperatingPoint(kept)) if kept else (BALANCED_POINT,)
        return lambda model: validation_radius(model, data, points, slope, self.batch_size)

    def score(self, x: Tensor) -> Tensor:
        return self.model.score(x)

    def decision_range(self, x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        # Predictions and certificates are of the network in float64.
        exact = float64_copy(self.model)
        with torch.no_grad():
            scores = torch.cat([exact.score(batch.double()) for batch in x.split(self.batch_size)])
        return scores, scores

    def predict(self, x: Tensor, seed: int) -> Tensor:
        return self.model.predict(x).to(torch.int8)

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        bounds = certify_with_bounds(
            self.model, x, norms, curve.certificate, domain=curve.domain, mutable=self.mutable
        )
        return {
            norm: Radii.from_radius(found.radius, radius_upper=found.radius_upper.cpu().numpy())
            for norm, found in bounds.items()
        }

    def shares_thresholds(self, curve: Curve) -> bool:
        return curve.certificate != "refined"

    def radii_at(
        self,
        x: Tensor,
        thresholds: Sequence[float],
        wanted: Tensor,
        curve: Curve,
        norms: Sequence[str],
        seed: int,
    ) -> list[dict[str, Radii]]:
        found = certify_at_thresholds(
            self.model, x, thresholds, norms, curve.certificate, mutable=self.mutable
        )
        return [{norm: Radii.from_radius(radius) for norm, radius in radii.items()} for radii in found]

    def use_linear(self, weight: Tensor, bias: float) -> None:
        network = ConvexMLP.from_arrays([weight.reshape(1, -1)], [torch.full((1,), bias)], [])
        self.model = FeatureConvexClassifier(network).to(self.device)

    def _convex_network(self, feature_shape: tuple[int, ...]) -> ConvexNetwork:
        settings = self.settings
        if settings.architecture == "convnet":
            return ConvexConvNet(feature_shape[0], **settings.convnet)
        size = torch.Size(feature_shape).numel()
        return ConvexMLP(size, settings.hidden, passthrough=settings.passthrough)

    def _loss(self, targets: dict[str, float]) -> Loss:
        settings = self.settings
        if targets or settings.box_targets:
            return RadiusLoss(
                targets,
                settings.radius_weight,
                other_share=settings.other_share,
                box_radii=settings.box_targets,
            )
        return RegularisedLoss(settings.gradient_weights)


class GivenFCNN(Given, FCNN):
    """Certificates from tangents of a feature-convex network that was trained already."""

    certificates = tuple(CERTIFICATES)
    chosen = "first"
    turn = 0
    chunk = 128

    @classmethod
    def obstacle(cls, network: GivenNetwork) -> str:
        convex = isinstance(network.score, FeatureConvexClassifier)
        return "" if convex else "the network is not a feature-convex checkpoint (.safetensors)"

    @classmethod
    def settings_for(cls, certificates: Sequence[str], effort: Effort) -> Any:
        written = [f"{name}:{domain}" for name in certificates for domain in CERTIFICATES[name]]
        return from_table(FCNNSettings, {"certificates": written}, "--certificates")
