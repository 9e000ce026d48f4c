"""python -m bench.experiments: run all experiments, or those named, each into a folder of its own.

An experiment whose data is not at hand, or that has no run to read, is named and left out. Exit codes: 0 all others
done; 1 some failed; 2 bad usage; 130 interrupted, the same command goes on.
"""

import sys
from pathlib import Path

from bench.basics.commands import command
from bench.basics.errors import Parser
from bench.experiments._options import EXPERIMENTS, KEPT, add_options


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(prog="python -m bench.experiments", description="Run the paper's other experiments.")
    add_options(top, Path("out") / "experiments")
    top.add_argument("--only", nargs="+", metavar="NAME", help=f"some of {', '.join(EXPERIMENTS)}")
    return top


main = command("bench.experiments", parser, "bench.experiments.session:run", KEPT)

if __name__ == "__main__":
    sys.exit(main())
