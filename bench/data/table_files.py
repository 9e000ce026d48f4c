"""Reading .csv and .parquet: sizes are checked before anything is allocated, and every error is one line."""

import re
from pathlib import Path

import pandas as pd
import pyarrow
from pyarrow import parquet

from bench.basics.errors import UsageError
from bench.data.raw import check_memory, reason

SUFFIXES = (".csv", ".parquet")
MAX_CELLS = 100_000_000
MAX_COLUMNS = 10_000
SEPARATORS = ",;\t|"
BLOCK = 1 << 20
MOST_HEADER = 1 << 24
# A number is kept as parsed and as float64; a text costs more, and there are fewer of them.
BYTES_PER_CELL = 16
# What the parser says of a row that is longer than those before it.
LONGER = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")


def read_frame(path: Path) -> pd.DataFrame:
    """Return the table in a file; raise UsageError for one that is missing, damaged, ragged, empty or too large."""
    if not path.is_file():  # opening a pipe would wait for ever
        raise UsageError(
            f"data file {str(path)!r} does not exist or is no file: give --data a .csv or .parquet file"
        )
    try:
        frame = _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
    except UsageError:
        raise
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is no text in UTF-8 (byte {error.start + 1}): save it as CSV in UTF-8"
        ) from error
    except (ValueError, OSError, pyarrow.ArrowException, MemoryError) as error:
        if found := LONGER.search(str(error)):
            columns, line, cells = found.groups()
            raise UsageError(
                f"line {line} of {path} has {cells} cells, its header names {columns} columns: give every row as many, "
                "texts that hold the separator in quotes, numbers with a decimal point"
            ) from error
        raise UsageError(
            f"cannot read {path} ({reason(error)}): the file is damaged or no {path.suffix[1:]} table; write it again"
        ) from error
    if not len(frame):
        raise UsageError(f"{path} has no rows: a table needs some of every class")
    frame.columns = frame.columns.map(str)
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise UsageError(
            f"column {repeated[0]!r} of {path} occurs twice: give every column a name of its own"
        )
    return frame


def _read_csv(path: Path) -> pd.DataFrame:
    separator, columns, rows = _measure(path)
    _check_size(path, rows, columns)
    # Names are compared by read_frame: the parser would rename a repeated one without a word. It would also cut the
    # first row to the header's length, and refuses it here, where the header is a row like the others.
    top = pd.read_csv(path, sep=separator, encoding="utf-8-sig", header=None, nrows=2, dtype=str)
    frame = pd.read_csv(path, sep=separator, encoding="utf-8-sig", low_memory=False, index_col=False)
    names = top.iloc[0]
    nameless = names.isna().to_numpy().nonzero()[0]
    if len(nameless):
        raise UsageError(
            f"column {nameless[0] + 1} of {path} has no name: the first row must name every column"
        )
    frame.columns = names
    return frame


def _measure(path: Path) -> tuple[str, int, int]:
    """Return the separator, the number of columns and that of rows, without holding more than a block of the file.

    Raises UsageError for a line of more cells than a table may have columns: the parser would make them all.
    """
    header, lines, separators = b"", 0, 0
    with path.open("rb") as file:
        while len(header) <= MOST_HEADER and (line := file.readline(BLOCK)):
            header += line
            if line.endswith(b"\n"):
                break
        if len(header) > MOST_HEADER:
            raise UsageError(_too_many(path, f"more than {MAX_COLUMNS:,} columns"))
        _check_text(path, header)
        separator = max(SEPARATORS, key=header.decode("utf-8-sig", "replace").count)
        mark, last = separator.encode(), b"\n"
        while block := file.read(BLOCK):
            _check_text(path, block)
            ends = block.split(b"\n")
            for place, part in enumerate(ends):
                # Only the last line goes on in the next block, and only long ones can hold too many cells.
                if place == 0 or place == len(ends) - 1 or len(part) > MAX_COLUMNS:
                    separators = part.count(mark) + (separators if place == 0 else 0)
                    if separators >= MAX_COLUMNS:
                        what = f"more than {MAX_COLUMNS:,} cells in line {lines + place + 2:,}"
                        raise UsageError(_too_many(path, what))
            lines, last = lines + len(ends) - 1, block[-1:]
    return separator, header.count(mark) + 1, lines + (last != b"\n")


def _check_text(path: Path, block: bytes) -> None:
    if b"\0" in block:
        raise UsageError(f"{path} has zero bytes, so it is no text: save it as CSV in UTF-8")


def _read_parquet(path: Path) -> pd.DataFrame:
    with parquet.ParquetFile(path) as file:
        _check_size(path, file.metadata.num_rows, file.metadata.num_columns)
        return file.read().to_pandas()


def _check_size(path: Path, rows: int, columns: int) -> None:
    if columns > MAX_COLUMNS:
        raise UsageError(_too_many(path, f"{columns:,} columns"))
    if rows * columns > MAX_CELLS:
        raise UsageError(_too_many(path, f"{rows:,} rows of {columns:,} columns, {rows * columns:,} cells"))
    check_memory(BYTES_PER_CELL * rows * columns, rows * columns, str(path))


def _too_many(path: Path, what: str) -> str:
    return (
        f"{path} has {what}: allowed are at most {MAX_COLUMNS:,} columns and {MAX_CELLS:,} cells: "
        "leave out columns, or take a sample of the rows"
    )
