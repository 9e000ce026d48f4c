"""python -m bench.export: a run's networks and questions for outside verifiers, and their answers back.

Exit codes: 0 done; 1 the system refused to write; 2 bad usage, nothing written.
"""

import sys
from pathlib import Path

from bench.basics.commands import command
from bench.basics.errors import Parser
from bench.basics.whole_numbers import whole
from bench.export.wanted import NORM, VERSIONS, Wanted

DEFAULTS = Wanted()


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(
        prog="python -m bench.export",
        description="Write the trained networks of a finished run as ONNX and questions about them as VNN-LIB, "
        "into OUT/vnnlib; or bring a verifier's answers back as a method of the run (--import).",
    )
    add = top.add_argument
    add("out", type=Path, metavar="OUT", help="output folder of a finished run")
    add("--format", default="vnnlib", metavar="vnnlib", help="the format to write (default: vnnlib)")
    add("--vnnlib-version", default=DEFAULTS.version, metavar="|".join(VERSIONS), help="default: 1.0")
    add("--datasets", nargs="+", default=(), metavar="NAME", help="only these of the run's data sets")
    add("--methods", nargs="+", default=(), metavar="NAME", help="only these of the run's methods")
    add("--norms", nargs="+", default=(NORM,), metavar="NORM", help="linf: VNN-LIB bounds each input alone")
    add("--domain", default=DEFAULTS.domain, choices=("box", "free"), help="default: box, inputs in [0, 1]")
    add("--radii", nargs="+", type=float, default=(), metavar="R", help="default: those of the summary")
    add(
        "--inputs",
        type=whole(1),
        default=DEFAULTS.inputs,
        metavar="N",
        help="inputs per network (default: 10)",
    )
    add(
        "--timeout",
        type=whole(1),
        default=DEFAULTS.timeout,
        metavar="S",
        help="in instances.csv (default: 100)",
    )
    add("--data-dir", type=Path, metavar="DIR", help="where the run's data sets are")
    add("--import", type=Path, dest="results", metavar="CSV", help="answers: columns vnnlib, result, seconds")
    add("--tool", default="verifier", metavar="NAME", help="what to call the verifier (default: verifier)")
    return top


main = command("bench.export", parser, "bench.export.session:run")

if __name__ == "__main__":
    sys.exit(main())
