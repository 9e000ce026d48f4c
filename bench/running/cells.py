"""One cell as a job: what a worker needs to compute it, and what it hands back. Nothing here writes results."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from bench.basics.files import plain
from bench.contract import Method, Outcome
from bench.data import Dataset
from bench.data.request import DataRequest, cached_dataset
from bench.kept.roc import no_roc
from bench.kept.store import CellFolder
from bench.running.batch_runner import Clock
from bench.running.evaluate import CellResult, evaluate, failed
from bench.running.parts import Parts
from bench.running.plan import CellPlan, Scratch
from bench.running.status import StatusFile
from bench.running.validation import validation_measures
from bench.suites.suite import MethodEntry

LOG = logging.getLogger(__name__)
CHECKPOINT = "training.pt"
STATUS = "status.txt"
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True)
class CellJob:
    """Everything but the data that a worker needs to compute one cell.

    key: hash of all that determines the numbers; threads: of the computation, the same for any number of jobs, so
    that the bits are the same.
    """

    folder: CellFolder
    data: DataRequest
    entry: MethodEntry
    plan: CellPlan
    key: str
    threads: int = 1

    @property
    def label(self) -> str:
        """The cell in words."""
        return f"{self.folder.method} on {self.folder.dataset}, seed {self.folder.seed}"

    def method(self, device: str) -> Method:
        """Return the method with its settings, untrained."""
        return self.entry.method_class(self.entry.settings_for(self.plan.dataset), torch.device(device))

    def scratch(self) -> Scratch:
        """Return what the unfinished cell keeps; its folder is named after the key, so other settings never meet."""
        folder = self.folder.unfinished(self.key)
        return Scratch(folder / CHECKPOINT, Parts(folder), self.status())

    def status(self) -> StatusFile:
        """Return the file in which the cell says what it is at while it is computed."""
        return StatusFile(self.folder.unfinished(self.key) / STATUS)


@dataclass(frozen=True)
class Failure:
    """Why a cell has no result: it ran out of its budget (``timeout``) or its worker was lost (``error``)."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class CellOutcome:
    """A computed cell: checked rows, trained state on the CPU, what cell.json says of it, and errors met on the way.

    log: what was logged, where the worker has no folder to log into.
    """

    radii: pd.DataFrame
    predictions: pd.DataFrame
    state: dict[str, Tensor]
    meta: dict[str, Any]
    roc: pd.DataFrame = field(default_factory=no_roc)
    errors: tuple[str, ...] = ()
    log: str = field(default="", repr=False)


# What is told, again and again, which cells are running: seconds so far by the key of each.
Watch = Callable[[Mapping[str, float]], None]
# What computes cells: given jobs and a watcher, it yields each one's result as it ends.
Engine = Callable[[Sequence[CellJob], Watch], Iterator[tuple[CellJob, CellOutcome | Failure]]]


def compute_cell(job: CellJob, data: Dataset, device: str, scratch: Scratch) -> CellOutcome:
    """Evaluate one cell; whatever a method raises becomes ``error`` rows with the reason."""
    method = job.method(device)
    result = evaluate(method, data, job.plan, scratch, job.threads)
    return _outcome(job, method, result, _measures(job, method, data, result) if result.calibrations else ())


def _measures(job: CellJob, method: Method, data: Dataset, result: CellResult) -> list[dict[str, Any]]:
    """Return what figures choose by, nothing where it fails: no row of the cell depends on it."""
    tested = result.radii["index"].nunique()
    with Clock(method.device) as clock, threadpool_limits(job.threads):
        try:
            found = validation_measures(method, data, job.plan, result.calibrations, tested)
        except Exception:
            LOG.exception("%s has no validation measure", job.label)
            found = []
    result.seconds["validate"] = clock.seconds
    return found


def failed_cell(job: CellJob, failure: Failure) -> CellOutcome:
    """Return the rows of a cell that has no result."""
    method = job.method("cpu")
    result = failed(method, cached_dataset(job.data), job.plan, failure.outcome, failure.reason)
    return _outcome(job, method, result)


def _outcome(
    job: CellJob, method: Method, result: CellResult, measures: Sequence[Mapping[str, Any]] = ()
) -> CellOutcome:
    meta = {
        "method": job.entry.method,
        "title": job.entry.title or method.title,
        "settings": method.settings,
        "curves": list(method.curves()),
        "seconds": result.seconds,
        "errors": result.errors,
        "operating_points": {point.point: point for point in result.calibrations},
        "validation": measures,
    }
    state = {name: tensor.detach().cpu() for name, tensor in result.state.items()}
    return CellOutcome(result.radii, result.predictions, state, plain(meta), result.roc, tuple(result.errors))


@contextmanager
def logging_to(stream: TextIO) -> Iterator[None]:
    """Send everything that is logged to a stream as well."""
    handler = _Log(stream)
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


class _Log(logging.StreamHandler):
    """Leaves out what a full disk does not take: the run's own message says it, once."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
