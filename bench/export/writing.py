"""Writes the networks and questions of a finished run, and the table that leads from a file back to its row."""

import contextlib
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.basics.errors import UsageError, unknown
from bench.basics.files import DamagedFileError, safe_name, write_atomic
from bench.data import Dataset
from bench.data.request import DataRequest, cached_dataset
from bench.export.inputs import asked_inputs
from bench.export.networks import write_onnx
from bench.export.questions import ask, vnnlib
from bench.export.wanted import NORM, Wanted
from bench.kept.finished import load_method
from bench.kept.points import file_part, points_in_order
from bench.kept.store import Store
from bench.report.tables.summary import named_radii

FOLDER = "vnnlib"
ONNX, VNNLIB = "onnx", "vnnlib"
INSTANCES, QUESTIONS = "instances.csv", "questions.csv"
CELL = ["dataset", "method", "seed", "operating_point"]


@dataclass(frozen=True)
class Written:
    """Where the files are, how many networks and questions there are, and why some methods have no network."""

    folder: Path
    networks: int
    questions: int
    left_out: tuple[str, ...]


def write_questions(out: Path, wanted: Wanted, data_dir: Path | None) -> Written:
    """Write OUT/vnnlib with onnx/, vnnlib/, instances.csv and questions.csv; raise UsageError if nothing can be."""
    store = Store(out)
    run, radii, _ = store.read_run()
    for what, names in (("dataset", wanted.datasets), ("method", wanted.methods)):
        for name in names:
            if name not in set(radii[what]):
                raise unknown(what, name, sorted(set(radii[what])))
    folder = out / FOLDER
    parts = (folder / ONNX, folder / VNNLIB)
    for part in parts:
        part.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    left_out, networks = [], 0
    points = points_in_order(run["configuration"], radii["operating_point"])
    for key, mine in radii.groupby(CELL, sort=True):
        if not _chosen(key, wanted):
            continue
        name = safe_name("_".join(map(str, key[:3])) + file_part(key[3], points))
        onnx = Path(ONNX) / f"{name}.onnx"
        try:
            data = cached_dataset(DataRequest.of_run(run["configuration"], key[0], data_dir))
            write_onnx(load_method(store, data, *key), data.input_shape, folder / onnx)
        except (UsageError, DamagedFileError) as error:
            left_out.append(f"{key[1]} on {key[0]}: {error}")
            continue
        networks += 1
        at = wanted.radii or _radii(run, radii[radii["dataset"] == key[0]], key[0])
        rows += _ask_about(folder, name, onnx, key, mine, data, at, wanted)
    if not rows:
        for empty in (*parts, folder):
            with contextlib.suppress(OSError):  # it holds an earlier export
                empty.rmdir()
        raise UsageError(
            f"no question can be written: {'; '.join(dict.fromkeys(left_out)) or 'no method is left'}"
        )
    _write_tables(folder, rows, wanted.timeout)
    return Written(folder, networks, len(rows), tuple(dict.fromkeys(left_out)))


def _chosen(key: tuple[Any, ...], wanted: Wanted) -> bool:
    return all(
        not names or value in names
        for value, names in zip(key, (wanted.datasets, wanted.methods), strict=False)
    )


def _radii(run: dict[str, Any], rows: pd.DataFrame, dataset: str) -> Sequence[float]:
    """The radii at which the summary names certified accuracy in linf."""
    panel = rows[rows["norm"] == NORM]
    if panel.empty:
        raise UsageError("the run has no linf certificates to take radii from: give --radii")
    return named_radii(run["configuration"].get("radii") or {}, dataset, NORM, panel)


def _ask_about(
    folder: Path,
    name: str,
    onnx: Path,
    key: tuple[Any, ...],
    rows: pd.DataFrame,
    data: Dataset,
    radii: Sequence[float],
    wanted: Wanted,
) -> list[dict[str, Any]]:
    """Write the questions about one network: the first inputs that it calls sensitive, at every radius."""
    index = asked_inputs(rows, wanted.inputs)
    written = []
    for place in map(int, index):
        for radius in radii:
            question = ask(data.x_test[place], float(radius), wanted.domain, data.mutable)
            path = Path(VNNLIB) / f"{name}_{place}_{float(radius):g}.vnnlib"
            comment = f"{key[1]} on {key[0]}, test input {place}, linf radius {radius} ({wanted.domain})"
            write_atomic(folder / path, vnnlib(question, wanted.version, comment).encode())
            written.append(
                {
                    "onnx": onnx.as_posix(),
                    "vnnlib": path.as_posix(),
                    **dict(zip(CELL, key, strict=True)),
                    "norm": NORM,
                    "domain": wanted.domain,
                    "index": place,
                    "radius": float(radius),
                    "reach": question.reach,
                }
            )
    return written


def _write_tables(folder: Path, rows: list[dict[str, Any]], timeout: int) -> None:
    """instances.csv as the competitions read it, questions.csv for the way back."""
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows((row["onnx"], row["vnnlib"], timeout) for row in rows)
    write_atomic(folder / INSTANCES, sink.getvalue().encode())
    write_atomic(folder / QUESTIONS, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n").encode())
