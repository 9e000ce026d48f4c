"""Finding a data set by its name: embedded, in the data folder, registered by a package, or downloaded."""

import os
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import numpy as np

from bench.basics.errors import UsageError, unknown
from bench.data.catalog import KNOWN, Known
from bench.data.columns import with_immutable
from bench.data.dataset import Dataset, assemble
from bench.data.downloads import REMOTES, default_cache_dir, download
from bench.data.embedded import EMBEDDED
from bench.data.families import is_families, read_families
from bench.data.folders import read_folder
from bench.data.npz import OPTIONAL, REQUIRED, read_npz
from bench.data.raw import RawData, check, reason, restrict
from bench.data.table_options import TableOptions

GROUP = "certbench.datasets"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(:[A-Za-z0-9][A-Za-z0-9 ._-]{0,99})?")


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    sensitive: str | int | None = None,
    cache_dir: str | Path | None = None,
    mirror: str | None = None,
    table: TableOptions | None = None,
    immutable: Sequence[str] = (),
) -> Dataset:
    """Return the data set ``name`` with its three splits; label 1 is the sensitive class.

    ``NAME:A-B`` cuts two classes out of a larger set, A sensitive (``mnist:3-8``). ``sensitive`` names the
    sensitive class, or gives its label id; against several others it stands alone. The search goes through the
    embedded sets, ``data_dir`` (default: BENCH_DATA_DIR) with NAME.npz or a folder NAME/, data sets registered by
    installed packages, and the public downloads, kept in ``cache_dir`` (default: BENCH_CACHE_DIR, else the
    platform's). ``mirror`` (default: BENCH_MIRROR) is another address to download from. With ``table`` the data set is
    a .csv or .parquet file in ``data_dir``. ``immutable`` names columns that no adversary changes.

    Raises UsageError, one line, for every name, file, folder or download that does not work.
    """
    return with_immutable(_load(name, data_dir, sensitive, cache_dir, mirror, table), immutable)


def _load(
    name: str,
    data_dir: str | Path | None,
    sensitive: str | int | None,
    cache_dir: str | Path | None,
    mirror: str | None,
    table: TableOptions | None,
) -> Dataset:
    base, pair = _parse_name(name)
    folder = find_data_dir(data_dir)
    if table is not None:
        from bench.data.tables import load_table  # scikit-learn takes a second to import

        if folder is None:
            raise UsageError(f"{table.file} is needed again: give --data-dir the folder that holds it")
        return load_table(name, folder, table, None if sensitive is None else str(sensitive))
    found = _find(base, folder, cache_dir, mirror)
    if isinstance(found, Dataset):
        return _as_registered(found, name, sensitive)
    raw, known = check(found), KNOWN.get(base)
    if pair is not None:
        classes = _split_pair(pair, raw)
        raw, sensitive = restrict(raw, classes), classes[0] if sensitive is None else sensitive
    return assemble(raw, name, _title(name, known), _choose_sensitive(raw, name, known, sensitive))


def list_datasets(data_dir: str | Path | None = None) -> list[tuple[str, str]]:
    """Return (name, one line about it) for every known, registered or found data set."""
    listed = {name: known.description for name, known in KNOWN.items()}
    for entry in _registered():
        listed.setdefault(entry.name, f"registered by {entry.dist.name if entry.dist else entry.value}")
    folder = find_data_dir(data_dir)
    for name in _names_in(folder):
        listed.setdefault(name, f"from {folder}")
    return list(listed.items())


def find_data_dir(data_dir: str | Path | None = None) -> Path | None:
    """Return the data folder, from the argument or BENCH_DATA_DIR, or None; raise UsageError if it is no use."""
    chosen = data_dir or os.environ.get("BENCH_DATA_DIR")
    if not chosen:
        return None
    folder = Path(chosen)
    told = "give --data-dir (or BENCH_DATA_DIR) a folder with NAME.npz files or image folders NAME/"
    try:
        if not folder.is_dir():
            raise UsageError(f"data folder {str(folder)!r} does not exist or is not a folder: {told}")
        if not any(folder.iterdir()):
            raise UsageError(f"data folder {str(folder)!r} is empty: {told}")
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"data folder {str(folder)!r} cannot be read ({reason(error)}): {told}") from error
    return folder


def _parse_name(name: str) -> tuple[str, str | None]:
    if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
        raise UsageError(
            f"bad data set name {str(name)[:120]!r}: use letters, digits, '_', '-' and '.', "
            "optionally with :A-B for two classes (mnist:3-8); files are found through --data-dir"
        )
    base, _, pair = name.partition(":")
    return base, pair or None


def _split_pair(pair: str, raw: RawData) -> tuple[str, str]:
    """Return the two classes of ``A-B``; names may hold dashes, so every dash is tried."""
    choices = {*raw.classes, *map(str, raw.labels)}
    for dash in (match.start() for match in re.finditer("-", pair)):
        if pair[:dash] in choices and pair[dash + 1 :] in choices:
            return pair[:dash], pair[dash + 1 :]
    raise UsageError(f"bad pair {pair!r} of {raw.origin}: write A-B with two of the classes {raw.listed()}")


