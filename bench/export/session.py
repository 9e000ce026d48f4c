"""Write a run's networks and questions, or bring a verifier's answers back."""

import argparse
import sys
from collections.abc import Sequence

from bench.basics.commands import DONE
from bench.basics.errors import UsageError, unknown
from bench.contract import check_norms
from bench.export.answers import import_answers
from bench.export.wanted import NORM, VERSIONS, Wanted
from bench.export.writing import write_questions

FORMATS = ("vnnlib",)


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
