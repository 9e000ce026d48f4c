"""FCNN's radii over the best competitor's, written into a finished run and printed."""

import argparse

from bench.basics.commands import DONE
from bench.basics.errors import UsageError
from bench.kept.store import CLAIM_TEXT
from bench.report.claim import write_claim


def run(options: argparse.Namespace) -> int:
    """Write the claim and print it."""
    if not len(write_claim(options.out)):
        raise UsageError(
            f"the run in {str(options.out)!r} has no FCNN, or nothing but FCNN: nothing to compare"
        )
    print((options.out / CLAIM_TEXT).read_text(encoding="utf-8"), end="")
    return DONE
