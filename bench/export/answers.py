"""Brings a verifier's answers back into a run's tables, as a method of their own."""

import csv
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.basics.errors import UsageError, unknown
from bench.calibration import Calibration
from bench.contract import Curve, Outcome, Radii
from bench.export.writing import FOLDER, NORM, QUESTIONS
from bench.kept.points import POINT, with_points
from bench.kept.store import CellFolder, Store
from bench.report.finish import finish_cells
from bench.running.cell_rows import RowMaker
from bench.running.plan import CellPlan
from bench.running.provenance import RunClock

HOLDS, VIOLATED, TIMEOUT, OTHER = "holds", "violated", "timeout", "unknown"
WORDS = {
    "holds": HOLDS,
    "unsat": HOLDS,
    "verified": HOLDS,
    "safe": HOLDS,
    "violated": VIOLATED,
    "sat": VIOLATED,
    "falsified": VIOLATED,
    "unsafe": VIOLATED,
    "timeout": TIMEOUT,
    "unknown": OTHER,
    "error": OTHER,
}
# Columns of the competitions' results, which have no header.
COMPETITION = ["category", "onnx", "vnnlib", "preparation", "result", "seconds"]
ASKED = ["vnnlib", "dataset", "method", "seed", "domain", "index", "radius", "reach"]
TOOL = re.compile(r"[\w.,+-]{1,40}")
REASON = "the verifier gave no radius: no question about this input held"


def import_answers(out: Path, results: Path, tool: str, data_dir: Path | None) -> str:
    """Add the answers in ``results`` to the run in ``out`` and write its tables again; return the text for people.

    results: CSV with columns vnnlib, result and perhaps seconds, or the six columns of a competition without a header;
    result is holds (unsat), violated (sat), timeout, unknown or error. tool: name of the verifier.
    Raises UsageError for files that do not fit, unknown answers, and answers that contradict each other.
    """
    store = Store(out)
    if not TOOL.fullmatch(tool):
        raise UsageError(f"--tool {tool!r}: use 1 to 40 letters, digits and . , + - _")
    run, radii, predictions = store.read_run()
    asked = _questions(out / FOLDER / QUESTIONS)
    answered = asked.merge(_answers(results, asked), on="vnnlib")
    cells = [store.cell(*key) for key in _cells(radii)]
    methods = dict(run["methods"])
    made: list[tuple[CellFolder, pd.DataFrame, pd.DataFrame, int]] = []
    for (dataset, method, seed), rows in answered.groupby(["dataset", "method", "seed"]):
        name = f"{tool}:{method}"
        own = (radii["dataset"] == dataset) & (radii["method"] == method) & (radii["seed"] == seed)
        cell = store.cell(dataset, name, int(seed))
        made.append((cell, *_cell_tables(cell, rows, radii[own], predictions, tool), len(rows)))
        cells = [other for other in cells if other.path != cell.path] + [cell]
        title = methods.get(method, {}).get("title", method)
        methods[name] = {
            "method": name,
            "title": f"{title} by {tool}",
            "reference": f"answers of {tool}",
            "guarantee": "deterministic",
            "family": "",
        }
    for cell, new_radii, copied, count in made:  # nothing is written before all answers have been understood
        meta = {"method": cell.method, "title": cell.method, "tool": tool, "questions": count}
        cell.write(f"answers of {tool}", new_radii, copied, None, meta)
    text = finish_cells(store, cells, run["configuration"], methods, RunClock(), data_dir)
    counts = answered["answer"].value_counts()
    told = ", ".join(f"{counts.get(word, 0)} {word}" for word in (HOLDS, VIOLATED, TIMEOUT, OTHER))
    return f"{text}\n\n{len(answered)} of {len(asked)} questions answered: {told}."


def _cells(radii: pd.DataFrame) -> list[tuple[str, str, int]]:
    return [
        (dataset, method, int(seed))
        for dataset, method, seed in radii.groupby(["dataset", "method", "seed"]).groups
    ]


def _questions(path: Path) -> pd.DataFrame:
    try:
        asked = pd.read_csv(path, dtype={"dataset": str, "method": str, "vnnlib": str, POINT: str})
        asked[ASKED]
        return with_points(asked)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{str(path)!r} cannot be read: export the questions first, with --format vnnlib"
        ) from error


