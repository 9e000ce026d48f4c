"""What the estimator makes of its data before it trains: weights of classes, held-out rows, columns that may change."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedShuffleSplit

# With fewer held-out rows of a class, all rows are trained on and the threshold is set on them too.
FEWEST_HELD_OUT = 5
# A guess has recalls that add up to 1. Of fewer rows of a class a recall says little.
NEAR_CHANCE, FEWEST_JUDGED = 1.2, 20


def class_weights(
    setting: Mapping[Any, float] | str | None, labels: np.ndarray, sensitive: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Return the weight (N,) of each row's class.

    setting: "balanced", a dict label -> weight (1 where a label is not in it) or None; labels: of the other and of the
    sensitive class; sensitive: (N,) bool, of both kinds; weight: (N,) of the rows. Raises ValueError for other labels.
    """
    if setting is None:
        return np.ones(len(sensitive))
    if isinstance(setting, str):  # "balanced": the others are refused with the settings
        return weight.sum() / 2 / np.where(sensitive, weight[sensitive].sum(), weight[~sensitive].sum())
    for label in setting:
        if label not in labels.tolist():
            known = ", ".join(map(repr, labels.tolist()))
            raise ValueError(f"class_weight: {label!r} is none of the labels in y: choose from {known}")
    other, ours = (float(setting.get(label, 1.0)) for label in labels.tolist())
    return np.where(sensitive, ours, other)


def hold_out(sensitive: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return row numbers to train on and to hold out; None where a class of sensitive (N,) is too small for that."""
    rarest = min(sensitive.sum(), (~sensitive).sum())
    if math.floor(rarest * fraction) < FEWEST_HELD_OUT:
        return np.arange(len(sensitive)), None
    splitter = StratifiedShuffleSplit(1, test_size=fraction, random_state=seed)
    return next(iter(splitter.split(sensitive, sensitive)))


def mutable_columns(immutable: Sequence[Any] | None, names: Sequence[str], count: int) -> np.ndarray:
    """Return which of ``count`` columns an adversary may change (count,); immutable: names or positions.

    Raises ValueError for a column that is not there, and where nothing would be left.
    """
    mutable = np.ones(count, dtype=bool)
    for column in () if immutable is None else immutable:
        if not (column in names if isinstance(column, str) else -count <= column < count):
            choices = ", ".join(names) or f"positions 0 to {count - 1} (X has no column names)"
            raise ValueError(f"immutable: no column {column!r}: choose from {choices}")
        mutable[names.index(column) if isinstance(column, str) else int(column)] = False
    if not mutable.any():
        raise ValueError("immutable names every column: nothing is left that an adversary could change")
    return mutable


def warn_of_chance(found: np.ndarray, sensitive: np.ndarray, feature_map: str) -> None:
    """Warn where rows (N,) are called sensitive (``found``) hardly better than by guessing."""
    ours, others = found[sensitive], ~found[~sensitive]
    if min(len(ours), len(others)) < FEWEST_JUDGED or ours.mean() + others.mean() >= NEAR_CHANCE:
        return
    way_out = (
        ": if the sensitive class lies amid the other one, feature_map='centered_abs' may tell them apart"
        if feature_map == "identity"
        else ""
    )
    warnings.warn(
        f"FCNNClassifier is hardly better than a guess: it gets {ours.mean():.0%} of the sensitive class and "
        f"{others.mean():.0%} of the other right on the rows that set its threshold{way_out}",
        UserWarning,
        stacklevel=4,
    )
