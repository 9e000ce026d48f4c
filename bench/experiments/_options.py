"""Which experiments there are, and the command line that they share."""

import argparse
from pathlib import Path

from bench.basics.whole_numbers import MOST_AT_A_TIME, whole

# The cheap ones first, what needs most time last.
EXPERIMENTS = (
    "runtime",
    "separability_random",
    "separability_data",
    "decision_regions",
    "approximation",
    "training_fit",
    "feature_map",
    "regulariser",
    "noise_levels",
    "malware_families",
    "digit_pairs",
)
KEPT = "Finished units and cells are kept"


def add_options(parser: argparse.ArgumentParser, out: Path) -> None:
    """Declare the options that every experiment takes."""
    add = parser.add_argument
    add("--out", type=Path, default=out, metavar="DIR", help=f"output folder (default: {out})")
    add("--data-dir", type=Path, metavar="DIR", help="folder with NAME.npz files or image folders")
    add("--seeds", nargs="+", type=whole(0), default=(0,), metavar="N", help="seeds of training (default: 0)")
    add(
        "--jobs",
        type=whole(1, MOST_AT_A_TIME),
        metavar="N",
        help="units at a time (default: one per core, 1 on a GPU)",
    )
    add("--device", default="auto", metavar="auto|cpu|cuda[:i]", help="where to compute (default: auto)")
    add("--reduced", action="store_true", help="the sizes of paper_cpu: minutes on two cores")
    add("--fresh", action="store_true", help="compute everything again")
    add("--redraw", action="store_true", help="only draw the figures in OUT again, from its rows")
    add("--run", type=Path, metavar="DIR", help="finished run of bench.compare that 'runtime' reads")
