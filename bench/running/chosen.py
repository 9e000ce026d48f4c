"""What the options of python -m bench.compare come to on this machine: suite, devices, budgets, engine."""

import argparse
import dataclasses
import math
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from bench.basics.errors import UsageError
from bench.calibration import OTHER_RECALL, parse_points
from bench.contract import check_norms
from bench.data.asked import own_data
from bench.running.cells import Engine
from bench.running.cluster import cluster_engine
from bench.running.processes import CellLimits, can_measure_memory
from bench.running.runner import Resources, local_engine
from bench.suites.suite import Suite, load_suite


def chosen_suite(options: argparse.Namespace) -> Suite:
    """Return the suite with the command line's changes laid over it."""
    suite, own = load_suite(options.suite), own_data(options)
    if own is not None and options.datasets:
        raise UsageError("--data and --datasets do not go together: give one of them")
    datasets = (own.name,) if own is not None else options.datasets or suite.datasets
    changes: dict[str, Any] = {
        "datasets": tuple(dict.fromkeys(datasets)),
        "norms": check_norms(options.norms or suite.norms),
        "seeds": tuple(dict.fromkeys(options.seeds or suite.seeds)),
        "operating_points": chosen_points(options) or suite.operating_points,
    }
    suite = dataclasses.replace(suite, **changes)
    return suite.with_methods(options.methods) if options.methods else suite


def chosen_points(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the operating points asked for, none if neither option was given; raise UsageError for a wrong one."""
    levels = [f"{OTHER_RECALL}={level}" for level in options.other_recall or ()]
    asked = [*(options.operating_points or ()), *levels]
    return parse_points(asked) if asked else ()


def chosen_resources(options: argparse.Namespace, suite: Suite) -> Resources:
    """Return devices, threads and budgets; raise UsageError for what this machine does not have."""
    budget = chosen_budget(options, suite)
    if options.backend == "dask":
        return _cluster_resources(options, budget)
    if options.scheduler:
        raise UsageError("--scheduler belongs to --backend dask: give both, or neither")
    devices = chosen_devices(options.device)
    if devices == ("cpu",):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        jobs = options.jobs or max(1, cores // options.threads)
    else:
        jobs = options.jobs or len(devices)
    shared = tuple(devices[number % len(devices)] for number in range(jobs))
    return Resources(shared, options.threads, budget)


def _cluster_resources(options: argparse.Namespace, budget: CellLimits) -> Resources:
    """Return what each worker of the cluster uses; the cluster itself decides how many cells run at a time."""
    if not options.scheduler:
        raise UsageError("--backend dask needs --scheduler ADDRESS, such as tcp://HOST:8786")
    if options.jobs:
        raise UsageError("--jobs does not go with --backend dask: the number of workers decides")
    if budget.memory_gb:
        raise UsageError("--cell-memory does not go with --backend dask: the workers' --memory-limit decides")
    devices = {"auto": "cpu", "cpu": "cpu", "cuda": "cuda:0", "cuda:0": "cuda:0"}
    if options.device not in devices:
        raise UsageError(f"--device {options.device!r} with --backend dask: choose from {', '.join(devices)}")
    return Resources((devices[options.device],), options.threads, budget)


def chosen_engine(options: argparse.Namespace, resources: Resources) -> AbstractContextManager[Engine]:
    """Return what computes the cells, to be entered; raise UsageError when a cluster does not answer."""
    if options.backend == "dask":
        return cluster_engine(options.scheduler, resources.devices[0], resources.budget.minutes)
    return nullcontext(local_engine(resources))


def chosen_budget(options: argparse.Namespace, suite: Suite) -> CellLimits:
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
    return CellLimits(values["cell-minutes"], values["cell-memory"])


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
