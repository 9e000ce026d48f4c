"""python -m bench.plots OUT: redraw all figures of a finished run from its rows.

The same rows give the same files, byte for byte, with the same version of matplotlib.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.errors import Parser, UsageError
from bench.figures.run_figures import draw_run


def main(arguments: Sequence[str] | None = None) -> int:
    """Redraw a run's figures and print their names; return 2 if the folder holds no finished run."""
    parser = Parser(prog="python -m bench.plots", description="Redraw the figures of a finished run.")
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of bench.compare")
    try:
        for path in draw_run(parser.parse_args(arguments).out):
            print(path)
    except (UsageError, OSError) as error:
        print(f"bench.plots: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
