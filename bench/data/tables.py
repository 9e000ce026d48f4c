"""Tables as people have them, made into data sets: numbers scaled, categories one-hot, rows split.

A numeric column is min-max scaled with the training rows; values outside their range are clipped to it. Clipping
never moves two rows apart, so a certified radius holds for the raw row too, as long as it is clipped before it is
classified. A categorical column becomes one 0/1 feature per category of the training rows (a category that these lack:
all 0), which an adversary cannot change unless ``perturb_categorical``; changing the category is a move of 2 in l1,
sqrt(2) in l2, 1 in linf.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder

from bench.basics.errors import UsageError, nearest
from bench.data.columns import MOST_LISTED, fixed, unknown_column
from bench.data.dataset import Column, Dataset, content_hash
from bench.data.raw import reason
from bench.data.table_files import read_frame
from bench.data.table_options import IMPUTE, TableOptions
from bench.data.table_splits import Parts, split_by_column, split_by_seed

MAX_CATEGORIES = 256
MAX_CLASSES = 100
# A text column in which at least this share of the values are numbers was meant to be numeric.
NUMERIC_SHARE = 0.5


def load_table(name: str, folder: Path, options: TableOptions, sensitive: str | None) -> Dataset:
    """Return the data set in a table; raise UsageError, one line, for what cannot be used."""
    path = folder / options.file
    frame = read_frame(path)
    for option, names in (
        ("--target", [options.target]),
        ("--split-column", [options.split_column] if options.split_column else []),
        ("--categorical", options.categorical),
        ("--drop", options.drop),
    ):
        for column in names:
            if column not in frame.columns:
                raise unknown_column(option, column, frame.columns, str(path))
    for option, names in (
        ("--drop", options.drop),
        ("--categorical", options.categorical),
        ("--split-column", [options.split_column]),
    ):
        if options.target in names:
            raise UsageError(
                f"{option} {options.target!r}: that is the --target, which holds the classes; name another column"
            )
    y, classes, place = _labels(frame[options.target], path, sensitive)
    if options.split_column:
        parts = split_by_column(frame[options.split_column], y, name, path)
    else:
        parts = split_by_seed(y, name, options.split_seed, path)
    left_out = {options.target, options.split_column, *options.drop}
    kept = frame[[column for column in frame.columns if column not in left_out]]
    numbers, categories = _kinds(kept, options, path)
    encoded, columns, features = _encoded(kept, numbers, categories, parts, options, path)
    arrays: dict[str, Any] = {**encoded, **{f"y_{part}": y[rows] for part, rows in parts.rows()}}
    ranges = np.array([[column.low or 0.0, column.span or 0.0] for column in columns])
    dataset = Dataset(
        name=name,
        title=name,
        classes=classes,
        source=str(path),
        sha256=content_hash({**arrays, "ranges": ranges}),
        feature_names=features,
        place=place,
        columns=columns,
        account=_account(path, y, parts, columns, options, classes[0]),
        **arrays,
    )
    if options.perturb_categorical:
        return dataset
    mutable = np.zeros(arrays["x_train"].shape[1], dtype=bool)
    for one in columns:
        mutable[one.start : one.stop] = one.kind == "number"
    return fixed(dataset, mutable)


def _labels(target: pd.Series, path: Path, sensitive: str | None) -> tuple[np.ndarray, tuple[str, str], int]:
    """Return y (N,), the names of the sensitive and of the other class, and the sensitive one's place among two."""
    where = f"column {target.name!r} of {path} (--target)"
    _check_plain(target, where)
    missing = int(target.isna().sum())
    if missing:
        raise UsageError(f"{where} has {missing:,} missing values: remove those rows")
    if types.is_float_dtype(target) and (target == target.round()).all():
        target = target.astype("int64")
    texts = target.astype(str)
    names = [str(name) for name in sorted(target.unique(), key=lambda value: (str(type(value)), value))]
    if not 2 <= len(names) <= MAX_CLASSES:
        raise UsageError(
            f"{where} has {len(names):,} different values: it must hold 2 to {MAX_CLASSES} classes, one name per row"
        )
    if sensitive is None and names == ["0", "1"]:
        sensitive = "1"
    if sensitive is None:
        rest = " (against all the others)" if len(names) > 2 else ""
        raise UsageError(f"{where} has the classes {_listed(names)}: give --sensitive CLASS{rest}")
    if sensitive not in names:
        raise UsageError(
            f"--sensitive {sensitive!r} is no class of {where}{nearest(sensitive, names)}: "
            f"choose from {_listed(names)}"
        )
    others = [name for name in names if name != sensitive]
    other = others[0] if len(others) == 1 else f"not {sensitive}"
    place = names.index(sensitive) if len(names) == 2 else 1
    return (texts == sensitive).to_numpy(np.int64), (sensitive, other), place


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more


