"""Reading .npz files from anywhere: nothing is unpickled and nothing is allocated before its size is checked."""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from bench.basics.errors import UsageError
from bench.data.raw import RawData, check_memory, reason

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("classes", "feature_names")
MAX_NAMES = 100_000
MAX_NAME_LENGTH = 200


def read_npz(path: Path) -> RawData:
    """Read x_train, y_train, x_test, y_test and optionally classes and feature_names; raise UsageError."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise OSError("not a regular file")
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, str(path))
    except UsageError:
        raise
    except (
        Exception
    ) as error:  # the parsers of a damaged file raise almost anything; all of it means unreadable
        raise UsageError(
            f"cannot read {path} ({reason(error)}): the file is damaged or cut off, or not an .npz; "
            "write it again with numpy.savez_compressed"
        ) from error


def _read_archive(archive: zipfile.ZipFile, origin: str) -> RawData:
    present = set(archive.namelist())
    missing = [name for name in REQUIRED if f"{name}.npy" not in present]
    if missing:
        raise UsageError(
            f"{origin} lacks {', '.join(missing)}; an .npz data set holds {', '.join(REQUIRED)} "
            f"and optionally {' and '.join(OPTIONAL)}"
        )
    wanted = [*REQUIRED, *(name for name in OPTIONAL if f"{name}.npy" in present)]
    headers = {name: _read_header(archive, name, origin) for name in wanted}
    stored = sum(math.prod(shape) * dtype.itemsize for shape, dtype in headers.values())
    check_memory(stored, sum(math.prod(headers[name][0]) for name in REQUIRED), origin)
    arrays: dict[str, Any] = {name: _read_array(archive, name) for name in wanted}
    for name in ("y_train", "y_test"):
        if arrays[name].dtype.kind in "biu":
            arrays[name] = arrays[name].astype(np.int64)
    labels = np.unique(arrays["y_train"])
    classes = _names(arrays.pop("classes"), "classes", origin) if "classes" in arrays else None
    features = arrays.pop("feature_names", None)
    return RawData(
        **arrays,
        classes=tuple(map(str, labels)) if classes is None else classes,
        origin=origin,
        feature_names=None if features is None else _names(features, "feature_names", origin),
    )


def _read_header(archive: zipfile.ZipFile, name: str, origin: str) -> tuple[tuple[int, ...], np.dtype]:
    """Return the declared shape and type of one array, refusing objects and sizes that do not fit the file."""
    with archive.open(f"{name}.npy") as stream:
        shape, dtype = _parse_header(stream)
        length = stream.tell()
    if dtype.hasobject:
        raise UsageError(
            f"{name} of {origin} holds pickled objects, which are never loaded because they can run code; "
            "store plain numbers (and class names as text)"
        )
    if any(size < 0 for size in shape):
        raise UsageError(f"{name} of {origin} declares the shape {shape}; write the file again")
    declared, stored = math.prod(shape) * dtype.itemsize, archive.getinfo(f"{name}.npy").file_size - length
    if declared != stored:
        raise UsageError(
            f"{name} of {origin} declares {declared} bytes but the file holds {stored}; "
            "write it again with numpy.savez_compressed"
        )
    if name in OPTIONAL and (math.prod(shape) > MAX_NAMES or dtype.itemsize > 4 * MAX_NAME_LENGTH):
        raise UsageError(
            f"{name} of {origin} has shape {shape} and type {dtype}; allowed are at most {MAX_NAMES} names of "
            f"at most {MAX_NAME_LENGTH} characters"
        )
    return shape, dtype


def _parse_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = npy.read_magic(stream)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"array format {version} is not supported")
    shape, _, dtype = read(stream)
    return shape, dtype


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as stream:
        return npy.read_array(stream, allow_pickle=False)  # zipfile compares the checksum at the last byte


def _names(array: np.ndarray, name: str, origin: str) -> tuple[str, ...]:
    if array.ndim != 1 or array.dtype.kind != "U":
        raise UsageError(
            f"{name} of {origin} has shape {array.shape} and type {array.dtype}; it must be a list of texts"
        )
    texts = tuple(map(str, array))
    if any(not text.strip() or not text.isprintable() for text in texts):
        raise UsageError(f"{name} of {origin} has an empty or unprintable name; use plain text")
    return texts
