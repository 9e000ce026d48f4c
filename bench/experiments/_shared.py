"""What the experiments share: one command line, resumable units of work, and what they leave in their folder.

::

    OUT/rows.csv  OUT/run.json  OUT/figures/*.{png,pdf}      OUT/units/*.json: finished units, read back when run again

An experiment whose rows are certified radii is a suite and leaves what a suite leaves (:mod:`bench.kept.store`), and
its figures besides.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from tqdm import tqdm

from bench.basics.files import (
    SCHEMA_VERSION,
    DamagedFileError,
    checksum,
    plain,
    safe_name,
    seal,
    unseal,
    write_atomic,
)
from bench.basics.interrupts import Interrupts
from bench.basics.settings import from_table
from bench.calibration import BALANCED
from bench.commands.compare import run_suite
from bench.experiments._finished import ROWS, draw
from bench.kept.store import RUN, Store
from bench.running.chosen import chosen_devices
from bench.running.code_version import code_version, package_versions
from bench.running.lock import FolderLock
from bench.running.options import parser as compare_parser
from bench.running.provenance import RunClock, code_commit, hardware, versions
from bench.suites.suite import Suite

UNITS = "units"
Rows = list[dict[str, Any]]


class FailedCells(RuntimeError):
    """Some cells of an experiment's suite failed; the others are saved."""


@dataclass(frozen=True)
class Options:
    """The command line of every experiment. run: a finished run of the suite, for what is read off its rows."""

    out: Path
    data_dir: Path | None = None
    seeds: tuple[int, ...] = (0,)
    jobs: int | None = None
    device: str = "auto"
    reduced: bool = False
    fresh: bool = False
    run: Path | None = None
    redraw: bool = False

    @property
    def torch_device(self) -> torch.device:
        """The device, the first of several; raises UsageError where the machine has no such one."""
        return torch.device(chosen_devices(self.device)[0])

    @property
    def workers(self) -> int:
        """How many units to work on at a time: one per core unless told otherwise, one on a GPU."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.jobs or (1 if self.torch_device.type == "cuda" else cores)


@dataclass(frozen=True)
class Experiment:
    """Name and heading of an experiment. reduced: how its reduced form falls short, for titles; "" if it does not."""

    name: str
    title: str
    reduced: str

    def shortfall(self, options: Options) -> str:
        """How a run with these options falls short of the full one; "" if it does not."""
        return self.reduced if options.reduced else ""


def to_options(parsed: argparse.Namespace) -> Options:
    """Return the options in what ``add_options`` has parsed."""
    return Options(**{**vars(parsed), "seeds": tuple(dict.fromkeys(parsed.seeds))})


def run_units(
    experiment: Experiment,
    options: Options,
    units: Mapping[str, tuple[Any, ...]],
    work: Callable[..., Rows],
) -> pd.DataFrame:
    """Call ``work(*arguments)`` for each named unit, several at a time, and return all their rows.

    A unit's rows are stored when it ends; the next call with the same arguments, code and versions reads them back.
    """
    Store(options.out).prepare()
    folder = options.out / UNITS
    folder.mkdir(exist_ok=True)
    code = {"code": code_version(work), "versions": package_versions(work)}
    paths = {name: folder / f"{safe_name(name)}.json" for name in units}
    keys = {name: _unit_key(name, arguments, code) for name, arguments in units.items()}
    with FolderLock(options.out):
        todo = [name for name in units if options.fresh or _read_unit(paths[name], keys[name]) is None]
        jobs = min(options.workers, max(1, len(todo)))
        pool = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
        with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
            done = pool(joblib.delayed(_work)(work, units[name], paths[name], keys[name]) for name in todo)
            for _ in tqdm(done, total=len(todo), desc=experiment.name, disable=None):
                pass
    return pd.DataFrame([row for name in units for row in _read_unit(paths[name], keys[name]) or []])


def _work(work: Callable[..., Rows], arguments: tuple[Any, ...], path: Path, key: str) -> None:
    torch.set_num_threads(1)
    write_atomic(path, seal({"key": key, "rows": work(*arguments)}))


def _unit_key(name: str, arguments: tuple[Any, ...], code: Mapping[str, Any]) -> str:
    determines = [SCHEMA_VERSION, name, plain(arguments), code]
    return hashlib.sha256(json.dumps(determines).encode()).hexdigest()


def _read_unit(path: Path, key: str) -> Rows | None:
    """Rows of a finished unit; None where there is none, one of other arguments or code, or a damaged one."""
    try:
        record = unseal(path.read_bytes())
    except (OSError, DamagedFileError):
        return None
    return record["rows"] if record["key"] == key else None


def finish(
    experiment: Experiment,
    options: Options,
    rows: pd.DataFrame,
    settings: Mapping[str, Any],
    clock: RunClock,
) -> list[Path]:
    """Write rows.csv and run.json, and draw the figures from them; return the files."""
    table = rows.to_csv(index=False, lineterminator="\n").encode()
    write_atomic(options.out / ROWS, table)
    record = {
        "experiment": experiment.name,
        "title": experiment.title,
        "reduced": experiment.shortfall(options),
        "settings": plain(settings),
        "seeds": list(options.seeds),
        "times": clock.times(),
        "versions": versions(),
        "hardware": hardware(),
        "code": code_commit(),
        "files": {ROWS: {"bytes": len(table), "sha256": checksum(table)}},
    }
    write_atomic(options.out / RUN, seal(record))
    return [options.out / ROWS, options.out / RUN, *draw(options.out, experiment.name)]


def accuracy_line(ax: Axes, rows: pd.DataFrame, **look: Any) -> None:
    """Draw certified accuracy over the radius from one curve's rows: one row for each sensitive input."""
    certified = np.sort(rows["radius"].dropna().to_numpy(dtype=float))
    share = (len(certified) - np.arange(len(certified))) / len(rows)
    # Between two radii the curve has the value at the larger one; past the last it falls to 0.
    radius = np.concatenate([[0.0], certified, certified[-1:]])
    ax.step(
        radius, np.concatenate([share[:1], share, [0.0]])[: len(radius)], where="pre", linewidth=1.3, **look
    )


def run_as_suite(experiment: Experiment, options: Options, table: Mapping[str, Any]) -> list[Path]:
    """Run an experiment whose rows are radii as a suite, and draw its own figures besides; return those files.

    table: what a suite file holds, without title. Raises FailedCells if a cell failed.
    """
    settings = {
        "name": experiment.name,
        "title": experiment.title,
        "reduced": experiment.shortfall(options),
        "seeds": list(options.seeds),
        "operating_points": [BALANCED],
        **table,
    }
    suite = from_table(Suite, settings, f"experiment {experiment.name}")
    given = {name: value for name, value in vars(options).items() if name not in ("reduced", "run", "redraw")}
    request = argparse.Namespace(**{**vars(compare_parser().parse_args([])), **given})
    with Interrupts() as interrupts:
        code = run_suite(suite, request, interrupts)
    if code != 0:
        raise FailedCells("some cells failed, see above; run the same command again to go on")
    return draw(options.out, experiment.name)
