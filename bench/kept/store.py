"""The output folder of a run: one folder per finished cell, and the tables merged from them.

::

    OUT/cells/<dataset>/<method>/seed<k>/{radii.parquet, predictions.parquet, roc.parquet, model.safetensors, cell.json}
    OUT/cells/<dataset>/<method>/seed<k>/{cell.log, unfinished/}    what went wrong; what a cut cell goes on from
    OUT/{radii.parquet, predictions.parquet, curves.csv, summary.csv, roc.csv, run.json}   OUT/figures/*.{png,pdf}

``cell.json`` is written last and holds the checksums of its neighbours: a cell is finished if and only if it is
there, its key is the one asked for, and every checksum is right. The merged tables are in canonical order, so they
do not depend on the order in which cells finish.
"""

import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors.torch
from torch import Tensor

from bench.basics.errors import UsageError
from bench.basics.files import (
    SCHEMA_VERSION,
    DamagedFileError,
    checksum,
    commit,
    remove_temporaries,
    safe_name,
    seal,
    set_aside,
    stage,
    sync_folder,
    unseal,
    write_atomic,
)
from bench.kept.roc import ROC_COLUMNS, ROC_KEY, no_roc, roc_from_parquet, roc_to_parquet
from bench.kept.rows import (
    PREDICTION_COLUMNS,
    RADII_COLUMNS,
    check_predictions,
    check_radii,
    from_parquet,
    to_parquet,
)

