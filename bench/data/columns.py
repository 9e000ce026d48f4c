"""The columns of a table as people know them: where they are among the features, their range, who may change them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bench.basics.errors import UsageError, nearest
from bench.data.dataset import Column, Dataset, content_hash

MOST_LISTED = 20


def with_immutable(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """Return the data set with these columns fixed too: an adversary cannot change them.

    Raises UsageError for data without named columns, for an unknown one, and where nothing would be left to change.
    """
    if not names:
        return dataset
    columns = dataset.columns or named_features(dataset)
    if not columns:
        raise UsageError(
            f"--immutable {' '.join(names)}: {dataset.source} has no named columns: give a table with feature_names"
        )
    known = {column.name: column for column in columns}
    mutable = (
        np.ones(dataset.input_shape[0], dtype=bool) if dataset.mutable is None else dataset.mutable.copy()
    )
    for name in names:
        if name not in known:
            raise unknown_column("--immutable", name, list(known), dataset.source)
        mutable[known[name].start : known[name].stop] = False
    said = f"Immutable columns: {', '.join(names)}; radii are for changes of the others"
    return fixed(replace(dataset, columns=tuple(columns), account=(*dataset.account, said)), mutable)


def fixed(dataset: Dataset, mutable: np.ndarray) -> Dataset:
    """Return the data set with only the features in ``mutable`` (d,) left to an adversary; all of them: unchanged."""
    if mutable.all():
        return dataset
    if not mutable.any():
        raise UsageError(
            f"no column of {dataset.source} is left that an adversary can change: name fewer with --immutable, "
            "or give --perturb-categorical"
        )
    digest = content_hash({"data": np.frombuffer(dataset.sha256.encode(), np.uint8), "mutable": mutable})
    return replace(dataset, mutable=mutable, sha256=digest)


def named_features(dataset: Dataset) -> tuple[Column, ...]:
    """Return one column for each named feature, its own range unknown; none for images and nameless features."""
    if dataset.feature_names is None or len(dataset.input_shape) != 1:
        return ()
    return tuple(Column(name, "number", place, place + 1) for place, name in enumerate(dataset.feature_names))


def unknown_column(option: str, name: str, choices: Sequence[str], origin: str) -> UsageError:
    """Build the error for a column that is not there; of many columns only some are listed."""
    choices = list(map(str, choices))
    more = f" and {len(choices) - MOST_LISTED} more" if len(choices) > MOST_LISTED else ""
    return UsageError(
        f"{option} {name!r}: {origin} has no such column{nearest(name, choices)}: "
        f"choose from {', '.join(choices[:MOST_LISTED])}{more}"
    )