def _answers(path: Path, asked: pd.DataFrame) -> pd.DataFrame:
    """Return vnnlib, answer and seconds of every row of a results file."""
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"results {str(path)!r} cannot be read: give a CSV file") from error
    columns, rows = _columns(path, [row for row in rows if row])
    if not rows:
        raise UsageError(f"results {str(path)!r} have no answers below their first line")
    known = {Path(name).name: name for name in asked["vnnlib"]}
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        values = dict(zip(columns, (cell.strip() for cell in row), strict=False))
        name = Path(values.get("vnnlib", "")).name
        if name not in known:
            raise UsageError(f"results {str(path)!r}: {name!r} is none of the questions of this run")
        word = values.get("result", "").lower()
        if word not in WORDS:
            raise unknown("result", word, WORDS)
        if name in found:
            raise UsageError(f"results {str(path)!r} answer {name!r} twice")
        found[name] = {"vnnlib": known[name], "answer": WORDS[word], "seconds": _seconds(values)}
    return pd.DataFrame(found.values(), columns=["vnnlib", "answer", "seconds"])


def _columns(path: Path, rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    if {"vnnlib", "result"} <= set(head):
        return head, rows[1:]
    if len(head) == len(COMPETITION):
        return COMPETITION, rows
    raise UsageError(
        f"results {str(path)!r} need a first line with the columns vnnlib and result (and perhaps seconds), or the "
        f"competitions' six columns {', '.join(COMPETITION)}"
    )


def _seconds(values: dict[str, str]) -> float:
    try:
        seconds = float(values.get("seconds") or 0)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UsageError(
            f"seconds {values['seconds']!r} of {values['vnnlib']!r}: give a number >= 0, or none"
        )
    return seconds


def _cell_tables(
    cell: CellFolder, answered: pd.DataFrame, own: pd.DataFrame, predictions: pd.DataFrame, tool: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (radii, predictions) of all sensitive test inputs: a bracket where questions about one were answered."""
    frames = []
    for (point, domain), rows in answered.groupby([POINT, "domain"]):
        there = own[own[POINT] == point]
        plan, maker = _row_maker(cell, there.iloc[0], point)
        inputs = there.drop_duplicates("index").sort_values("index")
        index = inputs["index"].to_numpy()
        predicted = inputs["predicted"].fillna(-1).to_numpy(dtype=int)
        found = _radii(rows, index, predicted)
        seconds = rows["seconds"].sum() / max(1, rows["index"].nunique())
        curve = Curve(tool, domain, norms=plan.norms)
        frames.append(maker.radii(curve, NORM, index, predicted, found, seconds))
    mine = predictions["dataset"].eq(cell.dataset) & predictions["seed"].eq(cell.seed)
    mine &= predictions[POINT].isin(answered[POINT]) & predictions["method"].eq(own["method"].iloc[0])
    copied = predictions[mine].assign(method=cell.method)
    return pd.concat(frames, ignore_index=True), copied


def _row_maker(cell: CellFolder, first: pd.Series, point: str) -> tuple[CellPlan, RowMaker]:
    """What makes rows like those of the method that was asked about; first: one of them."""
    plan = CellPlan(cell.dataset, cell.method, cell.seed, 0, (NORM,), str(first["calibrated_on"]), 0)
    others = first["calibration_others"]
    calibration = Calibration(point, None, None if pd.isna(others) else int(others))
    return plan, RowMaker(plan, "deterministic", None, calibration)


def _radii(rows: pd.DataFrame, index: np.ndarray, predicted: np.ndarray) -> Radii:
    """The largest radius that holds and the smallest that is violated, for each input; unknown where neither."""
    lower, upper = np.zeros(len(index)), np.full(len(index), np.inf)
    outcome = np.full(len(index), Outcome.UNKNOWN, dtype=object)
    outcome[predicted == 0] = Outcome.MISCLASSIFIED
    outcome[predicted == -1] = Outcome.ABSTAINED
    for place, mine in rows.groupby("index"):
        at = int(np.searchsorted(index, place))
        holds, violated = mine[mine["answer"] == HOLDS], mine[mine["answer"] == VIOLATED]
        lower[at] = holds["radius"].max() if len(holds) else 0.0
        upper[at] = violated["reach"].min() if len(violated) else np.inf
        if lower[at] >= upper[at]:
            raise UsageError(
                f"the answers for test input {place} contradict each other: {lower[at]:g} holds, "
                f"{violated['radius'].min():g} is violated"
            )
        if predicted[at] == 1:
            late = bool((mine["answer"] == TIMEOUT).any())
            outcome[at] = Outcome.CERTIFIED if lower[at] > 0 else Outcome.TIMEOUT if late else Outcome.UNKNOWN
    return Radii(lower, outcome, radius_upper=upper, reason=REASON)
