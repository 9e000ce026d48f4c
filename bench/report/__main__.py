"""python -m bench.report OUT: write OUT/report.html, one self-contained page about a finished run.

Exit codes: 0 done; 1 the system refused to write; 2 bad usage, nothing written.
"""

import sys
from pathlib import Path

from bench.basics.commands import command
from bench.basics.errors import Parser


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


main = command("bench.report", parser, "bench.report.page:run")

if __name__ == "__main__":
    sys.exit(main())
