"""python -m bench.plots OUT: redraw all figures of a finished run from its rows.

The same rows give the same files, byte for byte, with the same version of matplotlib.
"""

import argparse
import sys
from pathlib import Path

from bench.basics.commands import DONE, command
from bench.basics.errors import Parser
from bench.report.figures.run_figures import draw_run


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(prog="python -m bench.plots", description="Redraw the figures of a finished run.")
    top.add_argument("out", type=Path, metavar="OUT", help="output folder of bench.compare")
    return top


def run(options: argparse.Namespace) -> int:
    """Redraw a run's figures and print their names."""
    for path in draw_run(options.out):
        print(path)
    return DONE


main = command("bench.plots", parser, run)

if __name__ == "__main__":
    sys.exit(main())
