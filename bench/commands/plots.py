"""Redraw all figures of a finished run from its rows."""

import argparse

from bench.basics.commands import DONE
from bench.report.figures.run_figures import draw_run


def run(options: argparse.Namespace) -> int:
    """Redraw a run's figures and print their names."""
    for path in draw_run(options.out):
        print(path)
    return DONE
