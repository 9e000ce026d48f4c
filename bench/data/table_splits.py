"""Which rows of a table are for training, validation and testing: drawn by a seed, or as a column says."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.basics.errors import UsageError, nearest
from bench.basics.seeds import derive_seed
from bench.data.dataset import stratified_split

TEST_SHARE = 0.2
WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True)
class Parts:
    """Increasing row numbers of each part, and how they were chosen, in words."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    chosen: str

    def rows(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (name, row numbers)."""
        for name in ("train", "val", "test"):
            yield name, getattr(self, name)


def split_by_seed(y: np.ndarray, name: str, seed: int, path: Path) -> Parts:
    """Take a fifth of each class of y (N,) for testing and, of the rest, the usual share for validation."""
    rng = np.random.default_rng(derive_seed("table split", name, seed))
    chosen = []
    for label in (0, 1):
        members = np.flatnonzero(y == label)
        if len(members) < 3:
            raise UsageError(
                f"a class of {path} has {len(members)} rows only: training, validation and test need one each at least"
            )
        chosen.append(rng.permutation(members)[: max(1, round(TEST_SHARE * len(members)))])
    test = np.sort(np.concatenate(chosen))
    rest = np.setdiff1d(np.arange(len(y)), test)
    train, val = _validation(rest, y, f"{name}, split {seed}", path)
    return Parts(train, val, test, f"drawn with --split-seed {seed}, each class in proportion")


def split_by_column(column: pd.Series, y: np.ndarray, name: str, path: Path) -> Parts:
    """Take the parts from a column of the words train, val and test; without val the usual share of train."""
    where = f"column {column.name!r} of {path} (--split-column)"
    words = column.astype("object").map(lambda value: WORDS.get(str(value).strip().lower()))
    unknown = np.flatnonzero(words.isna())
    if len(unknown):
        value = str(column.iloc[unknown[0]])
        raise UsageError(
            f"{where} has {value[:60]!r} in row {unknown[0] + 1}{nearest(value, WORDS)}: "
            "allowed are train, val and test"
        )
    rows = {word: np.flatnonzero(words == word) for word in ("train", "val", "test")}
    chosen = f"as column {column.name!r} says"
    if not len(rows["val"]):
        rows["train"], rows["val"] = _validation(rows["train"], y, name, path)
        chosen += ", validation drawn from train"
    for word, members in rows.items():
        if len(np.unique(y[members])) < 2:
            raise UsageError(
                f"{where}: its {word} rows are not of both classes; every part needs some of each"
            )
    return Parts(rows["train"], rows["val"], rows["test"], chosen)


def _validation(rows: np.ndarray, y: np.ndarray, name: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    train, val = stratified_split(y[rows], name, str(path))
    return rows[train], rows[val]
