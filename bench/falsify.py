"""python -m bench.falsify OUT: attack every certificate of a finished run inside its radius.

A deterministic certificate with one counterexample is wrong: the example is saved and the exit code is 1. A
probabilistic one may fail with probability alpha per input: the number of failures is compared with what alpha
allows. An *attacked point* is where one attack ended from one start: certificates x starts, and one more for each of
torchattacks' attacks on an image. ``--points N`` adds starts until deterministic certificates have N of them.

Every row of the run, attacked or not, is also held against itself: a radius above the norm of an adversarial
perturbation that the method itself knows (``radius_upper``) is false, whatever the guarantee.

Written into OUT: falsify.csv (a row for each curve), attacks.parquet (a row for each certificate), bracket.csv and
figures/*_bracket.* (certified accuracy against accuracy under attack), counterexamples/*.npz.
Exit codes: 0 nothing found; 1 certificates broken; 2 bad usage.
"""

import sys
from pathlib import Path

from bench.basics.commands import command
from bench.basics.errors import Parser
from bench.basics.whole_numbers import whole


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(prog="python -m bench.falsify", description=__doc__.split("\n\n")[0].partition(": ")[2])
    add = top.add_argument
    add("out", type=Path, metavar="OUT", help="output folder of a finished run")
    add("--data-dir", type=Path, metavar="DIR", help="where the run's data sets are")
    add(
        "--limit",
        type=whole(0),
        default=100,
        metavar="N",
        help="certificates per curve, 0 for all (default: 100)",
    )
    add("--steps", type=whole(1), default=40, metavar="N", help="steps of each attack (default: 40)")
    add("--restarts", type=whole(1), default=3, metavar="N", help="starting points (default: 3)")
    add(
        "--points",
        type=whole(0),
        default=0,
        metavar="N",
        help="attacked points for deterministic certificates, at least",
    )
    add(
        "--library",
        type=whole(0),
        default=20,
        metavar="N",
        help="images per curve for torchattacks (default: 20)",
    )
    add(
        "--bracket",
        type=whole(0),
        default=100,
        metavar="N",
        help="inputs per method, 0 for no bracket (default: 100)",
    )
    return top


main = command("bench.falsify", parser, "bench.commands.falsify:run")

if __name__ == "__main__":
    sys.exit(main())
