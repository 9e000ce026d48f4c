"""Runs the cells of a suite, several at a time, and leaves each finished one in the store."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import joblib
import numpy as np
import torch
from tqdm import tqdm

from bench.code_version import code_version
from bench.contract import Method, Outcome
from bench.data import Dataset, load_dataset
from bench.evaluate import CellResult, Evaluation, describe, failed
from bench.files import SCHEMA_VERSION, plain
from bench.plan import CellPlan
from bench.store import CellFolder, Store
from bench.suite import MethodEntry, Suite

LOG = logging.getLogger(__name__)
LOG_FILE = "cell.log"
CHECKPOINT = "training.pt"


@dataclass(frozen=True)
class DataRequest:
    """How to load a data set, in this process or another."""

    name: str
    data_dir: Path | None = None
    sensitive: str | None = None


@dataclass(frozen=True)
class Resources:
    """What the cells run on. threads: per cell; the same for any number of jobs, so that the bits are the same."""

    device: str = "cpu"
    jobs: int = 1
    threads: int = 1


@dataclass(frozen=True)
class CellJob:
    """Everything a worker process needs to run one cell."""

    folder: CellFolder
    data: DataRequest
    entry: MethodEntry
    plan: CellPlan
    key: str
    resources: Resources


@dataclass(frozen=True)
class CellReport:
    """What became of one cell: its folder, whether it had been finished before, and the errors met."""

    folder: CellFolder
    reused: bool
    errors: tuple[str, ...] = ()


def plan_jobs(
    suite: Suite, store: Store, requests: dict[str, DataRequest], resources: Resources
) -> list[CellJob]:
    """Return the job of every cell of the suite; raise UsageError if a data set cannot be loaded."""
    jobs = []
    for dataset, entry in suite.pairs():
        data = cached_dataset(requests[dataset])
        for seed in suite.seeds:
            folder = store.cell(dataset, entry.name, seed)
            plan = CellPlan(
                dataset=dataset,
                method_id=entry.name,
                seed=seed,
                suite_seed=suite.suite_seed,
                norms=suite.norms,
                calibrate=suite.calibrate,
                test_inputs=suite.test_inputs,
                checkpoint=folder.path / CHECKPOINT,
            )
            key = cell_key(entry, plan, data, resources)
            jobs.append(CellJob(folder, requests[dataset], entry, plan, key, resources))
    return jobs


def cell_key(entry: MethodEntry, plan: CellPlan, data: Dataset, resources: Resources) -> str:
    """Return a hash of everything that determines the numbers of a cell."""
    determines = {
        "schema": SCHEMA_VERSION,
        "method": entry.method,
        "settings": plain(entry.settings_for(plan.dataset)),
        "code": code_version(entry.method_class.__module__),
        "data": data.sha256,
        "plan": plain(replace(plan, checkpoint=None, progress=False)),
        "device": torch.device(resources.device).type,
        "threads": resources.threads,
        "versions": [torch.__version__, np.__version__],
    }
    return hashlib.sha256(json.dumps(determines, sort_keys=True).encode()).hexdigest()


def run_jobs(jobs: Sequence[CellJob], resources: Resources, fresh: bool = False) -> Iterator[CellReport]:
    """Run the jobs, finished cells excepted unless ``fresh``, and yield a report as each one ends."""
    todo = []
    for job in jobs:
        if fresh:
            (job.folder.path / CHECKPOINT).unlink(missing_ok=True)
        elif job.folder.finished(job.key):
            yield CellReport(job.folder, reused=True)
            continue
        todo.append(job)
    alone = resources.jobs == 1 or len(todo) == 1
    if alone:
        todo = [replace(job, plan=replace(job.plan, progress=True)) for job in todo]
    parallel = joblib.Parallel(
        n_jobs=1 if alone else resources.jobs, return_as="generator_unordered", pre_dispatch="all"
    )
    with joblib.parallel_config(backend="loky", inner_max_num_threads=resources.threads):
        reports = parallel(joblib.delayed(run_cell)(job) for job in todo)
        yield from tqdm(reports, total=len(todo), desc="cells", disable=None)


def run_cell(job: CellJob) -> CellReport:
    """Evaluate one cell and store it; whatever goes wrong becomes ``error`` rows with the reason."""
    with _cell_surroundings(job):
        data = cached_dataset(job.data)
        method = job.entry.method_class(
            job.entry.settings_for(job.plan.dataset), torch.device(job.resources.device)
        )
        try:
            result = Evaluation(method, data, job.plan).run()
        except Exception as error:  # a failing method must not take the other cells down
            LOG.exception("%s on %s failed", job.entry.name, job.plan.dataset)
            result = failed(method, data, job.plan, Outcome.ERROR, describe(error))
        _write(job, method, result)
    return CellReport(job.folder, reused=False, errors=tuple(result.errors))


@lru_cache(maxsize=1)
def cached_dataset(request: DataRequest) -> Dataset:
    """Load a data set, the last one kept, since a process tends to get several cells of one data set."""
    return load_dataset(request.name, data_dir=request.data_dir, sensitive=request.sensitive)


def _write(job: CellJob, method: Method, result: CellResult) -> None:
    """Store a cell; one with errors gets a key of its own, so that the next run computes it again."""
    meta = {
        "method": job.entry.method,
        "title": job.entry.title or method.title,
        "settings": method.settings,
        "curves": list(method.curves()),
        "seconds": result.seconds,
        "errors": result.errors,
    }
    key = f"failed:{job.key}" if result.errors else job.key
    job.folder.write(key, result.radii, result.predictions, result.state or None, meta)
    (job.folder.path / CHECKPOINT).unlink(missing_ok=True)


@contextmanager
def _cell_surroundings(job: CellJob) -> Iterator[None]:
    """One thread budget and one log file for the cell."""
    job.folder.path.mkdir(parents=True, exist_ok=True)
    log = logging.FileHandler(job.folder.path / LOG_FILE, mode="w", delay=True)
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    threads = torch.get_num_threads()
    torch.set_num_threads(job.resources.threads)
    logging.getLogger().addHandler(log)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(log)
        log.close()
        torch.set_num_threads(threads)
