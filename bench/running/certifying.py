"""The certificates of one cell: every curve at every threshold asked for, in the same batches whatever is asked."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from bench.basics.files import safe_name
from bench.contract import Curve, Method, Outcome, Radii
from bench.kept.batches import checked_radii, packed, unpacked
from bench.running.batch_runner import BatchRunner

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """Certificates of the inputs ``wanted`` (N,) bool, at one threshold."""

    threshold: float
    wanted: np.ndarray


@dataclass(frozen=True)
class Found:
    """Radii of the wanted inputs in each norm; seconds per input of the call, which may cover more thresholds."""

    radii: dict[str, Radii]
    seconds: float = 0.0


@dataclass
class CurveFound:
    """What is found on one curve: at the operating points, at more thresholds (or none), seconds in all, errors."""

    points: list[Found]
    more: list[Found] = field(default_factory=list)
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Certifier:
    """Certifies inputs x (N, *input_shape) of a trained method in some norms.

    seed_for: seed of the random numbers of a purpose; describe: an exception in one line.
    """

    method: Method
    runner: BatchRunner
    x: np.ndarray
    norms: tuple[str, ...]
    seed_for: Callable[..., int]
    describe: Callable[[BaseException], str]

    def curve(self, curve: Curve, points: Sequence[Asked], more: Sequence[Asked]) -> CurveFound:
        """Return what is found at the operating points, and at more thresholds where they cost little.

        Where the method shares work between thresholds all are asked for in one call. Batches are of all inputs, wanted
        or not, so that neither rounding nor noise depends on what else is asked for.
        """
        if self.method.shares_thresholds(curve):
            found = self._call(curve, "", [*points, *more])
            more_found = [] if found.errors else found.points[len(points) :]
            return replace(found, points=found.points[: len(points)], more=more_found)
        total = CurveFound([])
        for place, asked in enumerate(points):
            found = self._call(curve, f"-{place}", [asked])
            total.points += found.points
            total.seconds += found.seconds
            total.errors += found.errors
        return total

    def _call(self, curve: Curve, suffix: str, asked: Sequence[Asked]) -> CurveFound:
        """Certify at several thresholds; an exception makes all their rows ``error`` rows."""
        norms = tuple(norm for norm in self.norms if norm in curve.norms)
        wanted = np.stack([one.wanted for one in asked])
        counts = wanted.sum(axis=1).tolist()
        if not norms or not wanted.any():
            nothing = dict.fromkeys(norms, Radii.from_radius(np.zeros(0)))
            return CurveFound([Found(self._all_norms(curve, nothing, count)) for count in counts])
        name = safe_name(f"certify-{curve.certificate}-{curve.domain}{suffix}")
        try:
            arrays, seconds = self.runner.run(name, self.x, self._batch(curve, norms, asked, wanted))
        except Exception as error:  # a method may raise anything; the other curves and cells must go on
            LOG.exception("%s, certificate %s in %s", self.method.name, curve.certificate, norms)
            reason = self.describe(error)
            broken = [
                {norm: Radii.without(count, Outcome.ERROR, reason) for norm in norms} for count in counts
            ]
            found = [Found(self._all_norms(curve, *one)) for one in zip(broken, counts, strict=True)]
            return CurveFound(found, errors=[reason])
        each = seconds / int(wanted.any(axis=0).sum())
        radii = [{norm: unpacked(arrays, f"{place}.{norm}") for norm in norms} for place in range(len(asked))]
        found = [Found(self._all_norms(curve, *one), each) for one in zip(radii, counts, strict=True)]
        return CurveFound(found, seconds=seconds)

    def _batch(
        self, curve: Curve, norms: tuple[str, ...], asked: Sequence[Asked], wanted: np.ndarray
    ) -> Callable[[int, Tensor], dict[str, np.ndarray]]:
        """Return the function that certifies one batch at all thresholds."""
        thresholds = [one.threshold for one in asked]

        def certify(start: int, batch: Tensor) -> dict[str, np.ndarray]:
            mine = torch.from_numpy(wanted[:, start : start + len(batch)]).to(batch.device)
            seed = self.seed_for("certify", curve.certificate, curve.domain, start)
            found = self.method.certify_at(batch, thresholds, mine, curve, norms, seed)
            arrays: dict[str, np.ndarray] = {}
            for place, (radii, count) in enumerate(zip(found, mine.sum(dim=1).tolist(), strict=True)):
                for norm in norms:
                    part = self._within_reach(checked_radii(radii, norm, count))
                    arrays |= packed(part, f"{place}.{norm}")
            return arrays

        return certify

    def _within_reach(self, radii: Radii) -> Radii:
        """Forget adversarial points that may have moved a feature which nobody can change."""
        if self.method.mutable is not None and not self.method.respects_mutable:
            radii.radius_upper = None
        return radii

    def _all_norms(self, curve: Curve, radii: dict[str, Radii], count: int) -> dict[str, Radii]:
        """Add the norms that the curve does not have, as ``unsupported``."""
        reason = f"{self.method.title} issues no {curve.certificate} certificate in"
        return radii | {
            norm: Radii.without(count, Outcome.UNSUPPORTED, f"{reason} {norm}")
            for norm in self.norms
            if norm not in curve.norms
        }
