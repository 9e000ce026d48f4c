"""The options of python -m bench.compare and python -m bench.tune."""

from pathlib import Path

from bench.basics.errors import Parser
from bench.basics.norms import NORMS
from bench.basics.operating_points import BALANCED, OTHER_RECALL
from bench.basics.whole_numbers import MOST_AT_A_TIME, whole
from bench.data.options import add_data_options
from bench.suites.files import suite_names

DEFAULT_SUITE = "quick"
RECALL_FLOOR = 0.985


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(
        prog="python -m bench.compare",
        description="Train, certify and compare methods; write tables and figures to a folder.",
        epilog="Without options the quick suite runs. Finished cells of an earlier run are not computed again.",
    )
    add = top.add_argument
    add(
        "--suite",
        default=DEFAULT_SUITE,
        metavar="NAME|FILE",
        help=f"one of {', '.join(suite_names())}, or a .toml file",
    )
    add("--datasets", nargs="+", metavar="NAME", help="instead of the suite's data sets")
    add("--data", metavar="FILE", help="a data set of your own instead: .csv, .parquet or .npz")
    add(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="only these of the suite's methods, or any registered one",
    )
    add("--norms", nargs="+", metavar="NORM", help=f"some of {' '.join(NORMS)}")
    add(
        "--other-recall",
        nargs="+",
        metavar="Q",
        help="choose thresholds, on validation data, that keep this recall of the other class: 0.99 is at most 1 %% "
        "false positives",
    )
    add(
        "--operating-points",
        nargs="+",
        metavar="POINT",
        help=f"instead of the suite's: some of {BALANCED}, {OTHER_RECALL}=Q",
    )
    add("--seeds", nargs="+", type=whole(0), metavar="N", help="instead of the suite's seeds")
    add("--out", type=Path, metavar="DIR", help="output folder (default: out/SUITE)")
    add_data_options(top.add_argument_group("data").add_argument)
    add(
        "--device",
        default="auto",
        metavar="auto|cpu|cuda[:i]",
        help="where to compute; cuda: on all GPUs, one cell each (default: auto)",
    )
    add(
        "--jobs",
        type=whole(1, MOST_AT_A_TIME),
        metavar="N",
        help="cells at a time (default: one per core, or per GPU)",
    )
    add(
        "--threads",
        type=whole(1, MOST_AT_A_TIME),
        default=1,
        metavar="N",
        help="threads of each cell (default: 1)",
    )
    add(
        "--cell-minutes",
        type=float,
        metavar="M",
        help="time one cell may take (default: the suite's; 0: any)",
    )
    add(
        "--cell-memory",
        type=float,
        metavar="GIB",
        help="memory one cell may take (default: the suite's; 0: any)",
    )
    add("--backend", choices=("local", "dask"), default="local", help="where cells run (default: local)")
    add("--scheduler", metavar="ADDRESS", help="of the Dask cluster, for --backend dask")
    add(
        "--recall-floor",
        type=float,
        default=RECALL_FLOOR,
        metavar="Q",
        help="when tuning: below this recall on validation data a radius counts less "
        f"(default: {RECALL_FLOOR}; 0: never)",
    )
    add("--fresh", action="store_true", help="compute every cell again")
    add("--dry-run", action="store_true", help="say what would be computed and how long it takes, and exit")
    add("--list", action="store_true", help="list suites, methods and data sets, and exit")
    return top
