"""python -m bench.compare: run a suite and write its tables and figures.

Exit codes: 0 all cells done; 1 some cells failed, or the disk is full, the rest is saved; 2 bad usage, nothing
started; 130 (Ctrl-C) and 143 (SIGTERM) interrupted, the same command goes on.
"""

import argparse
import dataclasses
import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.contract import NORMS, check_norms
from bench.data import list_datasets
from bench.errors import Parser, UsageError
from bench.files import safe_name
from bench.interrupts import Interrupted, Interrupts
from bench.lock import FolderLock
from bench.processes import Budget, can_measure_memory
from bench.provenance import RunClock
from bench.registry import registered_methods
from bench.runner import CellReport, DataRequest, Resources, local_engine, plan_jobs, run_jobs
from bench.store import LOG_FILE, Store
from bench.suite import Suite, load_suite, suite_names

DEFAULT_SUITE = "quick"
DEFAULT_OUT = Path("out")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and return the exit code."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        with Interrupts() as interrupts:
            options = parser().parse_args(arguments)
            if options.list:
                print(listing())
                return 0
            return compare(options, interrupts)
    except UsageError as error:
        print(f"bench.compare: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"bench.compare: cannot write {error.filename or 'the results'} ({error.strerror or error}). Finished "
            "cells are kept: mend that, then run the same command again to go on.",
            file=sys.stderr,
        )
        return 1
    except Interrupted as interrupted:
        print(
            f"\nStopped by {interrupted}. Finished cells, and the finished epochs and batches of the others, are "
            "kept: run the same command again to go on.",
            file=sys.stderr,
        )
        return interrupted.exit_code


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
    add(
        "--device",
        default="auto",
        metavar="auto|cpu|cuda[:i]",
        help="where to compute; cuda: on all GPUs, one cell each (default: auto)",
    )
    add("--jobs", type=int, metavar="N", help="cells at a time (default: one per core, or per GPU)")
    add("--threads", type=int, default=1, metavar="N", help="threads of each cell (default: 1)")
    add(
        "--cell-minutes",
        type=float,
        metavar="M",
        help="time one cell may take (default: the suite's; 0: any)",
    )
    add(
        "--cell-memory",
        type=float,
        metavar="GIB",
        help="memory one cell may take (default: the suite's; 0: any)",
    )
    add("--fresh", action="store_true", help="compute every cell again")
    add("--list", action="store_true", help="list suites, methods and data sets, and exit")
    return top


def compare(options: argparse.Namespace, interrupts: Interrupts) -> int:
    """Run what the options ask for; raise UsageError before anything is started if they make no sense."""
    return run_suite(chosen_suite(options), options, interrupts)


def run_suite(suite: Suite, options: argparse.Namespace, interrupts: Interrupts) -> int:
    """Run a suite with the command line's folders and resources; return the exit code."""
    resources = chosen_resources(options, suite)
    requests = {name: DataRequest(name, options.data_dir, options.sensitive) for name in suite.datasets}
    store = Store(options.out or DEFAULT_OUT / safe_name(suite.name))
    clock = RunClock()
    jobs = plan_jobs(suite, store, requests, resources)
    store.prepare()
    with FolderLock(store.out):
        store.sweep()
        reports = list(run_jobs(jobs, local_engine(resources), interrupts, fresh=options.fresh))
        from bench.finish import finish_run  # drawing takes a second to import

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
    suite = dataclasses.replace(suite, **changes)
    return suite.with_methods(options.methods) if options.methods else suite


def chosen_resources(options: argparse.Namespace, suite: Suite) -> Resources:
    """Return devices, threads and budgets; raise UsageError for what this machine does not have."""
    for name in ("jobs", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: give a whole number >= 1")
    devices = chosen_devices(options.device)
    if devices == ("cpu",):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        jobs = options.jobs or max(1, cores // options.threads)
    else:
        jobs = options.jobs or len(devices)
    shared = tuple(devices[number % len(devices)] for number in range(jobs))
    return Resources(shared, options.threads, chosen_budget(options, suite))


def chosen_budget(options: argparse.Namespace, suite: Suite) -> Budget:
    """Return what a cell may take; raise UsageError for a budget that makes no sense here."""
    values = {"cell-minutes": suite.cell_minutes, "cell-memory": suite.cell_memory_gb}
    for name in values:
        given = getattr(options, name.replace("-", "_"))
        values[name] = values[name] if given is None else given
        if not 0 <= values[name] < math.inf:
            raise UsageError(f"--{name} {values[name]}: give a number >= 0 (0: no limit)")
    if values["cell-memory"] and not can_measure_memory():
        raise UsageError(
            "--cell-memory: this system does not tell a process's memory; leave it out (Linux does)"
        )
    return Budget(values["cell-minutes"], values["cell-memory"])


def chosen_devices(name: str) -> tuple[str, ...]:
    """Return ("cpu",) or ("cuda:i", ...) for what the user wrote; raise UsageError if there is no such device."""
    available = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    if name == "cpu":
        return (name,)
    if name == "auto":
        return available or ("cpu",)
    if name == "cuda" and available:
        return available
    if name not in available:
        listed = ", ".join(["auto", "cpu", *(["cuda"] if available else []), *available])
        raise UsageError(f"device {name!r} is not available on this machine: choose from {listed}")
    return (name,)


def report_failures(reports: Sequence[CellReport], store: Store) -> int:
    """Name the cells that failed, with their first reason and log file; return the exit code."""
    bad = [report for report in reports if report.errors]
    for report in bad:
        log = report.folder.path.relative_to(store.out) / LOG_FILE
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
