"""python -m bench.claim OUT: FCNN's radii over the best competitor's, written into a finished run and printed."""

import argparse
import sys
from pathlib import Path

from bench.basics.commands import DONE, command
from bench.basics.errors import Parser, UsageError
from bench.kept.store import CLAIM_TEXT
from bench.report.claim import write_claim


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(prog="python -m bench.claim", description="Compare FCNN's radii with the best competitor's.")
    top.add_argument("out", type=Path, metavar="OUT", help="output folder of bench.compare")
    return top


def run(options: argparse.Namespace) -> int:
    """Write the claim and print it."""
    if not len(write_claim(options.out)):
        raise UsageError(
            f"the run in {str(options.out)!r} has no FCNN, or nothing but FCNN: nothing to compare"
        )
    print((options.out / CLAIM_TEXT).read_text(encoding="utf-8"), end="")
    return DONE


main = command("bench.claim", parser, run)

if __name__ == "__main__":
    sys.exit(main())
