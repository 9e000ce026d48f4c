"""How far a stage of bench.certify is, what it found so far, how long it will take, and when its time is over."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor
from tqdm import tqdm

from baselines.bounds import RadiusSearch
from bench.contract import Curve, Method, Outcome, Radii
from bench.kept.batches import joined_arrays, packed, unpacked
from bench.methods._bounds import BoundPropagation

SHOWN_EVERY = 10.0
LATE = "the time of this stage was over before its turn came: give more --minutes or fewer --inputs"


class Stage:
    """One method on ``inputs`` inputs at most: its display, and the moment at which it must stop."""

    def __init__(self, title: str, curves: int, inputs: int, seconds: float) -> None:
        self.title, self.curves, self.inputs = title, curves, inputs
        self.end = time.monotonic() + seconds
        self.curve: Curve | None = None
        self.done, self.finished = 0, 0
        self.found: dict[str, list[Radii]] = {}
        every = 0.5 if sys.stderr.isatty() else SHOWN_EVERY
        self.bar = tqdm(total=curves * inputs, desc=title, unit="certificate", mininterval=every, leave=False)
        self.began = time.monotonic()

    def seconds_left(self) -> float:
        """Until the stage must stop."""
        return self.end - time.monotonic()

    def share(self) -> float:
        """Seconds for one input on one curve, in all norms: an equal part of what is left."""
        rounds = max(1, (self.curves - self.finished) * self.inputs - self.done)
        return max(0.0, self.seconds_left()) / rounds

    def begin(self, curve: Curve) -> None:
        """Say what comes now; of the curve before, what was found."""
        if curve != self.curve:
            self.tell()
            self.curve, self.done, self.found, self.began = curve, 0, {}, time.monotonic()
            self.bar.set_description(f"{self.title}: {_name(curve)}")

    def add(self, count: int, found: dict[str, Radii]) -> None:
        """Count inputs of the curve, with their radii."""
        for norm, radii in found.items():
            self.found.setdefault(norm, []).append(radii)
        self.done += count
        self.bar.set_postfix_str(self._summary(), refresh=False)
        self.bar.update(count)

    def tell(self) -> None:
        """Print what the curve found, and count it as finished."""
        if self.curve is None:
            return
        self.finished += 1
        self.bar.total -= self.inputs - self.done
        took = time.monotonic() - self.began
        self.bar.clear()
        print(f"{self.title}, {_name(self.curve)}: {self._summary()} ({took:.1f} s)", flush=True)
        self.curve = None

    def close(self) -> None:
        """Print what the last curve found and take the display away."""
        self.tell()
        self.bar.close()

    def _summary(self) -> str:
        return "; ".join(f"{norm} {_described(parts)}" for norm, parts in self.found.items())


class Watched(Method):
    """The first base of a method whose certificates are issued in chunks, under a stage's eyes.

    chunk: how many inputs at once; 0: those it is given, as votes need, whose noise is drawn for a batch. They are not
    stopped either. asked_late: whether the method answers at once when the time is over.
    """

    stage: Stage | None = None
    chunk = 32
    asked_late = False

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        stage = self.stage
        if stage is None:
            return self._issued(x, curve, norms, seed)
        stage.begin(curve)
        parts = []
        for part in x.split(self.chunk or len(x)):
            late = bool(self.chunk) and stage.seconds_left() <= 0
            if late and not self.asked_late:
                found = {norm: Radii.without(len(part), Outcome.TIMEOUT, LATE) for norm in norms}
            else:
                found = self._in_time(part, stage, curve, norms, seed)
            stage.add(len(part), found)
            parts.append({key: value for norm in norms for key, value in packed(found[norm], norm).items()})
        arrays = joined_arrays(parts)
        return {norm: unpacked(arrays, norm) for norm in norms}

    def _in_time(
        self, x: Tensor, stage: Stage, curve: Curve, norms: Sequence[str], seed: int
    ) -> dict[str, Radii]:
        return self._issued(x, curve, norms, seed)

    def _issued(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        # Of the method that comes next in the bases.
        return super().certify(x, curve, norms, seed)  # type: ignore[safe-super]  # it is no abstract one


class WatchedBounds(Watched, BoundPropagation):
    """The search in each norm ends after its share of the stage's time, with what it has.

    The same inputs come together each time, so that a search goes on from the radii of the curve before.
    """

    chunk = 8
    asked_late = True
    _share = 0.0

    def _in_time(
        self, x: Tensor, stage: Stage, curve: Curve, norms: Sequence[str], seed: int
    ) -> dict[str, Radii]:
        self._share = stage.share() * len(x) / len(norms)
        found = super()._in_time(x, stage, curve, norms, seed)
        for radii in found.values():
            _excuse(radii, stage)
        return found

    def _search(self, x: Tensor, norm: str) -> RadiusSearch:
        search = super()._search(x, norm)
        search.until = None if self.stage is None else time.monotonic() + self._share
        return search


class WatchedBranchAndBound(Watched):
    """Each input gets its share of the stage's time, in each norm, up to the settings' seconds."""

    chunk = 4

    def _in_time(
        self, x: Tensor, stage: Stage, curve: Curve, norms: Sequence[str], seed: int
    ) -> dict[str, Radii]:
        most = self.settings
        share = stage.share() / len(norms)
        self.settings = replace(most, seconds=max(1e-2, min(most.seconds or share, share)))
        try:
            return super()._in_time(x, stage, curve, norms, seed)
        finally:
            self.settings = most


def budgets(methods: Sequence[Watched], minutes: float) -> Iterator[float]:
    """The seconds of each stage: an equal part of what is left when it begins, no limit where it is not cut."""
    end, left = time.monotonic() + 60 * minutes, sum(bool(method.chunk) for method in methods)
    for method in methods:
        if not method.chunk:
            yield float("inf")
            continue
        yield max(0.0, end - time.monotonic()) / left
        left -= 1


def _excuse(radii: Radii, stage: Stage) -> None:
    """An input of which nothing was proved when the time was over may yet be certified with more."""
    unknown = (radii.outcome == Outcome.UNKNOWN) & (stage.seconds_left() <= 0)
    if unknown.any():
        radii.outcome = np.where(unknown, Outcome.TIMEOUT, radii.outcome)
        radii.reason = radii.reason or LATE


def _described(parts: list[Radii]) -> str:
    radius = np.concatenate([part.radius for part in parts])
    certified = np.concatenate([part.outcome for part in parts]) == Outcome.CERTIFIED
    if not certified.any():
        return f"0/{len(radius)} certified"
    return f"{certified.sum()}/{len(radius)} certified, median {np.median(radius[certified]):.3g}"


def _name(curve: Curve) -> str:
    return f"{curve.certificate} ({curve.domain})"
