"""Data sets that come with scikit-learn or are drawn on the spot: no files, no network."""

from collections.abc import Callable

import numpy as np

from bench.basics.seeds import derive_seed
from bench.data.raw import RawData

TEST_SHARE = 0.3


def digits_38() -> RawData:
    """Return the 8x8 handwritten digits 3 (sensitive) and 8; the sixteen grey levels become [0, 1]."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    kept = np.isin(digits.target, (3, 8))
    x = (digits.images[kept] / 16.0).astype(np.float32)
    return _with_fixed_test_split(x, digits.target[kept], ("3", "8"), "digits_38")


def breast_cancer() -> RawData:
    """Return 30 measurements of 569 breast tumours, malignant (sensitive, label 0) or benign."""
    from sklearn.datasets import load_breast_cancer

    table = load_breast_cancer()
    return _with_fixed_test_split(
        table.data,
        table.target,
        tuple(map(str, table.target_names)),
        "breast_cancer",
        feature_names=tuple(map(str, table.feature_names)),
        min_max=True,
    )


def circles() -> RawData:
    """Return two noisy concentric circles in the unit square; the outer one (label 0) is sensitive."""
    from sklearn.datasets import make_circles

    x, y = make_circles(1500, noise=0.05, factor=0.5, random_state=0)
    # The outer radius is 1 with noise 0.05: the square [-1.25, 1.25]^2 holds it with five deviations to spare.
    x = np.clip((x + 1.25) / 2.5, 0.0, 1.0).astype(np.float32)
    return _with_fixed_test_split(x, y, ("outer", "inner"), "circles", feature_names=("x1", "x2"))


EMBEDDED: dict[str, Callable[[], RawData]] = {
    "digits_38": digits_38,
    "breast_cancer": breast_cancer,
    "circles": circles,
}


def _with_fixed_test_split(
    x: np.ndarray, y: np.ndarray, classes: tuple[str, ...], name: str, **rest
) -> RawData:
    """Take the same stratified 30 % of (x, y) as test split every time."""
    rng = np.random.default_rng(derive_seed("test split", name))
    members = [rng.permutation(np.flatnonzero(y == label)) for label in np.unique(y)]
    test = np.sort(np.concatenate([rows[: round(TEST_SHARE * len(rows))] for rows in members]))
    train = np.setdiff1d(np.arange(len(y)), test)
    return RawData(x[train], y[train], x[test], y[test], classes, f"{name} (embedded)", **rest)
