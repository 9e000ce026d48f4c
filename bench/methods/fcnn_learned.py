"""Feature-convex networks on learned maps: the layers of a Lipschitz network, and a convex head for its last."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from baselines.lipschitz import one_sided_radius_loss
from baselines.lipschitz.features import LipschitzFeatures, affine_head
from bench.basics.settings import from_table
from bench.basics.space import Choice, Range, SearchSpace, augmentation, radius_loss, training
from bench.calibration import BALANCED_POINT, OperatingPoint
from bench.contract import DUAL_NORM_ORDER, Curve, FitContext, Method, Radii, TrainingData
from bench.methods._kept import train_from, validation_radius
from bench.methods._lipschitz import LipschitzMethod
from bench.methods.bro import BRO
from bench.methods.cayley import Cayley
from bench.methods.l1_lipschitz import L1Lipschitz
from bench.methods.linf_distance import LinfDistance
from bench.methods.sll import SLL
from fcnn.classifier import FeatureConvexClassifier
from fcnn.heads import MaxAffine, start_affine
from fcnn.learned_maps import LipschitzMap, certify_through_map
from fcnn.losses import score_and_gradient
from fcnn.networks import ConvexMLP, ConvexNetwork
from fcnn.training import History, TrainSettings, preliminary, train

MAPS: dict[str, type[LipschitzMethod]] = {
    method.name: method for method in (Cayley, SLL, BRO, LinfDistance, L1Lipschitz)
}

# What the map is known by: its constants and its rounding.
DECLARED = (LipschitzFeatures.lipschitz_bound, LipschitzFeatures.rounding)


@dataclass(frozen=True)
class FCNNLearnedSettings:
    """Recipe of a feature-convex classifier on a learned map.

    feature_map: the Lipschitz network whose layers are the map; map_settings: its settings, as of the method of that
    name. It is trained first, and its last layer is where the head starts. head: ``icnn``, a ConvexMLP with layers
    ``hidden``, or ``max_affine`` with so many ``pieces``.
    margin, radius_target, radius_weight: of the loss, as for the Lipschitz network. train: of head and map together,
    the map only if ``train_map``.
    kept_recall: what is kept is the epoch, or the start, with the best median radius of sensitive validation inputs,
    by the geometric mean of that at balanced recalls and that at this recall of the other class.
    """

    feature_map: Literal["cayley", "sll", "bro", "linf_distance", "l1_lipschitz"] = "cayley"
    map_settings: dict[str, Any] = field(default_factory=dict)
    head: Literal["icnn", "max_affine"] = "icnn"
    hidden: tuple[int, ...] = (50,)
    pieces: int = 16
    margin: float = 0.5
    radius_target: float = 2.0
    radius_weight: float = 1.0
    train_map: bool = True
    kept_recall: float = 0.99
    certificates: tuple[Literal["closed_form:free", "refined:free"], ...] = ("closed_form:free",)
    train: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=10, batch_size=128))

    def __post_init__(self) -> None:
        if not (self.margin > 0 and self.radius_target > 0):
            raise ValueError(
                f"margin = {self.margin}, radius_target = {self.radius_target}: choose numbers > 0"
            )
        if not 0 < self.kept_recall < 1:
            raise ValueError(f"kept_recall = {self.kept_recall}: choose a share in (0, 1)")
        self.map_method(torch.device("cpu"))

    def map_method(self, device: torch.device) -> LipschitzMethod:
        """The method whose network gives the map. Raises UsageError for settings that are not its own."""
        kind = MAPS[self.feature_map]
        return kind(from_table(kind.Settings, self.map_settings, "map_settings"), device)


class FCNNLearned(Method):
    """Feature-convex classifier whose feature map is trained: Lipschitz layers, then a convex head.

    Guarantee: deterministic, native in the norm that the map is made for. Source: Pfrommer, Anderson, Piet, Sojoudi,
    NeurIPS 2023 (arXiv 2302.01961), theorem 3.1, with a map from one norm to another: docs/certificates.md.
    """

    name = "fcnn_learned"
    title = "FCNN, learned map"
    kind = "feature_convex"
    slot = 2
    apart = ", learned map"
    reference = "Pfrommer et al., NeurIPS 2023"
    guarantee = "deterministic"
    Settings = FCNNLearnedSettings
    space = SearchSpace(
        {
            "map_settings.margin": Range(0.2, 5.0, log=True, of="{norm}"),
            "map_settings.train.epochs": Range(10, 60, whole=True),
            "map_settings.train.learning_rate": Range(1e-3, 0.1, log=True),
            "head": Choice("icnn", "max_affine"),
            "margin": Range(0.2, 5.0, log=True, of="{norm}"),
            **radius_loss(),
            **training(learning_rate=(5e-4, 0.05)),
            **augmentation(),
            **{f"map_settings.{key}": values for key, values in {**radius_loss(), **augmentation()}.items()},
        },
        judging={"certificates": ["closed_form:free"]},
    )

    model: FeatureConvexClassifier

    def curves(self) -> Sequence[Curve]:
        native = (MAPS[self.settings.feature_map].native_norm,)
        pairs = [written.split(":") for written in self.settings.certificates]
        return [Curve(certificate, domain, native=native) for certificate, domain in pairs]

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        self.base = self.settings.map_method(self.device)
        self.base.model = self.base.network(input_shape)
        layers = LipschitzFeatures(self.base.model, torch.Size(input_shape).numel())
        feature_map = LipschitzMap(layers, *DECLARED, input_shape)
        return FeatureConvexClassifier(self._head(feature_map.features), feature_map)

    def _head(self, features: int) -> ConvexNetwork:
        if self.settings.head == "max_affine":
            return MaxAffine(features, self.settings.pieces)
        return ConvexMLP(features, self.settings.hidden)

    def fit(self, data: TrainingData, context: FitContext) -> None:
        self._fit_map(data, context)
        self.dual_order = DUAL_NORM_ORDER[self.model.feature_map.lands_in(self.base.native_norm)]
        train_from(
            self.model, lambda model: self._validation_radius(data), lambda: self._fit_head(data, context)
        )
        self.model.double().eval().requires_grad_(True)

    def _fit_head(self, data: TrainingData, context: FitContext) -> History:
        """Train the head, and the map where the settings say so."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            _part_pieces(self.model.network)
        self.model.feature_map.requires_grad_(self.settings.train_map)
        return train(
            self.model,
            self.loss,
            (data.x, data.y),
            self.settings.train,
            seed=context.seed,
            after_step=self._project,
            validate=lambda model: self._validation_radius(data),
            checkpoint=context.checkpoint,
            progress=context.progress,
        )

    def _fit_map(self, data: TrainingData, context: FitContext) -> None:
        """Train the Lipschitz network and start the head as its last layer."""
        checkpoint = context.checkpoint and context.checkpoint.with_name(context.checkpoint.name + ".map")
        with preliminary():
            self.base.fit(data, FitContext(context.seed, checkpoint, context.progress))
        self.base.model.float()
        self.model.float().eval()
        feature_map = self.model.feature_map
        assert isinstance(feature_map, LipschitzMap)  # built above
        start_affine(self.model.network, *affine_head(self.base.model, feature_map.features))

    def loss(self, model: FeatureConvexClassifier, x: Tensor, y: Tensor, done: float) -> Tensor:
        """The Lipschitz networks' loss of the signed radius score / ||gradient||_{q*}; the map is 1-Lipschitz."""
        settings = self.settings
        score, gradient = score_and_gradient(model, x)
        radius = score / self._slope(gradient).clamp(min=1e-12)
        return one_sided_radius_loss(
            radius, y, settings.margin, settings.radius_target, settings.radius_weight
        )

    def _project(self) -> None:
        self.model.project()
        self.base.model.project()

    def _validation_radius(self, data: TrainingData) -> float:
        """What ``kept_recall`` judges by; one operating point alone is too few inputs to tell an epoch from luck."""
        points = (BALANCED_POINT, OperatingPoint(self.settings.kept_recall))
        return validation_radius(self.model, data, points, self._slope, self.batch_size)

    def _slope(self, gradient: Tensor) -> Tensor:
        return torch.linalg.vector_norm(gradient, self.dual_order, dim=1)

    def score(self, x: Tensor) -> Tensor:
        return self.model.score(x)

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        radii = certify_through_map(self.model, x, norms, curve.certificate)
        return {norm: Radii.from_radius(radius) for norm, radius in radii.items()}

    def use_linear(self, weight: Tensor, bias: float) -> None:
        self.base = self.settings.map_method(self.device)
        self.base.use_linear(weight, bias)
        layers = LipschitzFeatures(self.base.model, weight.numel())
        feature_map = LipschitzMap(layers, *DECLARED, (weight.numel(),))
        head = ConvexMLP.from_arrays([weight.reshape(1, -1)], [torch.full((1,), bias)], [])
        self.model = FeatureConvexClassifier(head, feature_map).double().eval().to(self.device)

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.model.double().eval()
        super().load_state(state)


@torch.no_grad()
def _part_pieces(head: nn.Module) -> None:
    """Move the equal pieces of a head apart, by a tenth of their weights' size, so that each learns something else."""
    if isinstance(head, MaxAffine):
        weight = head.affine.weight
        weight[1:] += 0.1 * weight.square().mean().sqrt() * torch.randn_like(weight[1:])
