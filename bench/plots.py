"""python -m bench.plots OUT: redraw all figures of a finished run from its rows.

The same rows give the same files, byte for byte, with the same version of matplotlib.
"""

import sys
from pathlib import Path

from bench.basics.commands import command
from bench.basics.errors import Parser


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(prog="python -m bench.plots", description="Redraw the figures of a finished run.")
    top.add_argument("out", type=Path, metavar="OUT", help="output folder of bench.compare")
    return top


main = command("bench.plots", parser, "bench.commands.plots:run")

if __name__ == "__main__":
    sys.exit(main())
