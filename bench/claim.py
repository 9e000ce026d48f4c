"""python -m bench.claim OUT: FCNN's radii over the best competitor's, written into a finished run and printed."""

import sys
from pathlib import Path

from bench.basics.commands import command
from bench.basics.errors import Parser


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(prog="python -m bench.claim", description="Compare FCNN's radii with the best competitor's.")
    top.add_argument("out", type=Path, metavar="OUT", help="output folder of bench.compare")
    return top


main = command("bench.claim", parser, "bench.commands.claim:run")

if __name__ == "__main__":
    sys.exit(main())
