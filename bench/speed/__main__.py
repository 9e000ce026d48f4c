"""Run the timings named on the command line and hold them against their limits."""

import argparse
import importlib
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.basics.commands import DONE, FAILED, command
from bench.basics.errors import Parser, unknown
from bench.running.provenance import hardware

TOPICS = ("fcnn", "baselines", "running")


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(prog="python -m bench.speed", description="Time the suite against limits and peers.")
    top.add_argument("topics", nargs="*", metavar="TOPIC", help=f"some of {', '.join(TOPICS)} (default: all)")
    top.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with mnist_38.npz")
    top.add_argument("--threads", type=int, metavar="N", help="torch threads (default: one per core)")
    return top


def run(options: argparse.Namespace) -> int:
    """Measure, print, and return 0 if all limits were kept, else 1."""
    for topic in options.topics:
        if topic not in TOPICS:
            raise unknown("topic", topic, TOPICS)
    lines = _measure(options.topics or TOPICS, options.data_dir, options.threads)
    missed = [line for line in lines if not line.met]
    print(f"{len(missed)} limits missed." if missed else "All limits kept.")
    return FAILED if missed else DONE


def _measure(topics: Sequence[str], data_dir: Path | None, threads: int | None) -> list:
    if threads:
        torch.set_num_threads(threads)
    machine = hardware()
    print(
        f"{machine['processor']}, {machine['cores']} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )
    lines = []
    for topic in topics:
        print(f"{topic}:")
        for line in importlib.import_module(f"bench.speed.{topic}").measure(data_dir):
            print(line, flush=True)
            lines.append(line)
    return lines


main = command("bench.speed", parser, run)

if __name__ == "__main__":
    sys.exit(main())
