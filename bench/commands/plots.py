"""Redraw all figures of a finished run from its rows, and those of an attack on it from its brackets."""

import argparse

from bench.basics.commands import DONE
from bench.kept.store import FIGURES, Store
from bench.report.figures.bracket_figure import draw_brackets
from bench.report.figures.run_figures import draw_run


def run(options: argparse.Namespace) -> int:
    """Redraw a run's figures and print their names."""
    store = Store(options.out)
    written, brackets = draw_run(options.out), store.read_bracket()
    if brackets is not None and len(brackets):
        written += draw_brackets(store.read_run()[0], brackets, options.out / FIGURES)
    for path in written:
        print(path)
    return DONE
