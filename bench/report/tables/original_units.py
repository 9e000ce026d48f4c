"""Certified radii in the units of a table's own columns: "240, 3.1 % of the range of `imports`"."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.calibration import GIVEN, shown_point
from bench.contract import Outcome
from bench.data import Column, Dataset
from bench.kept.rows import CURVE_KEY
from bench.report.tables.summary import floor_digits
from bench.report.tables.summary_text import WIDTH, curve_name

COLUMNS = ("column", "kind", "mutable", "minimum", "range", "features")
SHOWN = 8
DIGITS = 3
MEANING = {
    "l1": "any one of these alone, or a mix whose shares of the ranges add up to that share",
    "l2": "any one of these alone, or a mix whose shares' squares add up to the square of that share",
    "linf": "all of these at once",
}


def columns_table(data: Dataset) -> pd.DataFrame:
    """Return a row for each column of the table, with the columns of ``COLUMNS``; ranges are of the training rows."""
    rows = [
        (
            column.name,
            column.kind,
            _mutable(data, column),
            column.low,
            column.span,
            " ".join(map(str, range(column.start, column.stop))),
        )
        for column in data.columns or ()
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def in_original_units(summary: pd.DataFrame, data: Dataset) -> pd.DataFrame:
    """Return the median radius of each curve and norm for each numeric column that may change.

    Columns: those that name the curve, column, median_radius (in scaled units, over all sensitive test inputs),
    percent_of_range, median_change (in the column's units). No number is rounded up.
    """
    summary = summary[summary["dataset"] == data.name]
    parts = []
    for column in changeable(data):
        part = summary[[*CURVE_KEY, "median_radius"]].copy()
        radius = part["median_radius"].astype(float).to_numpy()
        part.insert(len(CURVE_KEY), "column", column.name)
        part["percent_of_range"] = np.nextafter(100 * radius, 0)
        part["median_change"] = np.nextafter(column.span * radius, 0)
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def render_original_units(summary: pd.DataFrame, data: Dataset) -> str:
    """Say, for the deterministic curve with the largest median radius in each norm, what it means for the columns."""
    lines = []
    columns = changeable(data)
    summary = summary[(summary["dataset"] == data.name) & (summary["guarantee"] == "deterministic")]
    for (norm, point), panel in summary.groupby(["norm", "operating_point"], sort=True):
        panel = panel[panel[str(Outcome.CERTIFIED)] > 0]
        if not len(panel) or not columns:
            continue
        row = panel.sort_values("median_radius", kind="stable").iloc[-1]
        radius = float(row["median_radius"])
        if not np.isfinite(radius):
            changes = "any change of the columns that may change" + " within their ranges" * (
                row["domain"] == "box"
            )
        else:
            percent = _number(100 * radius)
            changes = f"{percent} % of the range of " + ", ".join(
                f"`{column.name}` ({_number((column.span or 0.0) * radius)})" for column in columns[:SHOWN]
            )
            changes += f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else ""
            changes += f": {MEANING[norm]}"
        at = "" if point == GIVEN else f", {shown_point(point)}"
        text = f"{data.name}, {norm}{at}, {curve_name(row)}: half of the {data.classes[0]!r} rows stay so for {changes}"
        lines += textwrap.wrap(text, WIDTH, subsequent_indent="    ")
    return (
        "\n".join(["In the columns' own units (less than the number in brackets):", *lines]) if lines else ""
    )


def changeable(data: Dataset) -> Sequence[Column]:
    """Return the numeric columns with a known range that an adversary may change."""
    return [column for column in data.columns or () if column.span is not None and _mutable(data, column)]


def _mutable(data: Dataset, column: Column) -> bool:
    return data.mutable is None or bool(data.mutable[column.start : column.stop].all())


def _number(value: float) -> str:
    return f"{floor_digits(value, DIGITS):,.6g}"
