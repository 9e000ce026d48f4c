"""Cells in processes of their own on this machine: one that hangs, eats memory or crashes takes no other down.

Every cell gets a fresh process, forked from a server that has everything imported, so that nothing of one cell (memory,
a CUDA context, a patched library) is left for the next. This process only watches: time, memory, life.
"""

import contextlib
import faulthandler
import io
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from tqdm import tqdm

from bench.basics.files import remove_temporaries
from bench.contract import Outcome
from bench.data.request import cached_dataset
from bench.kept.store import LOG_FILE
from bench.running.cells import CellJob, CellOutcome, Failure, Watch, compute_cell, logging_to

LOG = logging.getLogger(__name__)
# What every command imports, but no command: a process would run it a second time, as its main module, and say so.
PRELOADED = ["bench.running.cells", "bench.methods", "bench.report.finish", "sklearn.datasets"]
TICK_SECONDS = 0.2
MEMORY_FIELDS = (b"RssAnon:", b"RssShmem:")


@dataclass(frozen=True)
class CellLimits:
    """What one cell may take: minutes of time and GiB of memory (0: no limit)."""

    minutes: float = 0.0
    memory_gb: float = 0.0


def run_in_processes(
    jobs: Sequence[CellJob], devices: Sequence[str], budget: CellLimits, watch: Watch = lambda _: None
) -> Iterator[tuple[CellJob, CellOutcome | Failure]]:
    """Compute the jobs, one at a time on each entry of ``devices``, and yield each one's result as it ends.

    watch: told which cells are running, about five times a second.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    waiting, free = deque(jobs), deque(devices)
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and free:
                running.append(_start(context, waiting.popleft(), free.popleft(), budget))
            wait([cell.results for cell in running], timeout=TICK_SECONDS)
            watch({cell.job.key: time.monotonic() - cell.started for cell in running})
            for cell in list(running):
                result = cell.result()
                if result is not None:
                    running.remove(cell)
                    free.append(cell.device)
                    yield cell.job, result
    finally:
        for cell in running:
            cell.kill()


@dataclass
class _Running:
    """A cell that is being computed by a process of its own."""

    job: CellJob
    device: str
    process: ForkServerProcess
    results: Connection
    budget: CellLimits
    started: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        """Of the process, which runs."""
        assert self.process.pid is not None
        return self.process.pid

    def result(self) -> CellOutcome | Failure | None:
        """Return what became of the cell, None while it is being computed."""
        try:
            if self.results.poll():
                outcome = pickle.loads(self.results.recv_bytes())  # written by our own child
                self.process.join()
                self.results.close()
                return outcome
        except (EOFError, OSError):
            return self._lost(self._death())
        if not _alive(self.pid):
            return self._lost(self._death())
        return self._over_budget()

    def kill(self) -> None:
        """End the process now; what it keeps on disk is whole at any moment."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.process.join()
        self.results.close()

    def _over_budget(self) -> Failure | None:
        minutes, memory = self.budget.minutes, self.budget.memory_gb
        if minutes and time.monotonic() - self.started > 60 * minutes:
            reason = f"the cell took more than its {minutes:g} minutes (--cell-minutes)"
            return self._lost(Failure(Outcome.TIMEOUT, reason))
        if memory and memory_in_use(self.pid) > memory * 2**30:
            reason = f"the cell took more than its {memory:g} GiB of memory (--cell-memory)"
            return self._lost(Failure(Outcome.ERROR, reason))
        return None

    def _death(self) -> Failure:
        self.process.join(timeout=1)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
            return Failure(Outcome.ERROR, f"the cell's process was killed by {name}{hint}")
        return Failure(Outcome.ERROR, f"the cell's process ended with exit code {code} and no result")

    def _lost(self, failure: Failure) -> Failure:
        self.kill()
        remove_temporaries(self.job.folder.path)
        # The reason is in the cell's rows too: a disk that is full for the log is named when those are stored.
        with (
            contextlib.suppress(OSError),
            (self.job.folder.path / LOG_FILE).open("a", encoding="utf-8") as log,
        ):
            log.write(f"{self.job.label}: {failure.reason}\n")
        return failure


def memory_in_use(pid: int) -> int:
    """Return the bytes of memory that are a process's own (Linux; 0 for a process that has ended)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_bytes().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(MEMORY_FIELDS))


def can_measure_memory() -> bool:
    """Say whether this system tells how much memory a process takes."""
    return memory_in_use(os.getpid()) > 0


def _start(context: ForkServerContext, job: CellJob, device: str, budget: CellLimits) -> _Running:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, job, device), daemon=False)
    job.folder.path.mkdir(parents=True, exist_ok=True)
    process.start()
    theirs.close()  # so that its end is seen when the process dies
    return _Running(job, device, process, ours, budget)


def _work(results: Connection, job: CellJob, device: str) -> None:
    """What the process of a cell does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the process that watches decides
    # tqdm's own lock is one between processes, a semaphore that would be left over when this one is killed.
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    log_path = job.folder.path / LOG_FILE
    with _log_file(log_path) as log, logging_to(log):
        faulthandler.enable(log)  # a segmentation fault leaves its traceback
        outcome = compute_cell(job, cached_dataset(job.data), device, job.scratch())
        faulthandler.disable()
    if log_path.exists() and not log_path.stat().st_size:
        log_path.unlink()
    results.send_bytes(pickle.dumps(outcome))


@contextlib.contextmanager
def _log_file(path: Path) -> Iterator[io.TextIOWrapper]:
    """Open a cell's log, or nowhere if the disk is full; nothing is held back that closing would fail to write."""
    try:
        raw = path.open("wb", buffering=0)
    except OSError:
        raw = Path(os.devnull).open("wb", buffering=0)  # noqa: SIM115
    with io.TextIOWrapper(raw, encoding="utf-8", write_through=True) as log:
        yield log


def _die_with_parent() -> None:
    """End this process when the one that watches it is gone: nobody is left to store a result."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    wait([parent.sentinel])
    os._exit(1)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
