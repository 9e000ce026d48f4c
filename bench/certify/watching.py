"""How far a stage of bench.certify is, what it found so far, how long it will take, and when its time is over."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from bench.contract import Curve, Method, Outcome, Radii
from bench.running.batch_runner import joined_arrays
from bench.running.batches import packed, unpacked

# Seconds that a chunk of inputs should take, so that the display moves and the time is kept.
CHUNK_SECONDS = 3.0
SHOWN_EVERY = 10.0
LATE = "the time of this stage was over before its turn came: give more --minutes or fewer --inputs"


class Stage:
    """One method on ``inputs`` inputs at most: its display, and the moment at which it must stop."""

    def __init__(self, title: str, curves: int, inputs: int, seconds: float) -> None:
        self.title, self.curves, self.inputs = title, curves, inputs
        self.end = time.monotonic() + seconds
        self.curve, self.done, self.finished = None, 0, 0
        self.found: dict[str, list[Radii]] = {}
        every = 0.5 if sys.stderr.isatty() else SHOWN_EVERY
        self.bar = tqdm(total=curves * inputs, desc=title, unit="certificate", mininterval=every, leave=False)
        self.began = time.monotonic()

    def seconds_left(self) -> float:
        """Until the stage must stop."""
        return self.end - time.monotonic()

    def rounds_left(self) -> int:
        """How many inputs on how many curves are still to come, at most."""
        return max(1, (self.curves - self.finished) * self.inputs - self.done)

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


class Watched:
    """The first base of a method whose certificates are issued in chunks, under a stage's eyes.

    Deterministic methods only may be cut into chunks: the noise of a vote is drawn for a batch.
    """

    stage: Stage | None = None
    cut = True

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        stage = self.stage
        if stage is None:
            return super().certify(x, curve, norms, seed)
        stage.begin(curve)
        parts = []
        for chunk in self._chunks(x):
            if self.cut and stage.seconds_left() <= 0:
                found = {norm: Radii.without(len(chunk), Outcome.TIMEOUT, LATE) for norm in norms}
            else:
                found = self._in_time(chunk, curve, norms, seed)
            stage.add(len(chunk), found)
            parts.append({key: value for norm in norms for key, value in packed(found[norm], norm).items()})
        arrays = joined_arrays(parts)
        return {norm: unpacked(arrays, norm) for norm in norms}

    def _in_time(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        return super().certify(x, curve, norms, seed)

    def _chunks(self, x: Tensor) -> Iterator[Tensor]:
        """Few inputs first, then as many as should take ``CHUNK_SECONDS``."""
        start, size = 0, 1 if self.cut else len(x)
        while start < len(x):
            began = time.monotonic()
            yield x[start : start + size]
            start += size
            each = (time.monotonic() - began) / size
            size = int(np.clip(CHUNK_SECONDS / max(each, 1e-6), 1, 4 * size))


class WatchedBranchAndBound(Watched):
    """Of what is left of the stage's time each input gets its share, in each norm, up to the settings' seconds."""

    settings: Any

    def _in_time(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        most = self.settings
        share = self.stage.seconds_left() / (self.stage.rounds_left() * len(norms))
        self.settings = replace(most, seconds=max(1e-2, min(most.seconds or share, share)))
        try:
            return super()._in_time(x, curve, norms, seed)
        finally:
            self.settings = most


def budgets(methods: Sequence[Method], minutes: float) -> Iterator[float]:
    """The seconds of each stage: an equal part of what is left when it begins."""
    end = time.monotonic() + 60 * minutes
    for place in range(len(methods)):
        yield max(0.0, end - time.monotonic()) / (len(methods) - place)


def _described(parts: list[Radii]) -> str:
    radius = np.concatenate([part.radius for part in parts])
    certified = np.concatenate([part.outcome for part in parts]) == Outcome.CERTIFIED
    if not certified.any():
        return f"0/{len(radius)} certified"
    return f"{certified.sum()}/{len(radius)} certified, median {np.median(radius[certified]):.3g}"


def _name(curve: Curve) -> str:
    return f"{curve.certificate} ({curve.domain})"
