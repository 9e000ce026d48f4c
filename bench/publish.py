"""python -m bench.publish OUT NAME: copy a finished run's tables and figures to results/NAME.

The one way into ``results/``, and a deliberate one: no run writes there by itself. Rows, curves (compressed), summary,
figures and run.json are copied; trained weights stay behind. Exit codes: 0 done; 2 bad usage, nothing changed.
"""

import sys
from pathlib import Path

from bench.basics.commands import command
from bench.basics.errors import Parser


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(prog="python -m bench.publish", description="Copy a finished run to results/NAME.")
    top.add_argument("out", type=Path, metavar="OUT", help="output folder of a finished run")
    top.add_argument("name", metavar="NAME", help="folder under results/")
    return top


main = command("bench.publish", parser, "bench.commands.publish:run")

if __name__ == "__main__":
    sys.exit(main())
