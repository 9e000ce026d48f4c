"""python -m bench.export: a run's networks and questions for outside verifiers, and their answers back.

Exit codes: 0 done; 1 the system refused to write; 2 bad usage, nothing written.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.basics.commands import DONE, command
from bench.basics.errors import Parser, UsageError, unknown
from bench.contract import check_norms
from bench.export.answers import import_answers
from bench.export.questions import VERSIONS
from bench.export.writing import NORM, Wanted, write_questions

FORMATS = ("vnnlib",)
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
    add("--inputs", type=int, default=DEFAULTS.inputs, metavar="N", help="inputs per network (default: 10)")
    add("--timeout", type=int, default=DEFAULTS.timeout, metavar="S", help="in instances.csv (default: 100)")
    add("--data-dir", type=Path, metavar="DIR", help="where the run's data sets are")
    add("--import", type=Path, dest="results", metavar="CSV", help="answers: columns vnnlib, result, seconds")
    add("--tool", default="verifier", metavar="NAME", help="what to call the verifier (default: verifier)")
    return top


def run(options: argparse.Namespace) -> int:
    """Write questions, or read answers back."""
    if options.results is not None:
        print(import_answers(options.out, options.results, options.tool, options.data_dir))
        return DONE
    _check(options.format, options.vnnlib_version, options.norms)
    wanted = Wanted(
        options.datasets,
        options.methods,
        options.radii,
        options.inputs,
        options.domain,
        options.vnnlib_version,
        options.timeout,
    )
    written = write_questions(options.out, wanted, options.data_dir)
    for line in written.left_out:
        print(f"left out: {line}", file=sys.stderr)
    print(f"{written.networks} networks and {written.questions} questions in {written.folder}")
    return DONE


def _check(kind: str, version: str, norms: Sequence[str]) -> None:
    if kind not in FORMATS:
        raise unknown("format", kind, FORMATS)
    if version not in VERSIONS:
        raise unknown("VNN-LIB version", version, VERSIONS)
    for norm in check_norms(norms):
        if norm != NORM:
            raise UsageError(
                f"norm {norm!r} cannot be written: VNN-LIB bounds each input on its own, so that only linf balls, "
                "which are boxes, can be asked about; leave --norms out"
            )


main = command("bench.export", parser, run)

if __name__ == "__main__":
    sys.exit(main())
