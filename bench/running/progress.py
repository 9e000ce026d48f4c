"""What a run tells while it runs: cells done, those running and what they are at, the time left.

On a terminal one line is kept up to date; elsewhere a line is written for each cell that ends, and one a minute about
those that run, so that a log shows a run's state as well.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from tqdm import tqdm

from bench.running.cells import CellJob
from bench.running.costs import Costs, in_words, seconds_left

REFRESH_SECONDS = 1.0
LOG_SECONDS = 60.0


def estimate(
    left: Sequence[CellJob], costs: Costs, at_a_time: int, running: Mapping[str, float] | None = None
) -> str:
    """Return in words how long these cells will take, and how far that can be trusted."""
    if not costs.seconds:
        return "time left unknown, no cell was timed before"
    seconds, unknown = seconds_left(left, costs, at_a_time, running)
    text = f"about {in_words(seconds)} left"
    return f"{text} (a guess: {unknown} of {len(left)} never timed before)" if unknown else text


@dataclass
class Progress:
    """The state of a run, for whoever waits for it.

    jobs: all cells of the run; at_a_time: how many run at once; costs: what such cells took before.
    """

    jobs: Sequence[CellJob]
    at_a_time: int
    costs: Costs = field(default_factory=Costs)
    stream: TextIO = field(default_factory=lambda: sys.stderr)

    def __post_init__(self) -> None:
        self._done: set[str] = set()
        self._found = 0
        self._told = time.monotonic()
        terminal = self.stream.isatty()
        self._bar = tqdm(bar_format="{desc}", file=self.stream, leave=False, disable=not terminal)
        self._every = REFRESH_SECONDS if terminal else LOG_SECONDS

    def found(self, job: CellJob) -> None:
        """A cell had been finished by an earlier run."""
        self._found += 1
        self._done.add(job.key)

    def begin(self) -> None:
        """Say what is still to do."""
        left = [job for job in self.jobs if job.key not in self._done]
        text = f"{len(left)} of {len(self.jobs)} cells to compute"
        text += f", {self._found} finished before" if self._found else ""
        self._line(f"{text}; {self._left({})}")

    def ended(self, job: CellJob, seconds: float | None, failed: bool) -> None:
        """A cell has just ended, after so many seconds of work (None: it was lost)."""
        self._done.add(job.key)
        if seconds is not None and not failed:
            self.costs.add(job.folder.dataset, job.folder.method, seconds)
        what = "failed" if failed else "done"
        what += "" if seconds is None else f" in {in_words(seconds)}"
        self._line(f"[{len(self._done)}/{len(self.jobs)}] {job.label}: {what}; {self._left({})}")

    def watch(self, running: Mapping[str, float]) -> None:
        """Look at the running cells: seconds so far by the key of each."""
        now = time.monotonic()
        if now - self._told < self._every:
            return
        self._told = now
        cells = [job for job in self.jobs if job.key in running]
        names = [self._at(job, running[job.key]) for job in cells]
        place = f"[{len(self._done)}/{len(self.jobs)}]"
        text = f"{place} {self._left(running)}; running: {', '.join(names)}"
        if self._bar.disable:
            self._line(text)
        else:
            self._bar.set_description_str(text)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._bar.close()

    def _at(self, job: CellJob, seconds: float) -> str:
        status = job.status().read()
        return f"{job.label} ({f'{status}, ' if status else ''}{in_words(seconds)})"

    def _left(self, running: Mapping[str, float]) -> str:
        left = [job for job in self.jobs if job.key not in self._done]
        if not left:
            return "all cells done"
        return estimate(left, self.costs, self.at_a_time, running)

    def _line(self, text: str) -> None:
        tqdm.write(text, file=self.stream)
        self.stream.flush()
