"""python -m bench.report OUT: write OUT/report.html, one self-contained page about a finished run.

Exit codes: 0 done; 2 bad usage, nothing written.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.errors import Parser, UsageError
from bench.report.page import write_report


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(
        prog="python -m bench.report",
        description="Write OUT/report.html: the curves, tables, images, timings and settings of a finished run "
        "in one page that needs no network.",
    )
    top.add_argument("out", type=Path, metavar="OUT", help="output folder of a finished run")
    top.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="where the run's data sets are, for their images"
    )
    top.add_argument(
        "--attack",
        action="store_true",
        help="look for adversarial examples near the shown images first (minutes on large networks); they are "
        "kept in OUT/adversarial for later reports",
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, write the report, print its name and return the exit code."""
    try:
        options = parser().parse_args(arguments)
        print(write_report(options.out, options.data_dir, attack=options.attack))
    except UsageError as error:
        print(f"bench.report: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"bench.report: cannot write the report into {str(options.out)!r} ({error.strerror}): mend the folder's "
            "permissions, or free some space",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
