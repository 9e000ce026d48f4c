"""How far a stage of bench.certify is, what it found so far, how long it will take, and when its time is over."""

import sys
import time

import numpy as np
from tqdm import tqdm

from bench.contract import Curve, Outcome, Radii

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

    def excuse(self, radii: Radii) -> None:
        """An input of which nothing was proved when the time was over may yet be certified with more."""
        unknown = (radii.outcome == Outcome.UNKNOWN) & (self.seconds_left() <= 0)
        if unknown.any():
            radii.outcome = np.where(unknown, Outcome.TIMEOUT, radii.outcome)
            radii.reason = radii.reason or LATE

    def close(self) -> None:
        """Print what the last curve found and take the display away."""
        self.tell()
        self.bar.close()

    def _summary(self) -> str:
        return "; ".join(f"{norm} {_described(parts)}" for norm, parts in self.found.items())


def _described(parts: list[Radii]) -> str:
    radius = np.concatenate([part.radius for part in parts])
    certified = np.concatenate([part.outcome for part in parts]) == Outcome.CERTIFIED
    if not certified.any():
        return f"0/{len(radius)} certified"
    return f"{certified.sum()}/{len(radius)} certified, median {np.median(radius[certified]):.3g}"


def _name(curve: Curve) -> str:
    return f"{curve.certificate} ({curve.domain})"
