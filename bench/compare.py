"""python -m bench.compare: run a suite and write its tables and figures.

Exit codes: 0 all cells done; 1 some cells failed, the rest is saved; 2 bad usage, nothing started; 130 interrupted.
"""

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.contract import NORMS, check_norms
from bench.data import list_datasets
from bench.errors import Parser, UsageError
from bench.finish import finish_run
from bench.lock import FolderLock
from bench.provenance import RunClock
from bench.registry import registered_methods
from bench.runner import CellReport, DataRequest, Resources, plan_jobs, run_jobs
from bench.store import Store
from bench.suite import Suite, load_suite, suite_names

DEFAULT_SUITE = "quick"
DEFAULT_OUT = Path("out")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and return the exit code."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        options = parser().parse_args(arguments)
        if options.list:
            print(listing())
            return 0
        return compare(options)
    except UsageError as error:
        print(f"bench.compare: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. Finished cells are kept: run the same command again to go on.", file=sys.stderr)
        return 130


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(
        prog="python -m bench.compare",
        description="Train, certify and compare methods; write tables and figures to a folder.",
        epilog="Without options the quick suite runs. Finished cells of an earlier run are not computed again.",
    )
    add = top.add_argument
    add(
        "--suite",
        default=DEFAULT_SUITE,
        metavar="NAME|FILE",
        help=f"one of {', '.join(suite_names())}, or a .toml file",
    )
    add("--datasets", nargs="+", metavar="NAME", help="instead of the suite's data sets")
    add(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="only these of the suite's methods, or any registered one",
    )
    add("--norms", nargs="+", metavar="NORM", help=f"some of {' '.join(NORMS)}")
    add("--seeds", nargs="+", type=int, metavar="N", help="instead of the suite's seeds")
    add("--out", type=Path, metavar="DIR", help="output folder (default: out/SUITE)")
    add("--data-dir", type=Path, metavar="DIR", help="folder with NAME.npz files or image folders")
    add("--sensitive", metavar="CLASS", help="sensitive class of your own data set, by name or label")
    add("--device", default="auto", metavar="auto|cpu|cuda[:i]", help="where to compute (default: auto)")
    add("--jobs", type=int, metavar="N", help="cells at a time (default: one per core on a CPU, else 1)")
    add("--threads", type=int, default=1, metavar="N", help="threads of each cell (default: 1)")
    add("--fresh", action="store_true", help="compute every cell again")
    add("--list", action="store_true", help="list suites, methods and data sets, and exit")
    return top


def compare(options: argparse.Namespace) -> int:
    """Run what the options ask for; raise UsageError before anything is started if they make no sense."""
    suite = chosen_suite(options)
    resources = chosen_resources(options)
    requests = {name: DataRequest(name, options.data_dir, options.sensitive) for name in suite.datasets}
    store = Store(options.out or DEFAULT_OUT / suite.name)
    clock = RunClock()
    jobs = plan_jobs(suite, store, requests, resources)
    store.prepare()
    with FolderLock(store.out):
        store.sweep()
        reports = list(run_jobs(jobs, resources, fresh=options.fresh))
        text = finish_run(store, suite, jobs, resources, clock)
    print(text)
    return report_failures(reports, store)


def chosen_suite(options: argparse.Namespace) -> Suite:
    """Return the suite with the command line's changes laid over it."""
    suite = load_suite(options.suite)
    changes = {
        "datasets": tuple(dict.fromkeys(options.datasets or suite.datasets)),
        "norms": check_norms(options.norms or suite.norms),
        "seeds": tuple(dict.fromkeys(options.seeds or suite.seeds)),
    }
    if options.methods:
        suite = suite.with_methods(options.methods)
    return dataclasses.replace(suite, **changes)


def chosen_resources(options: argparse.Namespace) -> Resources:
    """Return device, number of jobs and threads; raise UsageError for what this machine does not have."""
    for name in ("jobs", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: give a whole number >= 1")
    device = chosen_device(options.device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = options.jobs or (max(1, cores // options.threads) if device == "cpu" else 1)
    return Resources(device, jobs, options.threads)


def chosen_device(name: str) -> str:
    """Return "cpu" or "cuda:i" for what the user wrote; raise UsageError if there is no such device."""
    count = torch.cuda.device_count()
    if name == "auto":
        return "cuda:0" if count else "cpu"
    if name == "cpu":
        return name
    available = [f"cuda:{index}" for index in range(count)]
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in available:
        listed = ", ".join(["auto", "cpu", *available])
        raise UsageError(f"device {name!r} is not available on this machine: choose from {listed}")
    return wanted


def report_failures(reports: Sequence[CellReport], store: Store) -> int:
    """Name the cells that failed, with their first reason and log file; return the exit code."""
    bad = [report for report in reports if report.errors]
    for report in bad:
        log = report.folder.path.relative_to(store.out) / "cell.log"
        where = f"{report.folder.method} on {report.folder.dataset}, seed {report.folder.seed}"
        print(f"failed: {where}: {report.errors[0]} (log: {store.out / log})", file=sys.stderr)
    if bad:
        print(f"{len(bad)} of {len(reports)} cells failed; the others are saved.", file=sys.stderr)
    return 1 if bad else 0


def listing() -> str:
    """One line for every suite, method and data set."""
    lines = ["Suites:", *(f"  {name:22} {load_suite(name).title}" for name in suite_names())]
    lines += ["", "Methods:"]
    for name, method in registered_methods().items():
        lines.append(f"  {name:22} {method.title}; {method.guarantee}; {method.reference}")
    lines += ["", "Data sets (others: NAME.npz or an image folder in --data-dir):"]
    return "\n".join(lines + [f"  {name:22} {line}" for name, line in list_datasets()])


if __name__ == "__main__":
    sys.exit(main())
