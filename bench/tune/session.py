"""All searches of a suite: planned, run side by side, and written down as a suite of what they chose."""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

from bench.basics.commands import DONE, FAILED
from bench.basics.errors import UsageError
from bench.basics.files import plain, safe_name
from bench.basics.interrupts import Interrupts
from bench.data.asked import requests
from bench.data.request import DataRequest, cached_dataset
from bench.kept.store import Store
from bench.running.chosen import chosen_resources, chosen_suite
from bench.running.lock import FolderLock
from bench.running.options import RECALL_FLOOR
from bench.suites.listing import listing
from bench.suites.suite import MethodEntry, Suite
from bench.tune.processes import SearchJob, run_searches
from bench.tune.record import Record
from bench.tune.results import Found, native_norms, tuned_id, write_candidates, write_results
from bench.tune.search import Task, search_key

SEARCHES = "searches"


def run(options: argparse.Namespace) -> int:
    """Search, and say where the result is."""
    if options.list:
        print(listing())
        return DONE
    suite = chosen_suite(options)
    with Interrupts() as interrupts:
        path, failed = tune(suite, options, options.minutes, options.out, interrupts)
    if path is None:
        return DONE
    print(
        f"Every candidate: {path.parent / 'candidates.csv'}\nCompare: python -m bench.compare --suite {path}"
    )
    return FAILED if failed else DONE


def tune(
    suite: Suite, options: argparse.Namespace, minutes: float, out: Path, interrupts: Interrupts
) -> tuple[Path | None, int]:
    """Search settings for every method, data set and native norm of a suite.

    Returns the path of the suite that was written to ``out`` (None for a dry run), and how many searches failed.
    options: as of bench.compare. Raises UsageError before anything is started if they make no sense, or if nothing was
    found.
    """
    tasks = planned(suite, checked_minutes(minutes), checked_floor(options.recall_floor))
    resources = chosen_resources(options, suite)
    if options.backend != "local":
        raise UsageError(
            "searches run on this machine only: leave out --backend, and give the suite they write to "
            "python -m bench.compare --backend dask"
        )
    asked = requests(options, suite.datasets)
    for request in asked.values():
        cached_dataset(request)
    _announce(tasks, len(resources.devices))
    if options.dry_run:
        return None, 0
    store = Store(out)
    store.prepare()
    jobs = [_job(out, task, asked[task.dataset], resources.threads) for task in tasks]
    failed = 0
    with FolderLock(out):
        store.sweep()
        if options.fresh:
            _forget(jobs)
        for job, error in run_searches(jobs, resources.devices):
            with interrupts.held():
                failed += bool(error)
                print(f"{job.task.label}: failed: {error}" if error else _found(job).line(), flush=True)
        found = [_found(job) for job in jobs]
        write_candidates(out, found)
        return write_results(out, found, _top(suite, tasks)), failed


def planned(suite: Suite, minutes: float, floor: float) -> list[Task]:
    """Return the searches of a suite: one entry per method, the first, as the search is for what the others vary."""
    first: dict[tuple[str, str], MethodEntry] = {}
    for dataset, entry in suite.pairs():
        first.setdefault((dataset, entry.method), entry)
    tasks = [
        Task(dataset, entry, norm, minutes, suite.operating_points, floor)
        for (dataset, _), entry in first.items()
        for norm in suite.norms
        if norm in native_norms(entry)
    ]
    if not tasks:
        raise UsageError(
            f"no method of suite {suite.name!r} has radii of its own in {', '.join(suite.norms)}"
        )
    return tasks


def checked_minutes(minutes: float) -> float:
    """Return the minutes; raise UsageError for a budget that is none."""
    if not 0 < minutes < math.inf:
        raise UsageError(f"{minutes:g} minutes of training for each search: give a number > 0, such as 5")
    return minutes


def checked_floor(floor: float) -> float:
    """Return the recall below which radii count less; raise UsageError for one that is no share."""
    if not 0 <= floor < 1:
        raise UsageError(
            f"--recall-floor {floor:g}: give a share of at least 0 and below 1, such as {RECALL_FLOOR}"
        )
    return floor


def _job(out: Path, task: Task, request: DataRequest, threads: int) -> SearchJob:
    file = out / SEARCHES / safe_name(task.dataset) / f"{safe_name(tuned_id(task))}.journal"
    return SearchJob(task, request, file, search_key(task, cached_dataset(request)), threads)


def _found(job: SearchJob) -> Found:
    return Found(job.task, Record(job.file, job.key))


def _forget(jobs: list[SearchJob]) -> None:
    for job in jobs:
        for path in job.file.parent.glob(f"{job.file.stem}.*"):
            path.unlink()


def _announce(tasks: list[Task], at_a_time: int) -> None:
    minutes = tasks[0].minutes
    total = minutes * math.ceil(len(tasks) / at_a_time)
    print(
        f"{len(tasks)} searches of {minutes:g} minutes of training each, {at_a_time} at a time: "
        f"about {total:.0f} minutes and the time to judge.",
        flush=True,
    )


def _top(suite: Suite, tasks: list[Task]) -> dict[str, Any]:
    """The suite's own keys, as a suite file holds them."""
    kept = {
        field.name: getattr(suite, field.name)
        for field in dataclasses.fields(suite)
        if field.name not in ("name", "methods", "tuned_minutes", "recall_floor", "candidates")
        and getattr(suite, field.name) not in ("", 0, (), {})
    }
    return {**plain(kept), "tuned_minutes": tasks[0].minutes, "recall_floor": tasks[0].floor}
