"""python -m bench.diff OUT1 OUT2: which certified-accuracy curves moved between two runs by more than their bands.

A curve has moved if, at some radius, its two 95 % bands do not overlap. Exit codes: 0 no curve moved; 1 at least one
moved; 2 bad usage.
"""

import sys
from pathlib import Path

from bench.basics.commands import command
from bench.basics.errors import Parser


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(prog="python -m bench.diff", description=__doc__.split("\n\n")[0].partition(": ")[2])
    top.add_argument("before", type=Path, metavar="OUT1", help="output folder of the one run")
    top.add_argument("after", type=Path, metavar="OUT2", help="output folder of the other run")
    top.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        help="draw both runs' curves here: a .png, .pdf or .svg file (default: no figure)",
    )
    return top


main = command("bench.diff", parser, "bench.commands.diff:run")

if __name__ == "__main__":
    sys.exit(main())
