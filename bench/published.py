"""python -m bench.published: what the paper published beside what was measured, as tables in the READMEs.

``results/published.csv`` holds the published figures, each with its source and how precisely it can be read; what
cannot be sourced is not in it. Measured values are read from published run folders, and the table is written between
the two marks in results/README.md and README.md, so that nobody has to edit it. Below it, results/README.md shows the
central claim (:mod:`bench.claim`) of every run.
"""

import sys
from pathlib import Path

from bench.basics.commands import command
from bench.basics.errors import Parser
from bench.basics.results import RESULTS


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(prog="python -m bench.published", description="Write published beside measured values.")
    top.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="folder of published runs")
    top.add_argument("--latex", type=Path, metavar="FILE", help="write the table for LaTeX too")
    return top


main = command("bench.published", parser, "bench.commands.published:run")

if __name__ == "__main__":
    sys.exit(main())
