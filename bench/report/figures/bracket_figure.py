"""The bracket in which the truth lies, drawn: certified accuracy below it, accuracy under attack above it."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter

from bench.basics.files import safe_name
from bench.calibration import shown_point
from bench.kept.points import POINT, file_part, points_in_order
from bench.report.figures.line_styles import NORM_SYMBOLS, plain_text
from bench.report.figures.looks import NORMAL, PAGE, PAGE_HEIGHT, SMALL, house_look, save_figure

# Inches of a row: as many rows as a page holds, but three lines of a name in each.
LOWEST, HIGHEST = 0.36, 0.85
AROUND = 0.85


def draw_brackets(run: Mapping[str, Any], rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw each data set's and operating point's brackets into the folder; return the files written.

    run: as in run.json; rows: columns of ``bracket_rows``.
    """
    titles = {name: method["title"] for name, method in run["methods"].items()}
    folder.mkdir(exist_ok=True)
    written, points = [], points_in_order(run["configuration"], rows[POINT])
    for (dataset, point), table in rows.groupby(["dataset", POINT], sort=True):
        inputs = table["index"].nunique()
        heading = f"{dataset}, {shown_point(point)}: certified, and not broken by attack, "
        heading += f"of {inputs} sensitive test inputs"
        stem = f"{safe_name(str(dataset))}{file_part(point, points)}_bracket"
        with house_look():
            written += save_figure(bracket_figure(table, titles, heading), folder / stem)
    return written


def bracket_figure(table: pd.DataFrame, titles: Mapping[str, str], heading: str) -> Figure:
    """Draw one data set's brackets: a row for each method and domain, a column for each norm.

    table: columns of ``bracket_rows``; titles: of the methods, in the order of the rows.
    """
    pairs = set(zip(table["method"], table["domain"], strict=True))
    order = list(dict.fromkeys([*titles, *table["method"]]))
    lines = sorted(pairs, key=lambda pair: (order.index(pair[0]), pair[1] != "free"))
    norms = [norm for norm in NORM_SYMBOLS if norm in set(table["norm"])]
    height = float(np.clip((PAGE_HEIGHT - AROUND) / len(lines), LOWEST, HIGHEST))
    engine = ConstrainedLayoutEngine(h_pad=0.02, hspace=0.02)
    figure = Figure(figsize=(PAGE, AROUND + height * len(lines)), layout=engine)
    axes = figure.subplots(len(lines), len(norms), squeeze=False, sharex="col", sharey=True)
    ends = {norm: _end(table[table["norm"] == norm]) for norm in norms}
    for row, (method, domain) in enumerate(lines):
        label = plain_text(titles.get(method, method)) + (" (box)" if domain == "box" else "")
        axes[row, 0].set_ylabel(textwrap.fill(label, 22), fontsize=SMALL, rotation=0, ha="right", va="center")
        for column, norm in enumerate(norms):
            mine = (table["method"] == method) & (table["domain"] == domain) & (table["norm"] == norm)
            _draw_bracket(axes[row, column], table[mine], ends[norm])
    for column, norm in enumerate(norms):
        axes[0, column].set_title(NORM_SYMBOLS[norm], fontsize=NORMAL, pad=3)
        axes[-1, column].set_xlabel("radius", fontsize=NORMAL, labelpad=1)
        axes[0, column].set_xlim(0, ends[norm])
    axes[0, 0].set_ylim(0, 1.02)
    axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1.0))
    handles = {
        label: handle
        for ax in axes.flat
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    look: dict[str, Any] = {"loc": "outside lower center", "frameon": False, "fontsize": SMALL}
    figure.legend(handles.values(), handles.keys(), ncols=len(handles), **look)
    figure.suptitle(plain_text(heading), fontsize=NORMAL)
    return figure


def _draw_bracket(ax: Axes, rows: pd.DataFrame, end: float) -> None:
    ax.tick_params(labelsize=SMALL, pad=1)
    if not len(rows):
        ax.text(0.5, 0.5, "not certified", transform=ax.transAxes, ha="center", fontsize=SMALL, color="0.4")
        return
    grid = np.unique(np.concatenate([[0.0, end], *_finite(rows)]))
    certified = shares(rows["certified"].to_numpy(), grid)
    # An adversarial point at distance r means that the input is lost from r on.
    robust = shares(np.nextafter(rows["adversarial"].to_numpy(), 0.0), grid)
    ax.fill_between(grid, certified, robust, step="pre", color="0.85", label="the truth lies here")
    ax.step(
        grid, robust, where="pre", color="tab:red", linewidth=1, linestyle="--", label="not broken by attack"
    )
    ax.step(grid, certified, where="pre", color="tab:blue", linewidth=1, label="certified")


def shares(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the share of values that are positive and >= each entry of the grid (G,)."""
    return np.array([((values > 0) & (values >= radius)).mean() for radius in grid])


def _finite(rows: pd.DataFrame) -> Sequence[np.ndarray]:
    columns = (rows[name].to_numpy() for name in ("certified", "adversarial"))
    return [values[np.isfinite(values)] for values in columns]


def _end(rows: pd.DataFrame) -> float:
    """Return where the axis ends: most of what was found, outliers left out."""
    values = np.concatenate(_finite(rows))
    return float(np.quantile(values, 0.97)) * 1.05 if values.any() else 1.0
