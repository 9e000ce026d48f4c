"""Run the experiments that are asked for, one after the other."""

import argparse
import dataclasses
import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.basics.commands import DONE, FAILED
from bench.basics.errors import UsageError, refused_by_system, unknown
from bench.experiments._finished import draw
from bench.experiments._options import EXPERIMENTS
from bench.experiments._shared import FailedCells, Options, to_options

LOG = logging.getLogger(__name__)


def run(options: argparse.Namespace) -> int:
    """Run the experiments one after the other; return 1 if some failed."""
    names = chosen(options.only)
    del options.only
    failed = [name for name in names if not run_one(name, to_options(options))]
    if failed:
        print(f"{len(failed)} of {len(names)} experiments failed: {', '.join(failed)}", file=sys.stderr)
    return FAILED if failed else DONE


def run_single(options: argparse.Namespace) -> int:
    """Run the one experiment in ``only`` into OUT itself and name its files."""
    name = options.only
    del options.only
    try:
        for path in written(name, to_options(options)):
            print(path)
    except FailedCells as error:
        print(f"bench.experiments.{name}: {error}", file=sys.stderr)
        return FAILED
    return DONE


def written(name: str, options: Options) -> list[Path]:
    """Run an experiment into OUT, or only draw its figures again; return the files."""
    if options.redraw:
        return draw(options.out, name)
    return importlib.import_module(f"bench.experiments.{name}").run(options)


def chosen(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the experiments named, all of them for None; raise UsageError for an unknown one."""
    for name in names or ():
        if name not in EXPERIMENTS:
            raise unknown("experiment", name, EXPERIMENTS)
    return tuple(dict.fromkeys(names or EXPERIMENTS))


def run_one(name: str, options: Options) -> bool:
    """Run one experiment into OUT/NAME; say whether it went well or could not apply."""
    module = importlib.import_module(f"bench.experiments.{name}")
    print(f"Experiment {name}: {module.EXPERIMENT.title}", flush=True)
    try:
        for path in written(name, dataclasses.replace(options, out=options.out / name)):
            print(f"  {path}", flush=True)
    except UsageError as error:
        print(f"  left out: {error}", file=sys.stderr)
    except FailedCells as error:
        print(f"  failed: {error}", file=sys.stderr)
        return False
    except OSError as error:
        print(f"  failed: {refused_by_system(error)}", file=sys.stderr)
        return False
    except Exception:  # one experiment must not take the others down
        LOG.exception("experiment %s failed", name)
        return False
    return True
