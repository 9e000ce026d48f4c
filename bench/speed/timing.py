"""Timing that can be trusted: warm-up apart, the device's queue drained, peers measured in turn."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Work = Callable[[], object]


@dataclass(frozen=True)
class Line:
    """One line of the table: a measured value, its unit, and the limit it is held against (None: for information)."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the value keeps its limit; lines without one always do."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        text = f"  {self.name:62} {self.value:10.4g} {self.unit:8}"
        if self.limit is None:
            return text.rstrip()
        bound = "at least" if self.at_least else "at most"
        return f"{text} ({bound} {self.limit:g}: {'yes' if self.met else 'NO'})"


def seconds(work: Work, repeats: int = 5, device: str = "cpu") -> float:
    """Return the least seconds of ``work`` over the repeats, after one run that is not counted."""
    return interleaved([work], repeats, device)[0]


def interleaved(works: Sequence[Work], repeats: int = 5, device: str = "cpu") -> list[float]:
    """Return the least seconds of each work, run in turn.

    Other programs can only slow a run down: the least is what the work itself takes.
    """
    for work in works:
        work()
    measured: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for times, work in zip(measured, works, strict=True):
            _drain(device)
            started = time.perf_counter()
            work()
            _drain(device)
            times.append(time.perf_counter() - started)
    return [min(times) for times in measured]


def _drain(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
