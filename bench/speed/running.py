"""Running: two cells at a time against one, what Dask adds to a cell, and how fast a finished run is taken up again."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from bench.data.request import DataRequest, cached_dataset
from bench.kept.store import Store
from bench.running.cells import CellJob, CellOutcome, Engine, Failure, Watch, compute_cell
from bench.running.cluster import cluster_engine
from bench.running.plan import Scratch
from bench.running.runner import Resources, local_engine, plan_jobs
from bench.speed.timing import Line, seconds
from bench.suites.suite import load_suite

WORKING_CELLS = 8
SMALL_CELLS = 20
REPEATS = 3
# Cells of some ten seconds.
WORKING = """
datasets = ["mnist_38"]
[[methods]]
method = "fcnn"
settings = { train = { epochs = 10 } }
"""
SMALL = """
datasets = ["circles"]
[[methods]]
method = "fcnn"
settings = { certificates = ["closed_form:free"], train = { epochs = 1 } }
"""


def measure(data_dir: Path | None) -> Iterator[Line]:
    """Yield the timings; those of the quick suite are of the commands, imports and report included."""
    with tempfile.TemporaryDirectory() as folder:
        yield _two_at_a_time(Path(folder), data_dir)
        yield from _dask(Path(folder), data_dir)
        yield from _resume(Path(folder))


def _two_at_a_time(folder: Path, data_dir: Path | None) -> Line:
    jobs = _jobs(folder / "working", WORKING, WORKING_CELLS, data_dir)
    one, two = (local_engine(Resources(("cpu",) * cells)) for cells in (1, 2))
    at_once = [seconds(partial(_computed, engine, jobs), repeats=1) for engine in (one, two)]
    ratio = at_once[0] / at_once[1]
    return Line(f"{WORKING_CELLS} equal cells, one at a time / two at a time", ratio, "x", 1.7, at_least=True)


def _dask(folder: Path, data_dir: Path | None) -> Iterator[Line]:
    """Seconds a cell takes on a cluster of one worker on this machine, beyond what computing it takes."""
    try:
        from distributed import LocalCluster
    except ImportError:
        return
    jobs = _jobs(folder / "small", SMALL, SMALL_CELLS, data_dir)
    computing = seconds(lambda: _computed(_in_this_process, jobs), REPEATS) / len(jobs)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        cluster_engine(cluster.scheduler_address, "cpu", 0) as engine,
    ):
        on_cluster = seconds(lambda: _computed(engine, jobs), REPEATS) / len(jobs)
    yield Line("a small cell, computed in this process", computing, "s")
    yield Line("what a Dask worker adds to it", on_cluster - computing, "s", 0.5)


def _resume(folder: Path) -> Iterator[Line]:
    """The quick suite from its beginning, and again when all its cells are there."""
    command = [sys.executable, "-m", "bench.compare", "--suite", "quick", "--out", str(folder / "quick")]

    def run() -> None:
        subprocess.run(command, check=True, capture_output=True)

    started = time.perf_counter()
    run()
    yield Line("the quick suite", time.perf_counter() - started, "s", 240)
    yield Line("the finished quick suite, taken up again", seconds(run, REPEATS), "s", 5)


def _jobs(folder: Path, made_of: str, cells: int, data_dir: Path | None) -> list[CellJob]:
    """Cells that are alike but for the seed."""
    folder.mkdir()
    file = folder / "suite.toml"
    file.write_text(f"seeds = {list(range(cells))}\n{made_of}", encoding="utf-8")
    suite = load_suite(str(file))
    requests = {dataset: DataRequest(dataset, data_dir) for dataset in suite.datasets}
    return plan_jobs(suite, Store(folder / "out"), requests, Resources())


def _computed(engine: Engine, jobs: Sequence[CellJob]) -> None:
    """Compute all cells; one that failed would make the timing worthless."""
    for job, result in engine(jobs, lambda running: None):
        if isinstance(result, Failure) or result.errors:
            raise RuntimeError(f"{job.label} failed: {result}")


def _in_this_process(jobs: Sequence[CellJob], watch: Watch) -> Iterator[tuple[CellJob, CellOutcome]]:
    for job in jobs:
        yield job, compute_cell(job, cached_dataset(job.data), "cpu", Scratch())