def _kinds(frame: pd.DataFrame, options: TableOptions, path: Path) -> tuple[list[str], list[str]]:
    """Return the names of the numeric and of the categorical columns; refuse what is neither, or has holes."""
    numbers, categories = [], []
    for name in frame.columns:
        column, where = frame[name], f"column {name!r} of {path}"
        missing = int(column.isna().sum())
        if missing == len(column):
            raise UsageError(f"{where} is empty: leave it out with --drop {name}")
        if missing and not options.impute:
            raise UsageError(
                f"{where} has {missing:,} missing values, the first in row {_first(column.isna())}: fill them with "
                f"--impute {'|'.join(IMPUTE)}, or leave the column out with --drop {name}"
            )
        if name in options.categorical or types.is_bool_dtype(column):
            categories.append(name)
        elif types.is_numeric_dtype(column) and not types.is_complex_dtype(column):
            _check_numbers(column, where)
            numbers.append(name)
        elif types.is_datetime64_any_dtype(column) or types.is_timedelta64_dtype(column):
            raise UsageError(
                f"{where} holds dates: turn them into numbers, or leave it out with --drop {name}"
            )
        else:
            _check_texts(column, where)
            categories.append(name)
    for name in categories:
        count = frame[name].nunique()
        if count > MAX_CATEGORIES:
            raise UsageError(
                f"column {name!r} of {path} has {count:,} categories, the first "
                f"{str(frame[name].dropna().iloc[0])[:60]!r}: "
                f"allowed are {MAX_CATEGORIES}: leave it out with --drop {name}, or join the rare ones"
            )
    if not numbers and not categories:
        raise UsageError(f"{path} has no column besides {options.target!r}: nothing to learn from")
    return numbers, categories


def _check_numbers(column: pd.Series, where: str) -> None:
    """Refuse infinite values, and a range too wide for a float."""
    values = column.to_numpy(dtype=float, na_value=np.nan)
    infinite = np.isinf(values)
    if infinite.any():
        raise UsageError(f"{where} has an infinite value in row {_first(infinite)}: give finite numbers")
    with np.errstate(over="ignore"):
        if not np.isfinite(np.nanmax(values) - np.nanmin(values)):
            raise UsageError(f"{where} runs over more than a float can hold: rescale it")


def _check_texts(column: pd.Series, where: str) -> None:
    """Refuse a column that is numeric but for some values, naming the first of them, and one of lists or the like."""
    present = _check_plain(column, where)
    texts = present.astype(str)
    if pd.to_numeric(texts, errors="coerce").notna().mean() < NUMERIC_SHARE <= _with_commas(texts).mean():
        raise UsageError(
            f"{where} has numbers with commas, the first {texts[_with_commas(texts)].iloc[0][:60]!r}: write 1234.5, "
            "without separators and with a decimal point, or name the column with --categorical"
        )
    readable = pd.to_numeric(present, errors="coerce").notna()
    if readable.mean() >= NUMERIC_SHARE:
        bad = present[~readable]
        what = f"{str(bad.iloc[0])[:60]!r}" if len(bad) else "numbers stored as text"
        row = f" in row {bad.index[0] + 1}" if len(bad) else ""
        raise UsageError(
            f"{where} is numeric but has {what}{row}: correct it, or name the column with --categorical"
        )


