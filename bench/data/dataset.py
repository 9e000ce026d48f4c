"""The data set every method sees: three splits in [0, 1], label 1 = sensitive."""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from bench.basics.errors import UsageError
from bench.basics.seeds import derive_seed
from bench.data.raw import RawData, resolve_class

SMALL_TRAIN = 2000
VALIDATION_SHARE = 0.1
VALIDATION_SHARE_SMALL = 0.2
CHUNK = 256


@dataclass(frozen=True)
class Column:
    """A column of a table: features ``start`` to ``stop`` (one, or one for each category) and its own range.

    low, span: of the training rows, in the column's units; feature = (value - low) / span. None where not known.
    """

    name: str
    kind: Literal["number", "category"]
    start: int
    stop: int
    low: float | None = None
    span: float | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A binary data set with one sensitive class.

    ``x_*``: float32 in [0, 1], images (N, C, H, W), tables (N, d). ``y_*``: (N,) int64, 1 = sensitive.
    ``classes``: names of the sensitive and of the other class. ``source``: where it came from.
    ``sha256``: hash of the arrays, so that results can be tied to their data. ``place``: the sensitive class's among
    the two labels in increasing order, as in the logits of a classifier trained on them; 1 where there are more labels.
    ``labels``: the names of all labels in increasing order, before one was made sensitive.
    ``mutable``: (d,) bool, the features that an adversary can change; None: all. ``columns``: of a table, as its file
    has them. ``account``: what was made of a table (split, columns), in lines for people.
    """

    name: str
    title: str
    classes: tuple[str, str]
    source: str
    sha256: str
    x_train: np.ndarray = field(repr=False)
    y_train: np.ndarray = field(repr=False)
    x_val: np.ndarray = field(repr=False)
    y_val: np.ndarray = field(repr=False)
    x_test: np.ndarray = field(repr=False)
    y_test: np.ndarray = field(repr=False)
    feature_names: tuple[str, ...] | None = field(default=None, repr=False)
    place: int = 1
    labels: tuple[str, ...] = ()
    mutable: np.ndarray | None = field(default=None, repr=False)
    columns: tuple[Column, ...] | None = field(default=None, repr=False)
    account: tuple[str, ...] = field(default=(), repr=False)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: (C, H, W) or (d,)."""
        return self.x_train.shape[1:]


def assemble(raw: RawData, name: str, title: str, sensitive: str | int) -> Dataset:
    """Make one class sensitive (against all others), split off the validation part and convert to float32.

    Tables that ask for it are min-max scaled with the training part alone; validation and test values outside
    its range are clipped to [0, 1].
    """
    label = resolve_class(raw, sensitive)
    y = (raw.y_train == label).astype(np.int64)
    train, validation = stratified_split(y, name, raw.origin)
    convert = _min_max(raw.x_train[train]) if raw.min_max else to_unit_float
    arrays = {
        "x_train": convert(raw.x_train, train),
        "y_train": y[train],
        "x_val": convert(raw.x_train, validation),
        "y_val": y[validation],
        "x_test": convert(raw.x_test, np.arange(len(raw.x_test))),
        "y_test": (raw.y_test == label).astype(np.int64),
    }
    return Dataset(
        name=name,
        title=title,
        classes=_class_names(raw, label),
        source=raw.origin,
        sha256=content_hash(arrays),
        feature_names=raw.feature_names,
        place=raw.labels.index(label) if len(raw.labels) == 2 else 1,
        labels=raw.classes,
        **arrays,
    )


def _class_names(raw: RawData, label: int) -> tuple[str, str]:
    chosen = raw.classes[raw.labels.index(label)]
    others = [name for name in raw.classes if name != chosen]
    return chosen, others[0] if len(others) == 1 else f"not {chosen}"


def stratified_split(y: np.ndarray, name: str, origin: str) -> tuple[np.ndarray, np.ndarray]:
    """Return increasing indices of the training and of the validation part, the same share of each class.

    The share is 10 %, or 20 % of fewer than 2,000 examples, and at least one example per class. The draw
    depends on the data set's name only, so that every method and every seed sees the same split.
    """
    rng = np.random.default_rng(derive_seed("validation split", name))
    share = VALIDATION_SHARE_SMALL if len(y) < SMALL_TRAIN else VALIDATION_SHARE
    chosen = []
    for label in (0, 1):
        members = np.flatnonzero(y == label)
        if len(members) < 2:
            raise UsageError(
                f"a class of {origin} has one training example only; at least 2 are needed, "
                "because validation examples are taken from them"
            )
        chosen.append(rng.permutation(members)[: max(1, round(share * len(members)))])
    validation = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(y)), validation), validation


def to_unit_float(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return x[index] as float32 in [0, 1], images channels first; in chunks, so that no second copy is made."""
    shape = x.shape[1:] if x.ndim == 2 else (x.shape[3] if x.ndim == 4 else 1, *x.shape[1:3])
    out = np.empty((len(index), *shape), dtype=np.float32)
    scale = np.float32(255 if x.dtype == np.uint8 else 1)
    for start in range(0, len(index), CHUNK):
        part = x[index[start : start + CHUNK]].astype(np.float32)
        if x.ndim == 3:
            part = part[:, None]
        elif x.ndim == 4:
            part = part.transpose(0, 3, 1, 2)
        np.divide(part, scale, out=out[start : start + CHUNK])
    return out


def _min_max(x_train: np.ndarray):
    """Return the conversion that maps each feature's range in the training part to [0, 1] and clips to it."""
    low = x_train.min(axis=0)
    span = x_train.max(axis=0) - low
    span[span == 0] = 1.0  # a constant feature carries nothing; it becomes 0

    def convert(x: np.ndarray, index: np.ndarray) -> np.ndarray:
        return np.clip((x[index] - low) / span, 0.0, 1.0).astype(np.float32)

    return convert


def content_hash(arrays: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 of the arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()
