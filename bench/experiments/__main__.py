"""python -m bench.experiments: run all experiments, or those named, each into a folder of its own.

An experiment whose data is not at hand, or that has no run to read, is named and left out. Exit codes: 0 all others
done; 1 some failed; 2 bad usage; 130 interrupted, the same command goes on.
"""

import argparse
import dataclasses
import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.basics.commands import DONE, FAILED, command
from bench.basics.errors import Parser, UsageError, refused_by_system, unknown
from bench.experiments._shared import KEPT, FailedCells, Options, add_options, to_options

LOG = logging.getLogger(__name__)
# The cheap ones first, what needs most time last.
EXPERIMENTS = (
    "runtime",
    "separability_random",
    "separability_data",
    "decision_regions",
    "approximation",
    "training_fit",
    "feature_map",
    "regulariser",
    "noise_levels",
    "malware_families",
    "digit_pairs",
)


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(prog="python -m bench.experiments", description="Run the paper's other experiments.")
    add_options(top, Path("out") / "experiments")
    top.add_argument("--only", nargs="+", metavar="NAME", help=f"some of {', '.join(EXPERIMENTS)}")
    return top


def run(options: argparse.Namespace) -> int:
    """Run the experiments one after the other; return 1 if some failed."""
    names = chosen(options.only)
    del options.only
    failed = [name for name in names if not run_one(name, to_options(options))]
    if failed:
        print(f"{len(failed)} of {len(names)} experiments failed: {', '.join(failed)}", file=sys.stderr)
    return FAILED if failed else DONE


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
        for path in module.run(dataclasses.replace(options, out=options.out / name)):
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


main = command("bench.experiments", parser, run, KEPT)

if __name__ == "__main__":
    sys.exit(main())
