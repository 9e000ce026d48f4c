"""Plans the cells of a suite, lets an engine compute those that are not finished, and stores each one as it ends."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from bench.basics.errors import UsageError
from bench.basics.files import SCHEMA_VERSION, plain
from bench.basics.interrupts import Interrupts
from bench.calibration import OperatingPoint, resolves
from bench.data import Dataset
from bench.data.request import DataRequest, cached_dataset
from bench.kept.store import LOG_FILE, CellFolder, Store
from bench.running.cells import CellJob, CellOutcome, Engine, Failure, Watch, failed_cell
from bench.running.code_version import code_version, package_versions
from bench.running.evaluate import calibration_labels, describe, evaluate
from bench.running.plan import CellPlan
from bench.running.processes import CellLimits, run_in_processes
from bench.running.progress import Progress
from bench.suites.suite import MethodEntry, Suite

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """What the cells run on: one at a time on each entry of ``devices``, each with so many threads and this budget."""

    devices: tuple[str, ...] = ("cpu",)
    threads: int = 1
    budget: CellLimits = field(default_factory=CellLimits)

    @property
    def kind(self) -> str:
        """``cpu`` or ``cuda``."""
        return torch.device(self.devices[0]).type


@dataclass(frozen=True)
class CellReport:
    """What became of one cell: its folder, whether it had been finished before, and the errors met."""

    folder: CellFolder
    reused: bool
    errors: tuple[str, ...] = ()


def plan_jobs(
    suite: Suite, store: Store, requests: dict[str, DataRequest], resources: Resources
) -> list[CellJob]:
    """Return the job of every cell; raise UsageError for a data set that cannot be loaded or a method not made."""
    jobs = []
    warned = set()
    for dataset, entry in suite.pairs():
        data = cached_dataset(requests[dataset])
        if dataset not in warned:
            _warn_of_unresolved(suite, data)
            warned.add(dataset)
        for seed in suite.seeds:
            folder = store.cell(dataset, entry.name, seed)
            plan = CellPlan(
                dataset=dataset,
                method_id=entry.name,
                seed=seed,
                suite_seed=suite.suite_seed,
                norms=entry.norms_of(suite.norms),
                calibrate=suite.calibrate,
                test_inputs=suite.test_inputs,
                points=entry.points_of(suite.operating_points),
            )
            key = cell_key(entry, plan, data, resources)
            jobs.append(_checked(CellJob(folder, requests[dataset], entry, plan, key, resources.threads)))
    return jobs


def _warn_of_unresolved(suite: Suite, data: Dataset) -> None:
    """Say which operating points the calibrating split is too small for; they run all the same, and are marked."""
    if suite.calibrate == "none":
        return
    labels = calibration_labels(data, suite.calibrate, suite.test_inputs)
    others = int((labels == 0).sum())
    for point in suite.operating_points:
        if not resolves(point, others):
            LOG.warning(
                "%s: %d %s inputs of the other class cannot resolve %s, where %.2g false positives are allowed: the "
                "threshold lies above all of them, and its rows are marked",
                data.name,
                others,
                suite.calibrate,
                point,
                others * (OperatingPoint.parse(point).false_positive_rate or 0.0),
            )


def _checked(job: CellJob) -> CellJob:
    """Refuse a method that cannot even be made with its settings."""
    try:
        list(job.method("cpu").curves())
    except UsageError:
        raise
    except Exception as error:  # the code of another package may raise anything
        raise UsageError(
            f"method {job.entry.name!r} cannot be made ({describe(error)}): change its settings in the suite"
        ) from error
    return job


def cell_key(entry: MethodEntry, plan: CellPlan, data: Dataset, resources: Resources) -> str:
    """Return a hash of everything that determines the numbers of a cell."""
    determines = {
        "schema": SCHEMA_VERSION,
        "method": entry.method,
        "settings": plain(entry.settings_for(plan.dataset)),
        "code": code_version(evaluate, entry.method_class),
        "data": data.sha256,
        "plan": plain(plan),
        "device": resources.kind,
        "threads": resources.threads,
        "versions": package_versions(evaluate, entry.method_class),
    }
    return hashlib.sha256(json.dumps(determines, sort_keys=True).encode()).hexdigest()


def local_engine(resources: Resources) -> Engine:
    """Return the engine that computes cells in processes of this machine."""

    def compute(jobs: Sequence[CellJob], watch: Watch) -> Iterator[tuple[CellJob, CellOutcome | Failure]]:
        return run_in_processes(jobs, resources.devices, resources.budget, watch)

    return compute


def run_jobs(
    jobs: Sequence[CellJob],
    engine: Engine,
    interrupts: Interrupts,
    progress: Progress,
    fresh: bool = False,
) -> Iterator[CellReport]:
    """Run the jobs, finished cells excepted unless ``fresh``, and yield a report as each one is stored."""
    todo = []
    for job in jobs:
        if fresh:
            job.folder.clear_unfinished()
        elif job.folder.finished(job.key):
            progress.found(job)
            yield CellReport(job.folder, reused=True)
            continue
        todo.append(job)
    if not todo:
        return
    progress.begin()
    try:
        for job, result in engine(todo, progress.watch):
            # Only this process writes results, and a signal waits until a cell is stored.
            with interrupts.held():
                report = _store(job, result)
            progress.ended(job, _seconds(result), failed=bool(report.errors))
            yield report
    finally:
        progress.close()


def _seconds(result: CellOutcome | Failure) -> float | None:
    """How long a cell worked; None for one that was lost."""
    return None if isinstance(result, Failure) else sum(result.meta["seconds"].values())


def _store(job: CellJob, result: CellOutcome | Failure) -> CellReport:
    """Store a cell; one with errors gets a key of its own, so that the next run computes it again."""
    outcome = failed_cell(job, result) if isinstance(result, Failure) else result
    key = f"failed:{job.key}" if outcome.errors else job.key
    job.folder.write(
        key, outcome.radii, outcome.predictions, outcome.state or None, outcome.meta, outcome.roc
    )
    if outcome.log:
        (job.folder.path / LOG_FILE).write_text(outcome.log, encoding="utf-8")
    # A cell that was cut off goes on from here when its budget is raised.
    if not isinstance(result, Failure):
        job.folder.clear_unfinished()
    return CellReport(job.folder, reused=False, errors=outcome.errors)
