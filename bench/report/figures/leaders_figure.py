"""The main figure: a row of panels for each data set, one curve per family, the feature-convex one bold.

It is one page wide and has no text smaller than 6 pt, so that a paper prints it as it is.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import TextPath
from matplotlib.ticker import PercentFormatter

from bench.kept.rows import LINE
from bench.report.figures.curve_figure import until_zero
from bench.report.figures.curve_names import NamedCurve, name_curves
from bench.report.figures.identity import readable
from bench.report.figures.leaders import BY_ORDER, BY_VALIDATION
from bench.report.figures.line_styles import NORM_SYMBOLS, CurveId, LineStyle, plain_text
from bench.report.figures.looks import NORMAL, PAGE, PAGE_HEIGHT, SMALL
from bench.report.figures.radius_axis import BROKEN, linear_radii

TABLE_ROW = 0.12
PANEL_HEIGHTS = (1.1, 1.75)
# A table's columns, and in points: how wide it is, a pair of recalls with what is left of it, and between two columns.
TABLE_COLUMNS, TABLE_WIDTH, RECALLS, GUTTER = 3, 0.87 * 72 * PAGE, 38.0, 6.0
LONGEST = 60
OURS = "feature_convex"
# A curve ends where fewer than this share of the inputs are certified.
ENDED = 0.005
CAPTION = (
    "Free domain. Grey: all other methods, from the lowest to the highest; coloured bands: 95 %. Hollow markers: radii "
    "converted from another norm. Below each row: recall of the sensitive / the other class, in percent."
)


@dataclass(frozen=True)
class LeaderRow:
    """One data set at one operating point: its title, its curves, its leaders and every curve's style.

    curves: free domain, without methods near chance. leaders: rows of :func:`bench.report.figures.leaders.leaders`.
    """

    title: str
    curves: pd.DataFrame
    leaders: pd.DataFrame
    styles: Mapping[CurveId, LineStyle]

    @property
    def families(self) -> int:
        """Return how many families have a leader."""
        return self.leaders["family"].nunique() if len(self.leaders) else 0

    @property
    def shown(self) -> list[CurveId]:
        """Return the leaders of any norm, in the order of the legend."""
        keys = {tuple(key) for key in self.leaders[LINE].to_numpy().tolist()}
        return [key for key in self.styles if key in keys]


def leaders_figure(rows: Sequence[LeaderRow], heading: str) -> Figure:
    """Draw the rows below each other, each with the recalls of its leaders in a small table beneath."""
    tables = [TABLE_ROW * (_lines(row) + 0.5) for row in rows]
    low, high = PANEL_HEIGHTS
    panel = float(np.clip((PAGE_HEIGHT - 0.9 - sum(tables)) / len(rows), low, high))
    engine = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.02, hspace=0.02, wspace=0.02)
    figure = Figure(figsize=(PAGE, sum(tables) + panel * len(rows) + 0.75), layout=engine)
    grid = figure.add_gridspec(
        *(2 * len(rows), len(NORM_SYMBOLS)),
        height_ratios=[size for table in tables for size in (panel, table)],
    )
    panels, broken = [], False
    for number, row in enumerate(rows):
        for column, norm in enumerate(NORM_SYMBOLS):
            ax = figure.add_subplot(grid[2 * number, column])
            names, compressed = _draw_panel(ax, row, norm)
            panels.append((ax, names))
            broken |= compressed
            if column == 0:
                ax.set_ylabel("certified accuracy", fontsize=NORMAL)
                ax.set_title(plain_text(row.title), fontsize=NORMAL, fontweight="bold", loc="left", pad=4)
        _recalls(figure.add_subplot(grid[2 * number + 1, :]), row)
    title, *notes = heading.splitlines()
    lines = [textwrap.fill(plain_text(line), 110) for line in (title, *notes)]
    figure.suptitle("\n".join(lines), fontsize=NORMAL, x=0.01, ha="left")
    caption = " ".join([chosen_by(rows), CAPTION, *[BROKEN] * broken])
    figure.supxlabel(textwrap.fill(caption, 150), fontsize=SMALL, color="0.25")
    # Names are placed in pixels, so where the panels are must be known.
    figure.draw_without_rendering()
    for ax, names in panels:
        name_curves(ax, names, SMALL)
    return figure


def chosen_by(rows: Sequence[LeaderRow]) -> str:
    """Say how the curves were chosen."""
    validated = pd.concat([row.leaders["validated"] for row in rows])
    if validated.all():
        return f"Chosen without test data: {BY_VALIDATION}."
    if validated.any():
        return f"Chosen without test data: {BY_VALIDATION}; where that was not measured, by declared order."
    return f"Chosen without test data: {BY_ORDER}."


def _draw_panel(ax: Axes, row: LeaderRow, norm: str) -> tuple[list[NamedCurve], bool]:
    """Draw one norm; return the curves to name, ours first, and whether the axis is compressed somewhere."""
    panel, leading = row.curves[row.curves["norm"] == norm], row.leaders[row.leaders["norm"] == norm]
    ax.set_ylim(-0.01, 1.03)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.tick_params(labelsize=SMALL, pad=1)
    ax.set_xlabel(f"{NORM_SYMBOLS[norm]} radius", fontsize=NORMAL, labelpad=1)
    if leading.empty:
        ax.text(0.5, 0.5, "nothing certified", transform=ax.transAxes, ha="center", fontsize=SMALL)
        ax.set_xticks([])
        return [], False
    curves = {tuple(key): curve for key, curve in panel.groupby(LINE, sort=True)}
    keys = [tuple(key) for key in leading[LINE].to_numpy().tolist()]
    broken = linear_radii(ax, [_radius_at(curves[key], ENDED) for key in keys])
    _draw_others(ax, [curve for key, curve in curves.items() if key not in keys])
    names = []
    for key, facts in zip(keys, leading.to_dict("records"), strict=True):
        ours, style, curve = facts["family"].startswith(OURS), row.styles[key], until_zero(curves[key])
        _draw_leader(ax, curve, style, ours, bool(facts["native"]))
        look = {"color": style.color, "fontweight": "bold" if ours else "normal"}
        stairs = (curve["radius"].to_numpy(), curve["certified_accuracy"].to_numpy())
        names.append(NamedCurve(style.name, *stairs, look))
    ax.set_xlim(0, ax.get_xlim()[1])
    return sorted(names, key=lambda name: name.look["fontweight"] == "normal"), broken


def _draw_others(ax: Axes, curves: Sequence[pd.DataFrame]) -> None:
    """Fill between the lowest and the highest of the other curves; all have the same radii."""
    if not curves:
        return
    shares = np.stack([curve["certified_accuracy"].to_numpy() for curve in curves])
    band: dict[str, Any] = {"step": "pre", "color": "0.82", "alpha": 0.6, "linewidth": 0, "zorder": 0.5}
    ax.fill_between(curves[0]["radius"], shares.min(axis=0), shares.max(axis=0), **band)


def _draw_leader(ax: Axes, curve: pd.DataFrame, style: LineStyle, bold: bool, native: bool) -> None:
    band: dict[str, Any] = {"step": "pre", "color": style.color, "alpha": 0.13, "linewidth": 0}
    ax.fill_between(curve["radius"], curve["lower"], curve["upper"], **band)
    ax.plot(
        *(curve["radius"], curve["certified_accuracy"]),
        drawstyle="steps-pre",
        color=style.color,
        linewidth=2.4 if bold else 1.1,
        zorder=3 if bold else 2,
        marker=style.marker,
        markersize=3.5 if bold else 3.0,
        markerfacecolor=style.color if native else "white",
        markeredgecolor=style.color,
        markeredgewidth=0.8,
        markevery=(0.1, 0.25),
    )


def _radius_at(curve: pd.DataFrame, share: float) -> float:
    """Return the largest radius of the grid at which more than this share is certified, 0 where there is none."""
    reached = curve.loc[curve["certified_accuracy"] > share, "radius"]
    return float(reached.max()) if len(reached) else 0.0


def _table(row: LeaderRow) -> list[list[CurveId]]:
    """Return the leaders by the columns of the table beneath: as many as have room."""
    for count in range(TABLE_COLUMNS, 0, -1):
        lines = max(1, math.ceil(len(row.shown) / count))
        columns = [row.shown[start : start + lines] for start in range(0, len(row.shown), lines)]
        if sum(_needed(row, keys) for keys in columns) <= TABLE_WIDTH:
            break
    return columns


def _needed(row: LeaderRow, keys: Sequence[CurveId]) -> float:
    """Return how wide a column of the table must be, in points."""
    names = [TextPath((0, 0), _shown_name(row.styles[key]), size=SMALL) for key in keys]
    return max(name.get_extents().width for name in names) + RECALLS + GUTTER


def _shown_name(style: LineStyle) -> str:
    return textwrap.shorten(style.name, LONGEST, placeholder=" ...")


def _lines(row: LeaderRow) -> int:
    return max((len(keys) for keys in _table(row)), default=0)


def _recalls(ax: Axes, row: LeaderRow) -> None:
    """Write the recalls of the leaders, in percent, in columns beneath the panels, each as wide as its names need."""
    ax.set_axis_off()
    columns, lines = _table(row), _lines(row)
    facts = row.leaders.drop_duplicates(LINE).set_index(LINE)
    needed = [_needed(row, keys) for keys in columns]
    spare = (TABLE_WIDTH - sum(needed)) / max(1, len(columns))
    style: dict[str, Any] = {"transform": ax.transAxes, "fontsize": SMALL}
    left = 0.0
    for keys, width in zip(columns, needed, strict=True):
        right = left + (width + spare) / TABLE_WIDTH
        for line, key in enumerate(keys):
            y = 1 - (line + 0.75) / (lines + 0.5)
            recalls = " / ".join(
                _percent(facts.loc[key, column]) for column in ("recall_sensitive", "recall_other")
            )
            ax.text(left, y, _shown_name(row.styles[key]), color=readable(row.styles[key].color), **style)
            ax.text(right - GUTTER / TABLE_WIDTH, y, recalls, ha="right", **style)
        left = right


def _percent(share: float) -> str:
    # Cut, not rounded: 100.0 is for a method that makes no mistake.
    return "?" if np.isnan(share) else f"{np.floor(share * 1000 + 1e-9) / 10:.1f}"
