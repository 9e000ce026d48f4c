"""The options that say which data a command works on; the commands that train, certify and tune share them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.basics.whole_numbers import whole
from bench.data.table_options import IMPUTE


def add_data_options(add: Callable[..., Any]) -> None:
    """Describe --sensitive, --data-dir, --immutable and what a table needs; --data is the command's own."""
    add("--data-dir", type=Path, metavar="DIR", help="folder with NAME.npz files or image folders")
    add("--sensitive", metavar="CLASS", help="sensitive class of your own data set, by name or label")
    add("--target", metavar="COLUMN", help="of a .csv or .parquet table: the column with the classes")
    add("--split-column", metavar="COLUMN", help="the column that says train, val or test (default: drawn)")
    add("--split-seed", type=whole(0), metavar="N", help="draws the parts of a table (default: 0)")
    add("--categorical", nargs="+", metavar="COLUMN", help="columns of numbers that are names of something")
    add("--drop", nargs="+", metavar="COLUMN", help="columns to leave out")
    add("--impute", choices=IMPUTE, help="fill missing numbers (categories: the most frequent one)")
    add(
        "--perturb-categorical",
        action="store_true",
        default=None,
        help="an adversary may change categorical columns too",
    )
    add(
        "--immutable",
        nargs="+",
        metavar="COLUMN",
        help="columns an adversary cannot change: radii are for changes of the others",
    )
