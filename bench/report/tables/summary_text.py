"""The summary as text for the terminal, at most 110 columns wide."""

import textwrap

import numpy as np
import pandas as pd

from bench.calibration import shown_point
from bench.contract import Outcome
from bench.report.tables.summary import floor_digits

WIDTH = 110
NAME_WIDTH, COLUMN = 35, 9
# Misclassified inputs are what is missing from the first recall.
REPORTED = [outcome for outcome in Outcome if outcome not in (Outcome.CERTIFIED, Outcome.MISCLASSIFIED)]
LEGEND = (
    "rec1, rec0: recall of the sensitive and of the other class. median, mean: certified radius over all sensitive "
    "test inputs, 0 where not certified. @r: certified accuracy at r in %. Radii and shares are cut, never rounded "
    "up. (box): perturbed inputs stay in [0, 1]. *: converted from another norm. p: holds with probability "
    "1 - alpha. !: threshold chosen on test data. ?: near chance, or far below the others. ~: too few validation "
    "inputs to resolve the operating point."
)


def render_summary(summary: pd.DataFrame) -> str:
    """Return the summary as text: one small table for each data set and norm, then why inputs
    that were predicted sensitive were not certified."""
    blocks = []
    for (dataset, point, norm), panel in summary.groupby(["dataset", "operating_point", "norm"], sort=True):
        inputs, seeds = panel["inputs"].max(), panel["seeds"].max()
        head = f"{dataset}, {norm}, {shown_point(point)}: {inputs} sensitive test inputs"
        head += f", {seeds} seed{'s' if seeds > 1 else ''}"
        lines = [head, _header(panel.iloc[0]), *(_line(row) for _, row in panel.iterrows())]
        blocks.append("\n".join(lines + _shortfalls(panel)))
    return "\n\n".join([*blocks, textwrap.fill(LEGEND, WIDTH)])


def curve_name(row: pd.Series) -> str:
    """Return ``method/certificate`` with its marks."""
    marks = "*" * (not row["native"]) + "p" * (row["guarantee"] == "probabilistic")
    marks += "!" * (row["calibrated_on"] == "test") + "?" * bool(row["near_chance"])
    marks += "~" * (not row["resolved"])
    box = " (box)" if row["domain"] == "box" else ""
    return f"{row['method']}/{row['certificate']}{box}{' ' + marks if marks else ''}"


def _header(row: pd.Series) -> str:
    named = "".join(f"{f'@{radius:.3g}':>{COLUMN}}" for radius in _named(row, "radius"))
    return f"  {'':{NAME_WIDTH}}{'rec1':>7}{'rec0':>7}{'median':>{COLUMN}}{'mean':>{COLUMN}}{named}{'s/cert':>{COLUMN}}"


def _line(row: pd.Series) -> str:
    name = curve_name(row)
    if len(name) > NAME_WIDTH:
        name = f"{name[: NAME_WIDTH - 13]}..{name[-11:]}"
    recalls = f"{_percent(row['recall_sensitive']):>7}{_percent(row['recall_other']):>7}"
    if row[str(Outcome.ERROR)] and not row[str(Outcome.CERTIFIED)]:
        return f"  {name:{NAME_WIDTH}}{recalls}  failed"
    if _does_not_apply(row):
        return f"  {name:{NAME_WIDTH}}{recalls}  not certified in this norm"
    radii = f"{_radius(row['median_radius']):>{COLUMN}}{_radius(row['mean_radius']):>{COLUMN}}"
    accuracies = "".join(f"{_percent(share):>{COLUMN}}" for share in _named(row, "certified_accuracy"))
    return f"  {name:{NAME_WIDTH}}{recalls}{radii}{accuracies}{_seconds(row['seconds_per_certificate']):>{COLUMN}}"


def _named(row: pd.Series, what: str) -> list[float]:
    """Values of the first three named radii; a table in a terminal has no room for more."""
    values = [row.get(f"{what}_{number}") for number in (1, 2, 3)]
    return [value for value in values if value is not None and not pd.isna(value)]


def _shortfalls(panel: pd.DataFrame) -> list[str]:
    """Lines that say how many inputs of which curve ended otherwise than certified."""
    parts = []
    for _, row in panel.iterrows():
        counts = [f"{row[str(outcome)]} {outcome}" for outcome in REPORTED if row[str(outcome)]]
        if counts and not _does_not_apply(row):
            parts.append(f"{row['method']}/{row['certificate']} {', '.join(counts)}")
    text = f"not certified: {'; '.join(parts)}"
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ") if parts else []


def _does_not_apply(row: pd.Series) -> bool:
    return bool(row[str(Outcome.UNSUPPORTED)]) and not row[str(Outcome.CERTIFIED)]


def _percent(share: float) -> str:
    # 1e-9 makes up for a share such as 0.29 that is stored a hair below itself.
    return "-" if np.isnan(share) else f"{np.floor(share * 1000 + 1e-9) / 10:.1f}"


def _radius(radius: float) -> str:
    # So that a small radius keeps its digits and fits its column.
    text = f"{floor_digits(radius, 4):.4g}"
    return text if len(text) < COLUMN else f"{floor_digits(radius, 3):.2e}"


def _seconds(seconds: float) -> str:
    return "-" if np.isnan(seconds) else f"{seconds:.2g}"
