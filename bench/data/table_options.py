"""What the user says about a table: which columns are what, how its rows are split, what fills its holes."""

from dataclasses import dataclass
from typing import Literal

IMPUTE = ("median", "mean", "most_frequent")


@dataclass(frozen=True)
class TableOptions:
    """How a table is read.

    file: its name in the data folder. target: the column with the classes. split_column: the column that says train,
    val or test; else rows are drawn with ``split_seed``. categorical: columns of numbers that are names. drop: columns
    that are left out. impute: what fills missing numbers (missing categories: the most frequent one); "" refuses them.
    """

    file: str
    target: str
    split_column: str = ""
    split_seed: int = 0
    categorical: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    impute: Literal["", "median", "mean", "most_frequent"] = ""
    perturb_categorical: bool = False
