"""python -m bench.compare: run a suite and write its tables and figures.

Exit codes: 0 all cells done; 1 some cells failed, or the disk is full, the rest is saved; 2 bad usage, nothing
started; 130 (Ctrl-C) and 143 (SIGTERM) interrupted, the same command goes on.
"""

import sys

from bench.basics.commands import command
from bench.basics.errors import Parser
from bench.running.options import parser as common_options

KEPT = "Finished cells, and the finished epochs and batches of the others, are kept"


def parser() -> Parser:
    """Describe the command line."""
    top = common_options()
    top.add_argument(
        "--tune",
        type=float,
        metavar="M",
        help="first search every method's settings, with M minutes of training per data set and norm",
    )
    return top


main = command("bench.compare", parser, "bench.commands.compare:run", KEPT)

if __name__ == "__main__":
    sys.exit(main())
