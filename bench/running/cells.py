"""One cell as a job: what a worker needs to compute it, and what it hands back. Nothing here writes results."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from bench.contract import Method, Outcome
from bench.data import Dataset, TableOptions, load_dataset
from bench.files import plain
from bench.running.evaluate import CellResult, Evaluation, describe, failed
from bench.running.parts import Parts
from bench.running.plan import CellPlan, Scratch
from bench.running.status import StatusFile
from bench.settings import from_table
from bench.store import CellFolder
from bench.suite import MethodEntry
from bench.tables.roc import no_roc
from bench.tables.rows import check_predictions, check_radii

LOG = logging.getLogger(__name__)
CHECKPOINT = "training.pt"
STATUS = "status.txt"
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True)
class DataRequest:
    """How to load a data set, in this process or another."""

    name: str
    data_dir: Path | None = None
    sensitive: str | None = None
    table: TableOptions | None = None
    immutable: tuple[str, ...] = ()

    @classmethod
    def of_run(cls, configuration: Mapping[str, Any], name: str, data_dir: Path | None) -> "DataRequest":
        """Return how a finished run (its ``configuration`` in run.json) loaded a data set."""
        table = configuration.get("table")
        return cls(
            name,
            data_dir,
            configuration.get("sensitive"),
            None if table is None else from_table(TableOptions, table, "the table options in run.json"),
            tuple(configuration.get("immutable") or ()),
        )

    def record(self) -> dict[str, Any]:
        """Return what run.json needs to know, for ``of_run``."""
        return {
            "sensitive": self.sensitive,
            **({"table": self.table} if self.table else {}),
            **({"immutable": self.immutable} if self.immutable else {}),
        }


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


@lru_cache(maxsize=1)
def cached_dataset(request: DataRequest) -> Dataset:
    """Load a data set, the last one kept, since a process tends to need one several times in a row."""
    return load_dataset(
        request.name,
        data_dir=request.data_dir,
        sensitive=request.sensitive,
        table=request.table,
        immutable=request.immutable,
    )


def compute_cell(job: CellJob, data: Dataset, device: str, scratch: Scratch) -> CellOutcome:
    """Evaluate one cell; whatever a method raises becomes ``error`` rows with the reason."""
    method = job.method(device)
    torch.set_num_threads(job.threads)
    with threadpool_limits(job.threads):
        try:
            result = Evaluation(method, data, job.plan, scratch).run()
            check_radii(result.radii)
            check_predictions(result.predictions)
        except Exception as error:  # a failing method must not take the other cells down
            LOG.exception("%s failed", job.label)
            result = failed(method, data, job.plan, Outcome.ERROR, describe(error))
    return _outcome(job, method, result)


def failed_cell(job: CellJob, failure: Failure) -> CellOutcome:
    """Return the rows of a cell that has no result."""
    method = job.method("cpu")
    result = failed(method, cached_dataset(job.data), job.plan, failure.outcome, failure.reason)
    return _outcome(job, method, result)


def _outcome(job: CellJob, method: Method, result: CellResult) -> CellOutcome:
    meta = {
        "method": job.entry.method,
        "title": job.entry.title or method.title,
        "settings": method.settings,
        "curves": list(method.curves()),
        "seconds": result.seconds,
        "errors": result.errors,
        "operating_points": {point.point: point for point in result.calibrations},
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
