"""What the adapters of bound propagation share: settings, three ways to train, and certification."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from baselines.adversarial import AdversarialLoss, CertifiedLoss, ExpressiveLoss
from baselines.bounds import BoundedScore, RadiusSearch, SlopeSettings, UnsupportedLayer
from baselines.layered import LayeredNetwork
from baselines.networks import build_network
from bench.basics.space import Choice, Range, SearchSpace, augmentation, training
from bench.calibration import ThresholdedScore
from bench.contract import Curve, FitContext, Method, Outcome, Radii, TrainingData
from bench.methods._frozen import FrozenNetwork, fingerprint
from bench.methods.given import Given, GivenNetwork
from fcnn.training import Loss, TrainSettings, cross_entropy, train

CROWN_SHARE = 0.5
Certificate = Literal[
    "ibp:free",
    "ibp:box",
    "crown_ibp:free",
    "crown_ibp:box",
    "crown:free",
    "crown:box",
    "alpha_crown:free",
    "alpha_crown:box",
]

Training = Literal["standard", "adversarial", "ibp", "crown_ibp", "mtl_ibp"]

# What tuning may change of every network that bounds certify; how it is trained adds to this.
NETWORK_SPACE = {
    "hidden": Choice([200], [100, 50], [200, 50]),
    "train.weight_decay": Range(1e-6, 1e-3, log=True),
    **training(),
    **augmentation(),
}
ADVERSARIAL_SPACE = {
    **NETWORK_SPACE,
    "epsilon": Range(0.3, 4.0, log=True, of="linf"),
    "ramp": Range(0.2, 0.8),
}
QUICK_BOUNDS = {"certificates": ["crown:free"], "tolerance": 0.02}


@dataclass(frozen=True)
class BoundsSettings:
    """Recipe of a plain network certified by bound propagation.

    network, hidden: see baselines.networks; training: ``standard``, ``adversarial`` (PGD in linf), ``ibp``,
    ``crown_ibp`` (half of each bound) or ``mtl_ibp`` (adversarial, with ``bound_share`` of the interval bound).
    epsilon: linf radius trained for, reached after the share ``ramp`` of the training; attack_steps: PGD steps;
    clean_share: weight of the ordinary cross-entropy once the ramp is over (``ibp``, ``crown_ibp``).
    certificates: which curves to issue, as method:domain; tolerance: relative width at which the radius search stops;
    slope_steps, slope_rate: optimiser of alpha-CROWN.
    """

    network: Literal["mlp", "convnet"] = "mlp"
    hidden: tuple[int, ...] = (200,)
    training: Training = "standard"
    epsilon: float = 0.1
    ramp: float = 0.5
    attack_steps: int = 7
    clean_share: float = 0.5
    bound_share: float = 0.1
    certificates: tuple[Certificate, ...] = ("crown:free",)
    tolerance: float = 1e-3
    slope_steps: int = 10
    slope_rate: float = 0.3
    train: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=15, batch_size=128))


class BoundPropagation(Method):
    """Base of the methods that certify a plain network by bounds; they differ in their default recipe.

    The network is trained in float32. A copy of it in float64 predicts, is attacked and is certified.
    """

    kind = "bounds"
    guarantee = "deterministic"
    Settings: ClassVar[type[Any]] = BoundsSettings
    respects_mutable = True
    space = SearchSpace(NETWORK_SPACE, judging=QUICK_BOUNDS, judged_inputs=400)

    model: ThresholdedScore

    def __post_init__(self) -> None:
        super().__post_init__()
        self._exact = FrozenNetwork()

    def curves(self) -> Sequence[Curve]:
        return [Curve(*written.split(":")) for written in self.settings.certificates]

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        settings = self.settings
        return ThresholdedScore(build_network(settings.network, input_shape, settings.hidden))

    def fit(self, data: TrainingData, context: FitContext) -> None:
        train(
            self.model.network,
            self._loss(),
            (data.x, data.y),
            self.settings.train,
            seed=context.seed,
            checkpoint=context.checkpoint,
            progress=context.progress,
        )

    def score(self, x: Tensor) -> Tensor:
        """Score by the network in float64, which is what is certified."""
        return self._exact.network(self.model)(x.double())

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        try:
            found = {
                norm: self._search(x, norm).radii(curve.certificate, curve.domain).radius for norm in norms
            }
        except UnsupportedLayer as error:
            return {norm: Radii.without(len(x), Outcome.UNSUPPORTED, str(error)) for norm in norms}
        return {norm: Radii.from_radius(found[norm]) for norm in norms}

    def bounded(self) -> nn.Module | LayeredNetwork:
        """Return what is bounded: a network all of whose outputs are positive where the input is sensitive."""
        return self.model

    def _loss(self) -> Loss:
        settings = self.settings
        if settings.training == "adversarial":
            return AdversarialLoss(settings.epsilon, settings.ramp, settings.attack_steps)
        if settings.training in ("ibp", "crown_ibp"):
            crown_share = CROWN_SHARE if settings.training == "crown_ibp" else 0.0
            return CertifiedLoss(settings.epsilon, settings.ramp, settings.clean_share, crown_share)
        if settings.training == "mtl_ibp":
            return ExpressiveLoss(
                settings.epsilon, settings.bound_share, settings.ramp, settings.attack_steps
            )
        return cross_entropy

    def _search(self, x: Tensor, norm: str) -> RadiusSearch:
        """The search over these inputs; kept, because the curve in the box starts from the free one's radii."""
        self._exact.network(self.model)
        shape, settings = tuple(x.shape[1:]), self.settings
        bounded = self._exact.kept("bounds", lambda network: BoundedScore(self.bounded(), shape, self.device))
        slopes = SlopeSettings(settings.slope_steps, settings.slope_rate)
        return self._exact.kept(
            ("search", norm, fingerprint([x])),
            lambda network: RadiusSearch(
                bounded, x, norm, tolerance=settings.tolerance, slopes=slopes, mutable=self.mutable
            ),
        )


class GivenMargins(Given):
    """The first base of a method that bounds one or several margins of a given network in float64."""

    @classmethod
    def obstacle(cls, network: GivenNetwork) -> str:
        return network.unreadable

    def bounded(self) -> nn.Module | LayeredNetwork:
        return self.given.layered or self.given.margins

    def score(self, x: Tensor) -> Tensor:
        return self.model(x.double())
