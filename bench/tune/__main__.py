"""python -m bench.tune: give every method the same training time to find its settings, and write them as a suite.

Exit codes: 0 done; 1 some searches failed, or the disk is full, the rest is kept; 2 bad usage, nothing started; 130
(Ctrl-C) and 143 (SIGTERM) interrupted, the same command goes on.
"""

import sys
from pathlib import Path

from bench.basics.commands import command
from bench.basics.errors import Parser
from bench.running import options as compare_options

DEFAULT_OUT = Path("out") / "tune"
KEPT = "Every candidate that was tried is kept"


def parser() -> Parser:
    """Describe the command line: bench.compare's, with a budget."""
    top = compare_options.parser()
    top.prog = "python -m bench.tune"
    top.description = (
        "Give every method the same training time, per data set and norm, to find its settings on validation data; "
        "write OUT/suite.toml, which python -m bench.compare --suite runs, and OUT/candidates.csv."
    )
    top.epilog = "A search that was cut goes on; one with more --minutes than before too."
    top.add_argument(
        "--minutes",
        type=float,
        required=True,
        metavar="M",
        help="of training for each method, data set and norm",
    )
    top.set_defaults(out=DEFAULT_OUT)
    return top


main = command("bench.tune", parser, "bench.tune.session:run", KEPT)

if __name__ == "__main__":
    sys.exit(main())