RADII = "radii.parquet"
PREDICTIONS = "predictions.parquet"
ROC = "roc.parquet"
MODEL = "model.safetensors"
CELL = "cell.json"
RUN = "run.json"
CURVES = "curves.csv"
SUMMARY = "summary.csv"
SUMMARY_LATEX = "summary.tex"
ROC_TABLE = "roc.csv"
VALIDATION = "validation.csv"
# By what figures choose between methods, as test data must not: median certified radius of a few sensitive validation
# inputs (``inputs``) under a coarse ``certificate`` (see bench.running.validation). It ranks methods and is no result.
VALIDATION_COLUMNS = (
    *("dataset", "method", "norm", "operating_point", "seed"),
    *("certificate", "inputs", "median_radius"),
)
# Of a table: its columns, and the radii in their units.
TABLE_COLUMNS = "columns.csv"
ORIGINAL_UNITS = "original_units.csv"
FIGURES = "figures"
CLAIM = "claim.csv"
CLAIM_TEXT = "claim.md"
CLAIM_LATEX = "claim.tex"
COUNTEREXAMPLES = "counterexamples"
BRACKET = "bracket.csv"
BRACKET_COLUMNS = (
    "dataset",
    "method",
    "domain",
    "norm",
    "operating_point",
    "index",
    "certified",
    "adversarial",
)
CANDIDATES = "candidates.csv"
# Titles that runs were written with and that said what a method is not: read as what they are called now.
RENAMED = {
    "α,β-CROWN": "Branch and bound (α,β-CROWN style)",
    "IBP training + CROWN": "CROWN (IBP-trained)",
    "MTL-IBP + CROWN": "CROWN (MTL-IBP-trained)",
    "alpha-CROWN (adversarially trained)": "α-CROWN (adversarially trained)",
}
LOG_FILE = "cell.log"
UNFINISHED = "unfinished"

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellFolder:
    """Where one cell (data set, method, seed) keeps its rows, its trained state and its record."""

    path: Path
    dataset: str
    method: str
    seed: int

    def finished(self, key: str) -> bool:
        """Say whether the cell's results for this key are complete and intact.

        A file that is damaged or foreign is named in a warning and set aside; the cell then counts as not
        finished. Results of another key (other settings, data or code) are left until ``write`` replaces them.
        """
        if not (self.path / CELL).exists():
            return False
        try:
            record = self.record()
        except DamagedFileError as error:
            set_aside(self.path / CELL, str(error))
            return False
        return record["key"] == key and self._intact(record)

    def write(
        self,
        key: str,
        radii: pd.DataFrame,
        predictions: pd.DataFrame,
        state: Mapping[str, Tensor] | None = None,
        meta: Mapping[str, Any] | None = None,
        roc: pd.DataFrame | None = None,
    ) -> None:
        """Store the finished cell; ``meta`` (settings, timings, ...) goes into cell.json under that name.

        All files are on disk before the first one is renamed, so a full disk keeps the previous results.
        Raises ValueError for rows that are not valid or belong to another cell, OSError if writing fails.
        """
        contents = {
            RADII: to_parquet(self._own(check_radii(radii)), RADII_COLUMNS),
            PREDICTIONS: to_parquet(self._own(check_predictions(predictions)), PREDICTION_COLUMNS),
        }
        if roc is not None and len(roc):
            contents[ROC] = roc_to_parquet(roc)
        if state is not None:
            contents[MODEL] = _pack(state)
        record = {
            **self._identity(),
            "key": key,
            "files": {
                name: {"bytes": len(data), "sha256": checksum(data)} for name, data in contents.items()
            },
            "meta": meta or {},
        }
        self.path.mkdir(parents=True, exist_ok=True)
        staged: dict[Path, Path] = {}
        try:
            for name, data in {**contents, CELL: seal(record)}.items():
                staged[self.path / name] = stage(self.path / name, data)
        except OSError:
            for temporary in staged.values():
                temporary.unlink()
            raise
        # From here until the new record is in place the cell counts as not finished.
        (self.path / CELL).unlink(missing_ok=True)
        sync_folder(self.path)
        commit(staged)

    def record(self) -> dict[str, Any]:
        """Return the content of cell.json; raise DamagedFileError if it is damaged or of another cell."""
        try:
            record = unseal((self.path / CELL).read_bytes())
        except OSError as error:
            raise DamagedFileError(f"cannot be read ({error.strerror})") from error
        if {name: record.get(name) for name in self._identity()} != self._identity():
            raise DamagedFileError("belongs to another cell")
        named = set(record.get("files", ()))
        if "key" not in record or not {RADII, PREDICTIONS} <= named <= {RADII, PREDICTIONS, ROC, MODEL}:
            raise DamagedFileError("names other files than those of a cell")
        return record

    def read(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the cell's rows (radii, predictions); raise DamagedFileError if a byte of them was changed."""
        files = self.record()["files"]
        return (
            from_parquet(self._verified(RADII, files), RADII_COLUMNS),
            from_parquet(self._verified(PREDICTIONS, files), PREDICTION_COLUMNS),
        )

    def read_roc(self) -> pd.DataFrame:
        """Return what the cell certifies at other thresholds, perhaps no rows; raise DamagedFileError like ``read``."""
        files = self.record()["files"]
        return roc_from_parquet(self._verified(ROC, files)) if ROC in files else no_roc()

    def read_state(self) -> dict[str, Tensor] | None:
        """Return the trained state, None where the cell stored none; raise DamagedFileError like ``read``."""
        files = self.record()["files"]
        return safetensors.torch.load(self._verified(MODEL, files)) if MODEL in files else None

    def unfinished(self, key: str) -> Path:
        """Return where the cell keeps its training state and finished batches until it is finished."""
        return self.path / UNFINISHED / safe_name(key[:16])

    def clear_unfinished(self) -> None:
        """Delete what the cell kept while it was computed, except files that were set aside as damaged."""
        folder = self.path / UNFINISHED
        for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
            if path.is_dir():
                with contextlib.suppress(OSError):  # it holds something set aside
                    path.rmdir()
            elif ".damaged-" not in path.name:
                path.unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()

    def _identity(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "method": self.method, "seed": self.seed}

    def _own(self, frame: pd.DataFrame) -> pd.DataFrame:
        for name, value in self._identity().items():
            if (frame[name] != value).any():
                raise ValueError(f"rows of {name} {frame[name].iloc[0]!r} in the cell of {name} {value!r}")
        return frame

    def _intact(self, record: Mapping[str, Any]) -> bool:
        intact = True
        for name in record["files"]:
            try:
                self._verified(name, record["files"])
            except DamagedFileError as error:
                intact = False
                if (self.path / name).exists():
                    set_aside(self.path / name, str(error))
                else:
                    LOG.warning("%s %s: the cell is computed again", self.path / name, error)
        return intact

    def _verified(self, name: str, files: Mapping[str, Any]) -> bytes:
        return read_verified(self.path / name, files[name])


def read_verified(path: Path, expected: Mapping[str, Any]) -> bytes:
    """Return a file's bytes if they are those of ``{"bytes": n, "sha256": ...}``, else raise DamagedFileError."""
    try:
        if path.stat().st_size != expected["bytes"]:
            raise DamagedFileError(f"has {path.stat().st_size} bytes where {expected['bytes']} were written")
        data = path.read_bytes()
    except OSError as error:
        raise DamagedFileError(f"cannot be read ({error.strerror})") from error
    if checksum(data) != expected["sha256"]:
        raise DamagedFileError("does not match its checksum")
    return data


@dataclass(frozen=True)
class Store:
    """The output folder of a run."""

    out: Path

    def prepare(self) -> None:
        """Make the folder; raise UsageError if it cannot be made or written to."""
        probe = self.out / ".probe"
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            write_atomic(probe, b"")
            probe.unlink()
        except OSError as error:
            raise UsageError(
                f"cannot write to the output folder {str(self.out)!r} ({error.strerror}): "
                "choose another one with --out, or mend its permissions"
            ) from error

    def sweep(self) -> None:
        """Delete what killed runs left half-written; call it while holding the folder's lock."""
        remove_temporaries(self.out)

    def cell(self, dataset: str, method: str, seed: int) -> CellFolder:
        """Return the folder of a cell; names are escaped so that it always lies inside the output folder."""
        path = self.out / "cells" / safe_name(dataset) / safe_name(method) / f"seed{int(seed)}"
        return CellFolder(path, dataset, method, int(seed))

    def merge(self, cells: Iterable[CellFolder]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Write the merged tables of these finished cells, and return them (radii, predictions)."""
        tables = [cell.read() for cell in cells]
        empty = pd.DataFrame(columns=list(RADII_COLUMNS)), pd.DataFrame(columns=list(PREDICTION_COLUMNS))
        radii = check_radii(_stack([radii for radii, _ in tables], empty[0]))
        predictions = check_predictions(_stack([rows for _, rows in tables], empty[1]))
        write_atomic(self.out / RADII, to_parquet(radii, RADII_COLUMNS))
        write_atomic(self.out / PREDICTIONS, to_parquet(predictions, PREDICTION_COLUMNS))
        return radii, predictions

    def merge_roc(self, cells: Iterable[CellFolder]) -> pd.DataFrame:
        """Return what these finished cells certify at other thresholds, in canonical order."""
        merged = _stack([cell.read_roc() for cell in cells], no_roc())
        return merged.sort_values(ROC_KEY, kind="stable", ignore_index=True)

    def write_validation(self, cells: Iterable[CellFolder]) -> None:
        """Write validation.csv of these finished cells; none is left where no cell has measures (older ones do not)."""
        rows = [row for cell in cells for row in cell.record()["meta"].get("validation", [])]
        if rows:
            self.write_table(VALIDATION, _validation_table(rows))
        else:
            (self.out / VALIDATION).unlink(missing_ok=True)

    def read_validation(self) -> pd.DataFrame:
        """Return validation.csv, no rows where the run has none; raise UsageError if it cannot be read."""
        found = self._read_table(VALIDATION, VALIDATION_COLUMNS, VALIDATION_COLUMNS[:4], na_values=())
        return _validation_table([]) if found is None else found[list(VALIDATION_COLUMNS)]

    def write_roc(self, table: pd.DataFrame) -> None:
        """Write roc.csv; none is left where no method of the run certifies at other thresholds."""
        if len(table):
            self.write_table(ROC_TABLE, table)
        else:
            (self.out / ROC_TABLE).unlink(missing_ok=True)

    def read_roc_table(self) -> pd.DataFrame | None:
        """Return roc.csv of a finished run, None where it has none; raise UsageError if it cannot be read."""
        columns = [name for name in ROC_COLUMNS if name != "radii"]
        return self._read_table(ROC_TABLE, columns, columns[:5], na_values=("",))

    def read_bracket(self) -> pd.DataFrame | None:
        """Return bracket.csv, None where the run was not attacked; raise UsageError if it cannot be read."""
        return self._read_table(BRACKET, BRACKET_COLUMNS, BRACKET_COLUMNS[:5], na_values=("",))

    def _read_table(
        self, name: str, columns: Sequence[str], texts: Sequence[str], na_values: Sequence[str]
    ) -> pd.DataFrame | None:
        """Return a table of the run, None where it has none; raise UsageError if it is damaged or lacks a column."""
        path = self.out / name
        if not path.exists():
            return None
        try:
            found = pd.read_csv(
                path, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=list(na_values)
            )
            if missing := [column for column in columns if column not in found]:
                raise ValueError(f"it has no column {missing[0]!r}")
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{str(path)!r} cannot be read ({' '.join(str(error).split())}): run python -m bench.compare again"
            ) from error
        return found

    def write_table(self, name: str, frame: pd.DataFrame) -> None:
        """Write curves.csv or summary.csv atomically, floats with all their digits."""
        write_atomic(self.out / name, frame.to_csv(index=False, lineterminator="\n").encode())

    def write_run(self, record: Mapping[str, Any]) -> None:
        """Write run.json, the last file of a run, with the checksums of the tables beside it."""
        files = {}
        for name in (RADII, PREDICTIONS, CURVES, SUMMARY, ROC_TABLE, VALIDATION):
            if (self.out / name).exists():
                data = (self.out / name).read_bytes()
                files[name] = {"bytes": len(data), "sha256": checksum(data)}
        write_atomic(self.out / RUN, seal({**record, "files": files}))

    def read_run(self) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
        """Return (run.json, radii, predictions) of a finished run; raise UsageError if it is not one, or damaged."""
        name = RUN
        try:
            run = unseal((self.out / RUN).read_bytes())
            for method in run.get("methods", {}).values():
                method["title"] = RENAMED.get(method.get("title"), method.get("title"))
            name = RADII
            radii = from_parquet(read_verified(self.out / RADII, run["files"][RADII]), RADII_COLUMNS)
            name = PREDICTIONS
            data = read_verified(self.out / PREDICTIONS, run["files"][PREDICTIONS])
            return run, radii, from_parquet(data, PREDICTION_COLUMNS)
        except OSError as error:
            raise UsageError(
                f"{str(self.out)!r} is not the output folder of a finished run ({name}: {error.strerror}): "
                "make one with python -m bench.compare --out"
            ) from error
        except (DamagedFileError, KeyError) as error:
            raise UsageError(
                f"{str(self.out / name)!r} {error}: run python -m bench.compare again with the same "
                "arguments, finished cells are not computed twice"
            ) from error


def _validation_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the measures of all cells as a table in canonical order."""
    table = pd.DataFrame([dict(row) for row in rows], columns=list(VALIDATION_COLUMNS))
    table["median_radius"] = table["median_radius"].astype(float)  # JSON has infinity as text
    return table.sort_values(list(VALIDATION_COLUMNS[:5]), kind="stable", ignore_index=True)


def _pack(state: Mapping[str, Tensor]) -> bytes:
    """Serialise tensors, each with memory of its own (the format refuses shared memory)."""
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    return safetensors.torch.save(tensors, metadata={"schema_version": str(SCHEMA_VERSION)})


def _stack(frames: list[pd.DataFrame], empty: pd.DataFrame) -> pd.DataFrame:
    frames = [frame for frame in frames if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else empty
