"""How training time is counted, and how a training is held to it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

# Where in a training its candidate is judged for the first times, so that a hopeless one need not finish.
MILESTONES = (1 / 3, 2 / 3)


def seconds_of(device: torch.device) -> Callable[[], float]:
    """Return what tells the time on a device: this process's own processor time, or on a GPU the time of day.

    Processor time does not pass while other programs have the processor, so a busy machine cheats no method.
    """
    if device.type != "cuda":
        return time.process_time

    def synchronised() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronised


@dataclass
class Stopwatch:
    """Seconds of training so far; it stands still outside ``running`` and inside ``paused``."""

    now: Callable[[], float]
    _before: float = field(default=0.0, init=False)
    _since: float | None = field(default=None, init=False)

    @property
    def seconds(self) -> float:
        """Seconds counted."""
        return self._before + (0.0 if self._since is None else self.now() - self._since)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of the block."""
        self._since = self.now()
        try:
            yield
        finally:
            self._stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time of the block, within a block that is counted."""
        self._stop()
        try:
            yield
        finally:
            self._since = self.now()

    def _stop(self) -> None:
        if self._since is not None:
            self._before, self._since = self.seconds, None


@dataclass
class TimeLimit:
    """Ends a training after so many seconds, and calls ``milestone`` with its number on the way, time standing still.

    A watch for fcnn.training.watched. done: share of the epochs;
    cut: whether the time was up before the training ended by itself.
    """

    stopwatch: Stopwatch
    seconds: float
    milestone: Callable[[int], None] = lambda number: None
    milestones: Sequence[float] = MILESTONES
    heartbeat: Callable[[float], None] = lambda seconds: None
    cut: bool = field(default=False, init=False)
    done: float = field(default=0.0, init=False)
    _passed: int = field(default=0, init=False)

    def __call__(self, done: float, steps: int, steps_per_epoch: int) -> bool:
        """Return whether the training ends here."""
        self.done = done
        self.cut = done < 1 and self.stopwatch.seconds >= self.seconds
        if self.cut:
            return True
        if steps % steps_per_epoch == 0:
            with self.stopwatch.paused():
                self.heartbeat(self.stopwatch.seconds)
        if self._passed < len(self.milestones) and self.milestones[self._passed] <= done < 1:
            self._passed += 1
            with self.stopwatch.paused():
                self.milestone(self._passed)
        return False


@dataclass
class StepTimer:
    """Ends a training after a few steps, or so many seconds, to learn what a step costs.

    The first step, which warms up, is left out, unless the time is up with it.
    """

    stopwatch: Stopwatch
    steps: int = 12
    seconds: float = float("inf")
    steps_per_epoch: int = field(default=0, init=False)
    _first: float = field(default=0.0, init=False)
    _taken: int = field(default=0, init=False)

    def __call__(self, done: float, steps: int, steps_per_epoch: int) -> bool:
        """Return whether enough was seen."""
        self._taken, self.steps_per_epoch = steps, steps_per_epoch
        if steps == 1:
            self._first = self.stopwatch.seconds
        return steps >= self.steps or self.stopwatch.seconds >= self.seconds

    @property
    def seconds_per_epoch(self) -> float | None:
        """Expected seconds of an epoch; None where the method trained in no steps that could be seen."""
        if not self.steps_per_epoch:
            return None
        if self._taken == 1:
            return self.stopwatch.seconds * self.steps_per_epoch
        return (self.stopwatch.seconds - self._first) / (self._taken - 1) * self.steps_per_epoch