def _find(
    base: str, folder: Path | None, cache_dir: str | Path | None, mirror: str | None
) -> RawData | Dataset:
    """Return the data set, cut from a larger one if need be; raise UsageError when it is nowhere."""
    found, known = _read(base, folder, cache_dir, mirror), KNOWN.get(base)
    if found is None and known is not None and known.part_of is not None:
        assert known.sensitive is not None and known.other is not None  # every part names its two classes
        whole = _read(known.part_of, folder, cache_dir, mirror)
        if isinstance(whole, RawData):
            found = restrict(check(whole), (known.sensitive, known.other))
    if found is None:
        raise _not_found(base, folder)
    return found


def _read(
    base: str, folder: Path | None, cache_dir: str | Path | None, mirror: str | None
) -> RawData | Dataset | None:
    """Return the first data set of that name, or None."""
    if base in EMBEDDED:
        return EMBEDDED[base]()
    if folder is not None and (folder / f"{base}.npz").exists():
        return read_npz(folder / f"{base}.npz")
    if folder is not None and is_families(folder / base):
        return read_families(folder / base).binary()
    if folder is not None and (folder / base).is_dir():
        return read_folder(folder / base)
    for entry in _registered():
        if entry.name == base:
            return _call(entry)
    if base in REMOTES:
        cache = Path(cache_dir) if cache_dir else default_cache_dir()
        return download(base, cache, mirror or os.environ.get("BENCH_MIRROR"))
    return None


def _registered() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def _call(entry: EntryPoint) -> RawData | Dataset:
    """Call a registered function; it returns a Dataset or a mapping with the arrays of an .npz."""
    try:
        result = entry.load()()
    except Exception as error:  # the code of another package may raise anything; the user needs its name
        raise UsageError(
            f"data set {entry.name!r} failed to load ({type(error).__name__}: {reason(error)}): "
            f"repair or uninstall the package that registers {entry.value}"
        ) from error
    if isinstance(result, Dataset):
        return result
    if not isinstance(result, Mapping) or any(key not in result for key in REQUIRED):
        raise UsageError(
            f"data set {entry.name!r} ({entry.value}) returned {type(result).__name__}; "
            f"it must return a Dataset or a mapping with {', '.join(REQUIRED)}"
        )
    y_train = np.asarray(result["y_train"])
    classes, features = (result.get(key) for key in OPTIONAL)
    arrays: dict[str, Any] = {key: np.asarray(result[key]) for key in REQUIRED}
    return RawData(
        **arrays,
        classes=tuple(map(str, np.unique(y_train) if classes is None else classes)),
        origin=entry.value,
        feature_names=None if features is None else tuple(map(str, features)),
    )


def _as_registered(dataset: Dataset, name: str, sensitive: str | int | None) -> Dataset:
    """Return a finished data set of another package; its name and its sensitive class are its own."""
    if dataset.name != name or sensitive not in (None, dataset.classes[0]):
        raise UsageError(
            f"data set {dataset.name!r} is registered ready-made, with {dataset.classes[0]!r} sensitive: "
            f"ask for {dataset.name!r} without :A-B and --sensitive"
        )
    return dataset


def _choose_sensitive(raw: RawData, name: str, known: Known | None, sensitive: str | int | None) -> str | int:
    if sensitive is not None:
        return sensitive
    if known is not None and known.sensitive is not None:
        return known.sensitive
    if raw.own_ids and raw.labels == [0, 1]:
        return 1
    pair = "" if len(raw.labels) == 2 else f", or write {name}:A-B for two of them"
    raise UsageError(
        f"which class of {name!r} is sensitive? its classes are {raw.listed()}: give --sensitive CLASS{pair}"
    )


def _title(name: str, known: Known | None) -> str:
    if known is None:
        return name
    _, _, pair = name.partition(":")
    return f"{known.title} {pair}".strip()


def _names_in(folder: Path | None) -> list[str]:
    """Return the names of .npz files and image folders in the data folder."""
    if folder is None:
        return []
    files = [path.stem for path in folder.glob("*.npz")]
    folders = [path.name for path in folder.iterdir() if (path / "train").is_dir()]
    return sorted(name for name in {*files, *folders} if NAME.fullmatch(name))


def _not_found(base: str, folder: Path | None) -> UsageError:
    where = f"{folder}" if folder else "a folder given by --data-dir (or BENCH_DATA_DIR)"
    if base in KNOWN:
        return UsageError(
            f"data set {base!r} was not found: put {base}.npz, or a folder {base}/ with train/ and test/, into {where}"
        )
    choices = [*KNOWN, *(entry.name for entry in _registered()), *_names_in(folder)]
    return unknown("data set", base, dict.fromkeys(choices), f"or put {base}.npz into {where}")
