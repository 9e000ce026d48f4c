"""A data set as it was read, before a class is made sensitive, and the checks every source has to pass."""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from bench.basics.errors import UsageError, nearest

CHANNELS = (1, 3, 4)
FALLBACK_MEMORY = 8 * 2**30


@dataclass(frozen=True, eq=False)
class RawData:
    """Training and test arrays in the layout of the files.

    ``x_*``: uint8 (0-255) or float, images (N, H, W) or (N, H, W, C), tables (N, d). ``y_*``: (N,) integer label
    ids. ``classes[k]`` names the k-th label in increasing order. ``origin`` is the file, folder or address.
    ``own_ids`` is False when the reader made up the ids (folders); ``min_max`` asks for scaling with the
    training split.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]
    origin: str
    feature_names: tuple[str, ...] | None = None
    own_ids: bool = True
    min_max: bool = False

    @property
    def labels(self) -> list[int]:
        """Label ids present in the training split, increasing; ``classes`` is in the same order."""
        return [int(label) for label in np.unique(self.y_train)]

    def listed(self) -> str:
        """The classes as a user can type them, for messages."""
        return ", ".join(
            name if name == str(label) else f"{name} ({label})"
            for name, label in zip(self.classes, self.labels, strict=True)
        )


def check(raw: RawData) -> RawData:
    """Return ``raw`` when it can be benchmarked; raise UsageError with the first thing that is wrong."""
    for split in ("train", "test"):
        x, y = getattr(raw, f"x_{split}"), getattr(raw, f"y_{split}")
        _check_labels(y, split, raw.origin)
        _check_values(x, split, raw)
        if len(x) != len(y):
            raise UsageError(
                f"x_{split} and y_{split} of {raw.origin} have {len(x)} and {len(y)} entries; "
                "they must be equally long: write one label per example"
            )
    if raw.x_train.shape[1:] != raw.x_test.shape[1:]:
        raise UsageError(
            f"examples of {raw.origin} have shape {raw.x_train.shape[1:]} in x_train and "
            f"{raw.x_test.shape[1:]} in x_test; make them the same"
        )
    _check_classes(raw)
    return raw


def _check_labels(y: np.ndarray, split: str, origin: str) -> None:
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise UsageError(
            f"y_{split} of {origin} has shape {y.shape} and type {y.dtype}; "
            "it must be a list (N,) of integer label ids"
        )
    if len(y) == 0:
        raise UsageError(f"y_{split} of {origin} is empty; each split needs examples of every class")


def _check_values(x: np.ndarray, split: str, raw: RawData) -> None:
    what = f"x_{split} of {raw.origin}"
    if x.ndim not in (2, 3, 4):
        raise UsageError(
            f"{what} has shape {x.shape}; allowed are tables (N, d) and images (N, H, W) or (N, H, W, C)"
        )
    if x.size == 0:
        raise UsageError(f"{what} is empty (shape {x.shape}); each split needs examples of every class")
    if x.ndim == 4 and x.shape[-1] not in CHANNELS:
        raise UsageError(
            f"{what} has shape {x.shape}, that is {x.shape[-1]} channels; allowed are 1, 3 or 4 in the last "
            "axis (N, H, W, C): transpose the array if its channels come first"
        )
    if x.dtype == np.uint8:
        return
    if x.dtype.kind != "f":
        raise UsageError(f"{what} has type {x.dtype}; allowed are uint8 (0 to 255) and floats in [0, 1]")
    low, high = float(x.min()), float(x.max())  # NaN and infinity show up in the extremes
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UsageError(f"{what} has NaN or infinite values; remove or fill in those entries")
    if not raw.min_max and (low < 0 or high > 1):
        raise UsageError(
            f"{what} has values from {low:g} to {high:g}; floats must lie in [0, 1]: "
            "scale them with the training split, or store pixels as uint8"
        )


def _check_classes(raw: RawData) -> None:
    labels, in_test = raw.labels, np.unique(raw.y_test).tolist()
    if len(labels) < 2:
        raise UsageError(
            f"y_train of {raw.origin} has one class only ({labels[0]}); a benchmark needs two: "
            "add examples of the other class"
        )
    if labels != in_test:
        odd = sorted(set(labels) ^ set(in_test))
        where = "train" if odd[0] in in_test else "test"
        raise UsageError(
            f"class {odd[0]} of {raw.origin} is missing from y_{where}; every class must occur in both splits"
        )
    if len(raw.classes) != len(labels):
        raise UsageError(
            f"classes of {raw.origin} has {len(raw.classes)} names for {len(labels)} labels; "
            "give one name per label, in increasing label order"
        )
    if len(set(raw.classes)) != len(raw.classes):
        raise UsageError(f"classes of {raw.origin} repeats a name; give every class its own")
    if raw.feature_names is not None and len(raw.feature_names) != math.prod(raw.x_train.shape[1:]):
        raise UsageError(
            f"feature_names of {raw.origin} has {len(raw.feature_names)} names for "
            f"{math.prod(raw.x_train.shape[1:])} features; give one name per feature"
        )


def resolve_class(raw: RawData, wanted: str | int) -> int:
    """Return the label id of a class given by name or id; a text is tried as a name first."""
    if isinstance(wanted, str) and wanted in raw.classes:
        return raw.labels[raw.classes.index(wanted)]
    for label in raw.labels:
        if str(label) == str(wanted):
            return label
    raise UsageError(
        f"unknown class {wanted!r} of {raw.origin}{nearest(str(wanted), raw.classes)}: "
        f"choose from {raw.listed()} (--sensitive CLASS)"
    )


def restrict(raw: RawData, pair: Iterable[str | int]) -> RawData:
    """Keep the examples of two classes, in their order."""
    kept = sorted(resolve_class(raw, wanted) for wanted in pair)
    if kept[0] == kept[1]:
        raise UsageError(
            f"a pair needs two different classes, got {kept[0]} twice: choose from {raw.listed()}"
        )
    if kept == raw.labels:
        return raw
    train, test = np.isin(raw.y_train, kept), np.isin(raw.y_test, kept)
    return replace(
        raw,
        x_train=raw.x_train[train],
        y_train=raw.y_train[train],
        x_test=raw.x_test[test],
        y_test=raw.y_test[test],
        classes=tuple(raw.classes[raw.labels.index(label)] for label in kept),
    )


def reason(error: Exception) -> str:
    """What an error says, on one line of bounded length, for use inside another message."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def memory_limit() -> int:
    """Bytes a data set may take: half of the machine's memory."""
    if not hasattr(os, "sysconf"):
        return FALLBACK_MEMORY
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def check_memory(stored: int, values: int, origin: str) -> None:
    """Refuse, before anything is allocated, ``stored`` bytes of arrays with ``values`` entries.

    Beside the stored arrays the float32 copies are counted, four bytes a value.
    """
    needed, limit = stored + 4 * values, memory_limit()
    if needed > limit:
        raise UsageError(
            f"{origin} would take {needed / 2**30:.3g} GiB of memory; the limit is {limit / 2**30:.3g} GiB, half "
            "of this machine's: use fewer or smaller examples"
        )
