"""From the options that say which data a command works on to requests for data sets."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.basics.errors import UsageError
from bench.data.request import DataRequest, cached_dataset
from bench.data.table_files import SUFFIXES
from bench.data.table_options import TableOptions

FOR_TABLES = ("target", "split_column", "split_seed", "categorical", "drop", "impute", "perturb_categorical")
KINDS = (*SUFFIXES, ".npz")


def own_data(options: argparse.Namespace) -> DataRequest | None:
    """Return the request for the file or name in --data, None without it.

    Raises UsageError for options that do not go together.
    """
    given = getattr(options, "data", None)
    path = Path(given) if given else Path()
    kind = path.suffix.lower()
    if kind and kind not in KINDS and path.is_file():
        raise UsageError(
            f"--data {given!r}: {path.suffix} files are not read: save it as one of {', '.join(KINDS)}"
        )
    if kind not in SUFFIXES:
        for name in FOR_TABLES:
            if getattr(options, name) is not None:
                what = f", and --data {given!r} is none" if given else ""
                raise UsageError(
                    f"--{name.replace('_', '-')} belongs to a table{what}: give --data FILE.csv or FILE.parquet"
                )
    if not given:
        return None
    immutable = tuple(options.immutable or ())
    if kind not in KINDS:
        if path.parent != Path():
            raise UsageError(
                f"--data {given!r}: give a .csv, .parquet or .npz file, or a NAME that --list shows"
            )
        return DataRequest(given, options.data_dir, options.sensitive, immutable=immutable)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"data file {given!r} {what}: give --data a .csv, .parquet or .npz file, or a NAME")
    table = _table(options, path) if kind in SUFFIXES else None
    return DataRequest(path.stem, path.parent, options.sensitive, table, immutable)


def requests(options: argparse.Namespace, names: Sequence[str]) -> dict[str, DataRequest]:
    """Return how to load each data set of a suite: the one in --data, or those named."""
    own = own_data(options)
    if own is not None:
        return {own.name: own}
    immutable = tuple(options.immutable or ())
    return {
        name: DataRequest(name, options.data_dir, options.sensitive, immutable=immutable) for name in names
    }


def print_account(asked: Iterable[DataRequest], against_all: Sequence[str] = ()) -> None:
    """Print what was made of each table: its split, its columns, what is fixed.

    against_all: titles of methods that certify against changes of fixed columns too.
    """
    for request in asked:
        if request.table is not None or request.immutable:
            data = cached_dataset(request)
            print("\n".join(data.account), flush=True)
            if data.mutable is not None and against_all:
                print(
                    f"Against changes of every column, fixed ones too (radii hold, and are smaller than they could "
                    f"be): {', '.join(against_all)}",
                    flush=True,
                )


def _table(options: argparse.Namespace, path: Path) -> TableOptions:
    if not options.target:
        raise UsageError(f"--data {path.name} needs --target COLUMN, the column with the classes")
    if options.split_column and options.split_seed is not None:
        raise UsageError("--split-column and --split-seed do not go together: the column says it all")
    return TableOptions(
        path.name,
        options.target,
        options.split_column or "",
        options.split_seed or 0,
        tuple(options.categorical or ()),
        tuple(options.drop or ()),
        options.impute or "",
        bool(options.perturb_categorical),
    )
