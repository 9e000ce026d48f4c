"""What a method of certification is: the one contract between the harness and every method.

A method is one file in ``bench/methods/`` (or in an outside package, through the entry point group
``certbench.methods``) that subclasses :class:`Method`. For each cell, that is for each data set, method
and seed, the harness calls, in this order::

    method = SomeMethod(settings, device)
    method.mutable = mask                       # (d,) bool; None, as it is by default: every feature may be changed
    method.build(input_shape, seed)             # an untrained network in method.model
    method.fit(data, context)                   # training split; validation split for early stopping only
    method.decision_range(x_val, seed)          # scores, on which a threshold for each operating point is chosen
    method.predict_at(x_test, thresholds, seed) # every test input at every operating point
    method.certify_at(x, thresholds, ...)       # batches of *sensitive test inputs*, those predicted sensitive

What you write are ``network``, ``fit``, ``score``, ``curves`` and ``certify``: by default, predictions and certificates
at an operating point are ``predict`` and ``certify`` with its threshold set. A method that decides otherwise than by
the sign of its score overrides ``decision_range``; one that shares work between thresholds defines ``radii_at``.

Shapes and units: ``x`` is a float32 tensor (N, *input_shape) in [0, 1]^d on ``method.device``, images
(N, C, H, W), tables (N, d); labels are (N,) with 1 = sensitive. Radii are float64 in the units of x, in the
norm they are asked for. Normalisation and feature maps live inside ``method.model``.

A radius is a *promise*: every x' with ||x' - x||_p < radius (and x' in [0, 1]^d when the curve's domain is
``box``) is predicted sensitive, always (deterministic) or with confidence 1 - alpha over the method's own
draws (probabilistic). When in doubt return a smaller radius, or ``Outcome.UNKNOWN``.

Where ``mutable`` is set, x' differs from x in these features only. A method that takes no notice keeps its promise:
its radius holds for more changes than are asked about. One that does sets ``respects_mutable``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from bench.basics.errors import UsageError
from bench.basics.norms import DUAL_NORM_ORDER as DUAL_NORM_ORDER
from bench.basics.norms import NORMS as NORMS
from bench.basics.norms import check_norms as check_norms
from bench.basics.radii import Outcome as Outcome
from bench.basics.radii import Radii as Radii
from bench.basics.space import SearchSpace
from bench.calibration import (
    BALANCED_POINT,
    Calibration,
    OperatingPoint,
    ThresholdedScore,
    calibrated_threshold,
)


@dataclass(frozen=True)
class Curve:
    """One kind of certificate a method issues: one line per norm in the figures.

    ``domain`` is ``free`` (x' anywhere in R^d) or ``box`` (x' stays in [0, 1]^d). ``native`` lists the norms in
    which the radius is the method's own; in the other norms it is converted by a norm inequality.
    """

    certificate: str
    domain: Literal["free", "box"] = "free"
    norms: tuple[str, ...] = NORMS
    native: tuple[str, ...] = NORMS


@dataclass(frozen=True)
class FitContext:
    """What training may use besides the data: its seed, where to keep its state, whom to tell how far it is."""

    seed: int
    checkpoint: Path | None = None
    progress: Callable[[str], None] | None = None


@dataclass(frozen=True)
class TrainingData:
    """Training and validation tensors on the method's device: x (N, *input_shape), y (N,) with 1 = sensitive."""

    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor


