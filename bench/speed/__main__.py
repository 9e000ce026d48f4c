"""Run the timings named on the command line and hold them against their limits."""

import sys
from pathlib import Path

from bench.basics.commands import command
from bench.basics.errors import Parser
from bench.basics.whole_numbers import MOST_AT_A_TIME, whole
from bench.speed.topics import TOPICS


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(prog="python -m bench.speed", description="Time the suite against limits and peers.")
    top.add_argument("topics", nargs="*", metavar="TOPIC", help=f"some of {', '.join(TOPICS)} (default: all)")
    top.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with mnist_38.npz")
    top.add_argument(
        "--threads", type=whole(1, MOST_AT_A_TIME), metavar="N", help="torch threads (default: one per core)"
    )
    return top


main = command("bench.speed", parser, "bench.speed.session:run")

if __name__ == "__main__":
    sys.exit(main())
