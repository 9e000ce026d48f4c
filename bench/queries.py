"""python -m bench.queries OUT: is the network of a finished run robust at given radii? Branch and bound answers.

Every query is a sensitive test input and a radius; the answer is robust, not robust, or timeout when the seconds are
over. This is how complete verifiers are compared; radii per input are the business of the method alpha_beta_crown.
Answers are written as they come: the same command goes on where it was cut. Exit codes: 0 done; 2 bad usage.
"""

import os
import sys
from pathlib import Path

from bench.basics.commands import command
from bench.basics.errors import Parser
from bench.basics.norms import NORMS
from bench.basics.whole_numbers import MOST_AT_A_TIME, whole


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(
        prog="python -m bench.queries",
        description="Ask branch and bound whether the networks of a finished run are robust at given radii.",
    )
    add = top.add_argument
    add("out", type=Path, metavar="OUT", help="output folder of a run")
    add("--dataset", required=True, metavar="NAME", help="data set of the run")
    add(
        "--methods",
        nargs="+",
        required=True,
        metavar="NAME",
        help="methods of the run, as named in its tables",
    )
    add(
        "--radii",
        nargs="+",
        required=True,
        metavar="NORM=R,R,...",
        help=f"radii to ask about, per norm ({', '.join(NORMS)})",
    )
    add(
        "--domain",
        choices=["free", "box"],
        default="box",
        help="where perturbed inputs may lie (default: box)",
    )
    add("--inputs", type=whole(1), default=20, metavar="N", help="sensitive test inputs (default: 20)")
    add("--seconds", type=float, default=30.0, metavar="S", help="time limit of a query (default: 30)")
    add("--seed", type=whole(0), default=0, metavar="N", help="seed of the cells (default: 0)")
    add("--operating-point", metavar="POINT", help="at whose threshold (default: the run's first)")
    add("--data-dir", type=Path, metavar="DIR", help="where the run's data sets are")
    add("--sensitive", metavar="CLASS", help="sensitive class, if the run was given one")
    add(
        "--jobs",
        type=whole(1, MOST_AT_A_TIME),
        default=os.cpu_count(),
        metavar="N",
        help="queries at a time (default: one per core)",
    )
    return top


main = command("bench.queries", parser, "bench.commands.queries:run")

if __name__ == "__main__":
    sys.exit(main())
