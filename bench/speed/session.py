"""Run the timings that are asked for and hold them against their limits."""

import argparse
import importlib
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.basics.commands import DONE, FAILED
from bench.basics.errors import unknown
from bench.running.provenance import hardware
from bench.speed.topics import TOPICS


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