def _check_plain(column: pd.Series, where: str) -> pd.Series:
    """Return the values that are there; refuse a column of lists or the like."""
    present = column.dropna()
    if (
        types.is_numeric_dtype(column)
        or types.is_datetime64_any_dtype(column)
        or types.is_timedelta64_dtype(column)
    ):
        return present
    plain = present.map(lambda value: isinstance(value, str | int | float | bool | np.generic))
    if not plain.all():
        raise UsageError(
            f"{where} holds {type(present[~plain].iloc[0]).__name__} values: allowed are numbers and texts"
        )
    return present


def _with_commas(texts: pd.Series) -> pd.Series:
    """Which texts are numbers once their commas are taken out."""
    return texts.str.contains(",") & pd.to_numeric(texts.str.replace(",", ""), errors="coerce").notna()


def _first(flags: pd.Series | np.ndarray) -> int:
    """Return the number of the first flagged row, the first row being 1."""
    return int(np.flatnonzero(np.asarray(flags))[0]) + 1


def _encoded(
    frame: pd.DataFrame,
    numbers: Sequence[str],
    categories: Sequence[str],
    parts: Parts,
    options: TableOptions,
    path: Path,
) -> tuple[dict[str, np.ndarray], tuple[Column, ...], tuple[str, ...]]:
    """Return x_train, x_val and x_test, the columns in the order of their features, and the features' names."""
    texts = {
        name: frame[name].astype(str).astype(object).where(frame[name].notna(), np.nan) for name in categories
    }
    frame = pd.concat([frame[list(numbers)].astype(float), pd.DataFrame(texts, index=frame.index)], axis=1)
    imputed = {"strategy": options.impute or "median", "keep_empty_features": True}
    encoder = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(**imputed), MinMaxScaler(clip=True)), list(numbers)),
            (
                "categories",
                make_pipeline(
                    SimpleImputer(strategy="most_frequent"),
                    OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32),
                ),
                list(categories),
            ),
        ]
    )
    try:
        encoder.fit(frame.iloc[parts.train])
        arrays = {
            f"x_{part}": encoder.transform(frame.iloc[rows]).astype(np.float32) for part, rows in parts.rows()
        }
    except ValueError as error:
        raise UsageError(f"the columns of {path} cannot be encoded: {reason(error)}") from error
    if not np.ptp(arrays["x_train"], axis=0).any():
        raise UsageError(
            f"every column of {path} has one value only in the training rows: nothing to learn from"
        )
    columns: list[Column] = []
    features: list[str] = []
    if numbers:
        scaler = encoder.named_transformers_["numbers"][-1]
        # The scaler's own span: 1 for a constant column.
        for name, low, span in zip(numbers, scaler.data_min_, 1 / scaler.scale_, strict=True):
            columns.append(Column(name, "number", len(features), len(features) + 1, float(low), float(span)))
            features.append(name)
    if categories:
        onehot = encoder.named_transformers_["categories"][-1]
        for name, found in zip(categories, onehot.categories_, strict=True):
            columns.append(Column(name, "category", len(features), len(features) + len(found)))
            features += [f"{name}={category}" for category in found]
    return arrays, tuple(columns), tuple(features)


def _account(
    path: Path, y: np.ndarray, parts: Parts, columns: Sequence[Column], options: TableOptions, sensitive: str
) -> tuple[str, ...]:
    """Say what was made of the table."""
    sizes = ", ".join(f"{part} {len(rows):,} ({y[rows].sum():,})" for part, rows in parts.rows())
    lines = [f"{path.name}: {len(y):,} rows ({sensitive!r} among them): {sizes}; {parts.chosen}"]
    numbers = [column for column in columns if column.kind == "number"]
    categories = [column for column in columns if column.kind == "category"]
    if numbers:
        lines.append(
            f"Numeric columns: {len(numbers)}, scaled to [0, 1] by the training rows' range; values outside are clipped"
        )
    if categories:
        features = sum(column.stop - column.start for column in categories)
        state = "may be changed" if options.perturb_categorical else "fixed (else: --perturb-categorical)"
        lines.append(f"Categorical columns: {len(categories)}, one-hot as {features} features, {state}")
    if options.impute:
        lines.append(
            f"Missing numbers: the training rows' {options.impute}; missing categories: the most frequent"
        )
    return tuple(lines)
