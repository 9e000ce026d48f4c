"""Cells on a Dask cluster: data go to each worker once, and this process alone writes what comes back.

A worker computes one cell at a time (start workers with ``--nthreads 1``) and writes nothing; a cell whose worker dies
is computed again elsewhere, by Dask, up to its ``allowed-failures``.
"""

import io
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bench.basics.errors import UsageError
from bench.contract import Outcome
from bench.data import Dataset
from bench.data.request import DataRequest, cached_dataset
from bench.running.cells import (
    CellJob,
    CellOutcome,
    Engine,
    Failure,
    Watch,
    compute_cell,
    logging_to,
)
from bench.running.evaluate import describe
from bench.running.plan import Scratch

if TYPE_CHECKING:
    from distributed import Client, Future

LOG = logging.getLogger(__name__)
TOPIC = "certbench-cell-started"
TICK_SECONDS = 0.05
CONNECT_SECONDS = 15
# A cell whose data were lost with their workers is sent again, data and all, this often.
SENDINGS = 10


@contextmanager
def cluster_engine(address: str, device: str, minutes: float) -> Iterator[Engine]:
    """Connect to the scheduler at ``address`` and yield what computes cells there, each in ``minutes`` (0: any).

    Raises UsageError where Dask is missing, nobody answers, or a worker computes several cells at a time.
    """
    client = _connect(address)
    try:
        _check_threads(client)
        yield lambda jobs, watch: _Run(client, device, minutes).results(jobs, watch)
    finally:
        client.close()


def compute_remotely(job: CellJob, data: Dataset, device: str) -> CellOutcome:
    """What a Dask worker does for one cell; the log travels with the result."""
    from distributed import get_worker

    worker = get_worker()
    worker.log_event(TOPIC, {"key": worker.get_current_task(), "worker": worker.address})
    stream = io.StringIO()
    with logging_to(stream):
        outcome = compute_cell(job, data, device, Scratch())
    return replace(outcome, log=stream.getvalue())


@dataclass
class _Run:
    """One list of jobs on a cluster."""

    client: "Client"
    device: str
    minutes: float
    data: dict[DataRequest, "Future"] = field(default_factory=dict)
    pending: dict["Future", tuple[CellJob, "Future"]] = field(default_factory=dict)
    started: dict[str, tuple[float, str]] = field(default_factory=dict)
    sendings: dict[str, int] = field(default_factory=dict)

    def results(
        self, jobs: Sequence[CellJob], watch: Watch
    ) -> Iterator[tuple[CellJob, CellOutcome | Failure]]:
        """Yield each job's result as it ends."""
        self.client.subscribe_topic(TOPIC, self._note_start)
        try:
            for job in jobs:
                self._send(job)
            while self.pending:
                ended = [future for future in self.pending if future.done() or self._is_overdue(future)]
                if not ended:
                    time.sleep(TICK_SECONDS)
                watch(self._running())
                for future in ended:
                    job, data = self.pending.pop(future)
                    result = self._result(future, job, data)
                    if result is not None:
                        yield job, result
        finally:
            self.client.cancel(list(self.pending))
            self.client.unsubscribe_topic(TOPIC)

    def _send(self, job: CellJob) -> None:
        if job.data not in self.data:
            self.data[job.data] = self._scatter(cached_dataset(job.data))
        self.sendings[job.key] = self.sendings.get(job.key, 0) + 1
        data = self.data[job.data]
        future = self.client.submit(compute_remotely, job, data, self.device, pure=False)
        self.pending[future] = job, data

    def _scatter(self, data: Dataset) -> "Future":
        """Send a data set to one worker, from which the others fetch it; workers that die meanwhile are passed over."""
        for attempt in range(SENDINGS):
            try:
                return self.client.scatter(data, hash=False)
            except (OSError, TimeoutError) as error:
                LOG.info("sending %s failed (%s), attempt %d", data.name, error, attempt + 1)
                lost = describe(error)
                time.sleep(1)
        raise OSError(f"the Dask cluster does not take data ({lost})")

    def _result(self, future: "Future", job: CellJob, data: "Future") -> CellOutcome | Failure | None:
        """Return what became of a job, None where it was sent again because its data were lost."""
        from distributed import CancelledError, KilledWorker

        if self._is_overdue(future):
            return self._stop(future)
        try:
            return future.result()
        except KilledWorker as error:
            return Failure(Outcome.ERROR, f"the workers that computed the cell died: {describe(error)}")
        except CancelledError as error:
            if self.sendings[job.key] >= SENDINGS:
                return Failure(
                    Outcome.ERROR, f"the cluster lost the cell {SENDINGS} times: {describe(error)}"
                )
            if self.data.get(job.data) is data:  # else another job has sent them again
                del self.data[job.data]
            self._send(job)
            return None
        except Exception as error:  # what a worker raises before the cell's own code runs
            LOG.exception("%s failed on the cluster", job.label)
            return Failure(Outcome.ERROR, describe(error))

    def _running(self) -> dict[str, float]:
        now = time.monotonic()
        begun = ((job.key, self.started.get(str(future.key))) for future, (job, _) in self.pending.items())
        return {key: now - start[0] for key, start in begun if start is not None}

    def _is_overdue(self, future: "Future") -> bool:
        started = self.started.get(str(future.key))
        late = started is not None and time.monotonic() - started[0] > 60 * self.minutes
        return bool(self.minutes) and late and not future.done()

    def _stop(self, future: "Future") -> Failure:
        """Drop a cell that takes too long; its worker is restarted, since nothing else ends a computation."""
        future.cancel()
        self.client.restart_workers([self.started[str(future.key)][1]], raise_for_error=False)
        reason = f"the cell took more than its {self.minutes:g} minutes (--cell-minutes)"
        return Failure(Outcome.TIMEOUT, reason)

    def _note_start(self, event: tuple[float, dict[str, Any]]) -> None:
        _, said = event
        self.started[said["key"]] = (time.monotonic(), said["worker"])


def _connect(address: str) -> "Client":
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError("--backend dask needs the extra 'dask': pip install 'certbench[dask]'") from error
    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no Dask scheduler answers at {address!r} ({describe(error)}): give --scheduler the address that "
            "'dask scheduler' prints, such as tcp://HOST:8786"
        ) from error


def _check_threads(client: "Client") -> None:
    busy = [count for count in client.nthreads().values() if count > 1]
    if busy:
        raise UsageError(
            f"{len(busy)} Dask workers have {max(busy)} threads: a worker computes one cell at a time, "
            "start them with --nthreads 1 (and several of them with --nworkers)"
        )
