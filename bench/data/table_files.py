"""Reading .csv and .parquet: sizes are checked before anything is allocated, and every error is one line."""

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
    header, rows = _measure(path)
    separator = max(SEPARATORS, key=header.count)
    _check_size(path, rows, header.count(separator) + 1)
    # Names are compared by read_frame: the parser would rename a repeated one without a word.
    frame = pd.read_csv(path, sep=separator, encoding="utf-8-sig", low_memory=False, index_col=False)
    names = pd.read_csv(path, sep=separator, encoding="utf-8-sig", header=None, nrows=1, dtype=str).iloc[0]
    nameless = names.isna().to_numpy().nonzero()[0]
    if len(nameless):
        raise UsageError(
            f"column {nameless[0] + 1} of {path} has no name: the first row must name every column"
        )
    frame.columns = names
    return frame


def _measure(path: Path) -> tuple[str, int]:
    """Return the first line and the number of further lines, without holding more than a block of the file."""
    header, lines, ended, last = b"", 0, False, b"\n"
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            if not ended:
                first, newline, _ = block.partition(b"\n")
                header += first
                ended = bool(newline)
                if len(header) > MOST_HEADER:
                    raise UsageError(_too_many(path, f"more than {MAX_COLUMNS:,} columns"))
            if b"\0" in block:
                raise UsageError(f"{path} has zero bytes, so it is no text: save it as CSV in UTF-8")
            lines, last = lines + block.count(b"\n"), block[-1:]
    return header.decode("utf-8-sig", "replace"), max(0, lines + (last != b"\n") - 1)


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