@dataclass
class Method(ABC):
    """Base class of every method; see the module docstring for the order of calls and the shapes.

    Class attributes: ``name`` (used in suites, file names and rows), ``title`` (legends), ``reference`` (paper),
    ``guarantee``, ``kind`` and ``slot``, its family and its shade of the family's colour in every figure (see
    bench.report.figures.identity; a method that names none gets free ones by its name), ``apart``, what sets it apart
    from its family so far that both have a curve in the main figure, ``Settings`` (a frozen dataclass whose defaults
    are the default recipe), ``space``, what tuning may change of them (see bench.basics.space),
    ``batch_size``, how many test inputs it is given at once, and ``respects_mutable``, whether its certificates and the
    adversarial points behind ``radius_upper`` are for changes of the mutable features only.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    reference: ClassVar[str]
    guarantee: ClassVar[Literal["deterministic", "probabilistic"]] = "deterministic"
    kind: ClassVar[str] = ""
    slot: ClassVar[int | None] = None
    apart: ClassVar[str] = ""
    Settings: ClassVar[type[Any]]
    batch_size: ClassVar[int] = 512
    space: ClassVar[SearchSpace] = SearchSpace()
    respects_mutable: ClassVar[bool] = False

    settings: Any = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    model: nn.Module = field(init=False, repr=False)  # there once it is built
    mutable: Tensor | None = field(default=None, repr=False)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.calibrate is not Method.calibrate:
            raise UsageError(
                f"method {cls.__name__} defines calibrate(), which the suite does itself now, for several operating "
                "points from one set of scores: delete it; where score(x) > 0 is not how the method decides, define "
                "decision_range(x, seed) (see docs/adding-a-method.md)"
            )

    def __post_init__(self) -> None:
        if self.settings is None:
            self.settings = self.Settings()

    @property
    def alpha(self) -> float | None:
        """Probability with which a probabilistic certificate may be wrong; None for deterministic methods."""
        return getattr(self.settings, "alpha", None) if self.guarantee == "probabilistic" else None

    @abstractmethod
    def curves(self) -> Sequence[Curve]:
        """Return the kinds of certificate this method issues with its settings."""

    @abstractmethod
    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        """Return an untrained network (N, *input_shape) -> (N,) score; sensitive iff score > 0.

        The threshold must be a buffer or parameter of it named ``threshold``, so that its state is the whole state.
        """

    def build(self, input_shape: tuple[int, ...], seed: int) -> None:
        """Put an untrained network into ``self.model``, its initial weights drawn from ``seed``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = self.network(tuple(input_shape)).to(self.device)

    @abstractmethod
    def fit(self, data: TrainingData, context: FitContext) -> None:
        """Train ``self.model`` in place; resume from ``context.checkpoint`` when it exists."""

    @property
    def threshold(self) -> float | None:
        """The threshold that the network subtracts from its score; None for a network that has none."""
        threshold = getattr(self.model, "threshold", None)
        return None if threshold is None else float(threshold)

    def set_threshold(self, threshold: float) -> float:
        """Put a threshold into the network, where the buffer's precision asks for it the next higher one; return it.

        Raises UsageError for a network without a threshold.
        """
        buffer = getattr(self.model, "threshold", None)
        if buffer is None:
            raise UsageError(
                f"the network of method {self.name!r} has no buffer named threshold to set: wrap it in "
                "bench.calibration.ThresholdedScore"
            )
        with torch.no_grad():
            buffer.fill_(threshold)
            if float(buffer) < threshold:
                buffer.copy_(torch.nextafter(buffer, torch.full_like(buffer, float("inf"))))
        return float(buffer)

    def decision_range(self, x: Tensor, seed: int) -> tuple[Tensor, Tensor] | None:
        """Return low and high, (N,): with a threshold t an input is called sensitive iff t < low, other iff t >= high.

        Called with the threshold 0. In between a method abstains; by default there is nothing in between, as ``score``
        decides. Their middle is the score in the tables. None: there is no such score, and no threshold can be chosen.
        """
        with torch.no_grad():
            scores = torch.cat([self.score(batch) for batch in x.split(self.batch_size)])
        return scores, scores

    def calibrations(
        self, x: Tensor, y: Tensor, seed: int, points: Sequence[OperatingPoint]
    ) -> list[Calibration]:
        """Return a threshold for each operating point, chosen on x (N, *input_shape) with labels y (N,)."""
        self.set_threshold(0.0)
        scores = self.decision_range(x, seed)
        if scores is None:
            raise UsageError(
                f'method {self.name!r} has no score to choose a threshold on: set calibrate = "none"'
            )
        low, high = (score.detach().double().cpu() for score in scores)
        sensitive = y.cpu() > 0.5
        # An input counts as right from, or up to, this threshold: an abstention is a miss for either class.
        decisive = torch.where(sensitive, low, high)
        found = []
        for point in points:
            threshold = self.set_threshold(calibrated_threshold(decisive, y, point))
            above = int((decisive[~sensitive] > threshold).sum())
            found.append(Calibration(str(point), threshold, int((~sensitive).sum()), above))
        return found

    def calibrate(
        self, x: Tensor, y: Tensor, seed: int, point: OperatingPoint = BALANCED_POINT
    ) -> Calibration:
        """Set the threshold for one operating point, by default balanced recalls, chosen on the given data."""
        return self.calibrations(x, y, seed, [point])[0]

    @abstractmethod
    def score(self, x: Tensor) -> Tensor:
        """Return (N,) scores that an attack can differentiate; for deterministic methods sensitive iff > 0."""

    def predict(self, x: Tensor, seed: int) -> Tensor:
        """Return (N,) int8: 1 sensitive, 0 not sensitive, -1 abstains (stored as a missing value, never as -1)."""
        with torch.no_grad():
            return (self.score(x) > 0).to(torch.int8)

    @abstractmethod
    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        """Certify inputs that ``predict`` calls sensitive, for each of the norms (all of them in curve.norms)."""

    def predict_at(self, x: Tensor, thresholds: Sequence[float], seed: int) -> list[Tensor]:
        """Return what ``predict`` returns at each threshold; a method may share work between them."""
        return [self._at(threshold).predict(x, seed) for threshold in thresholds]

    def shares_thresholds(self, curve: Curve) -> bool:
        """Say whether ``certify_at`` finds radii at many thresholds at about the cost of one."""
        return False

    def certify_at(
        self,
        x: Tensor,
        thresholds: Sequence[float],
        wanted: Tensor,
        curve: Curve,
        norms: Sequence[str],
        seed: int,
    ) -> list[dict[str, Radii]]:
        """Return the radii at each threshold of those inputs that are predicted sensitive there.

        Called with the threshold 0. thresholds: T numbers; wanted: (T, N) bool, which of x
        (N, *input_shape) to certify at each. What is found at one threshold must not depend on the others.
        """
        shared = None
        if self.shares_thresholds(curve):
            shared = self.radii_at(x, thresholds, wanted, curve, norms, seed)
        if shared is not None:
            return [
                {norm: found.of(chosen.cpu().numpy()) for norm, found in radii.items()}
                for radii, chosen in zip(shared, wanted, strict=True)
            ]
        return [
            self._at(threshold).certify(x[chosen], curve, norms, seed)
            if chosen.any()
            else {norm: Radii.from_radius(np.zeros(0)) for norm in norms}
            for threshold, chosen in zip(thresholds, wanted, strict=True)
        ]

    def radii_at(
        self,
        x: Tensor,
        thresholds: Sequence[float],
        wanted: Tensor,
        curve: Curve,
        norms: Sequence[str],
        seed: int,
    ) -> list[dict[str, Radii]] | None:
        """Return radii at each threshold of all N inputs, whose rows count where ``wanted``, from work done once.

        Only called where ``shares_thresholds``. By default None: ``certify_at`` then goes from threshold to threshold.
        """
        return None

    def _at(self, threshold: float) -> Self:
        if (
            self.threshold is not None
        ):  # a network without one decides at 0, the only threshold it is asked about
            self.set_threshold(threshold)
        return self

    def use_linear(self, weight: Tensor, bias: float) -> None:
        """Replace the network by score(x) = weight . x + bias, weight (d,); tests compare with exact distances."""
        self.model = ThresholdedScore(LinearScore(weight, bias)).to(self.device).eval()

    def state(self) -> dict[str, Tensor]:
        """Return the trained state as tensors; with the settings it determines the method completely."""
        return self.model.state_dict()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what ``state`` returned into a built network."""
        self.model.load_state_dict(state)


class LinearScore(nn.Module):
    """score(x) = weight . flatten(x) + bias, for exactness tests and as the simplest network there is."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.linear = nn.Linear(weight.numel(), 1)
        with torch.no_grad():
            self.linear.weight.copy_(weight.reshape(1, -1))
            self.linear.bias.fill_(bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)).squeeze(1)
