"""The full figure: certified accuracy over the radius of every curve, by norm; linear axis above logarithmic."""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from bench.report.figures.identity import Color
from bench.report.figures.line_styles import (
    NORM_SYMBOLS,
    CurveId,
    LineStyle,
    legend_columns,
    log_axis,
    plain_text,
)
from bench.report.figures.looks import NORMAL, PAGE, SMALL
from bench.report.figures.radius_axis import BROKEN, linear_radii

PANEL_WIDTH, PANEL_HEIGHT = PAGE / 3, 1.75
LEGEND_ROW = 0.125
ENVELOPE_LOOK: dict[str, Any] = {"linewidth": 3.0, "alpha": 0.3, "zorder": 1}
ENVELOPE_COLOR = (0.55, 0.55, 0.55)
ENVELOPE_NOTE = "best at each radius, chosen on test inputs"
KEY = "clean: recall of the sensitive / the other class.   (box) and short dashes: perturbed inputs stay in [0, 1].   "
HOLLOW = "Hollow marker: converted from another norm.   Band: 95 %."
DOUBTFUL = "   (?): near chance, or far below the others."


def curve_figure(
    curves: pd.DataFrame,
    best: pd.DataFrame,
    summary: pd.DataFrame,
    styles: Mapping[CurveId, LineStyle],
    heading: str,
    families: Mapping[str, Color] | None = None,
) -> Figure:
    """Draw one data set's curves and envelopes; norms in which nothing is certified are named.

    curves, best: columns of :mod:`bench.report.tables.curves`, from ``certified_curves`` and ``envelopes``. families:
    the colour of each envelope, grey where none is given.
    """
    colors = {name: (families or {}).get(name, ENVELOPE_COLOR) for name in sorted(set(best["method"]))}
    certified = set(summary.loc[summary["certified"] > 0, "norm"])
    norms = [norm for norm in NORM_SYMBOLS if norm in certified]
    missing = [NORM_SYMBOLS[norm] for norm in NORM_SYMBOLS if norm in set(summary["norm"]) - certified]
    if missing:
        heading += f"\nno input was certified in {', '.join(missing)}"
    if not norms:
        return _only_heading(heading)
    width = max(2 * PANEL_WIDTH, PANEL_WIDTH * len(norms))
    columns = legend_columns([style.label for style in styles.values()], width)
    height = 2 * PANEL_HEIGHT + LEGEND_ROW * math.ceil(len(styles) / columns) + 0.75
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(2, len(norms), squeeze=False, sharey=True)
    broken = False
    for column, norm in enumerate(norms):
        panel, rows = curves[curves["norm"] == norm], summary[summary["norm"] == norm]
        for ax in axes[:, column]:
            _draw_lines(ax, panel, rows, styles)
            _draw_envelopes(ax, best[best["norm"] == norm], colors)
        broken |= _finish_axes(axes[:, column], panel, norm)
        axes[0, column].set_title(_panel_title(rows, styles, norm), fontsize=NORMAL, pad=3)
    for ax in axes[:, 0]:
        ax.set_ylabel("certified accuracy", fontsize=NORMAL)
    doubtful = bool(summary["near_chance"].any())
    key = KEY + HOLLOW + DOUBTFUL * doubtful + f"   {BROKEN}" * broken
    _label(figure, styles, colors, heading, width, columns, key)
    return figure


def _draw_lines(
    ax: Axes, panel: pd.DataFrame, rows: pd.DataFrame, styles: Mapping[CurveId, LineStyle]
) -> None:
    """Draw the lines and bands of one panel, markers staggered so that they do not hide each other."""
    facts = rows.set_index(["method", "certificate", "domain"])[["native", "certified"]]
    opacity = 0.16 if len(styles) <= 6 else 0.07
    for key, curve in panel.groupby(["method", "certificate", "domain"], sort=True):
        native, certified = facts.loc[key]
        if not certified:
            continue
        style, curve = styles[key], until_zero(curve)
        radius, share = curve["radius"].to_numpy(), curve["certified_accuracy"].to_numpy()
        # Steps that take the right end's value: between two radii of the grid nothing more is claimed.
        band: dict[str, Any] = {"step": "pre", "color": style.color, "alpha": opacity, "linewidth": 0}
        ax.fill_between(radius, curve["lower"], curve["upper"], **band)
        ax.plot(
            *(radius, share),
            drawstyle="steps-pre",
            color=style.color,
            linestyle=style.dashes,
            linewidth=1.0,
            marker=style.marker,
            markersize=3.0,
            markeredgewidth=0.7,
            markerfacecolor=style.color if native else "white",
            markeredgecolor=style.color,
            markevery=(0.02 + 0.13 * (style.rank / len(styles)), 0.13),
        )


def _draw_envelopes(ax: Axes, best: pd.DataFrame, colors: Mapping[str, Color]) -> None:
    """Draw a broad pale line behind the members of each family."""
    for (family, _), curve in best.groupby(["method", "domain"], sort=True):
        curve = until_zero(curve)
        look: dict[str, Any] = {"drawstyle": "steps-pre", "color": colors[family], **ENVELOPE_LOOK}
        ax.plot(curve["radius"], curve["certified_accuracy"], **look)


def until_zero(curve: pd.DataFrame) -> pd.DataFrame:
    """Drop what follows the first radius with accuracy 0: lines along the axis would hide each other."""
    positive = int((curve["certified_accuracy"] > 0).sum())
    return curve.iloc[: positive + 1]


def _finish_axes(axes: np.ndarray, panel: pd.DataFrame, norm: str) -> bool:
    """Label and scale one norm's two panels; return whether the linear one is compressed somewhere."""
    low, ends = _interesting(panel)
    for ax in axes:
        ax.set_ylim(-0.02, 1.03)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        ax.tick_params(labelleft=True, labelsize=SMALL, pad=1)
    axes[0].set_xlabel(f"{NORM_SYMBOLS[norm]} radius", fontsize=NORMAL, labelpad=1)
    broken = linear_radii(axes[0], ends)
    axes[1].set_xlim(low, panel["radius"].max())
    log_axis(axes[1])
    axes[1].set_xlabel(f"{NORM_SYMBOLS[norm]} radius (logarithmic)", fontsize=NORMAL, labelpad=1)
    return broken


def _interesting(panel: pd.DataFrame) -> tuple[float, list[float]]:
    """Return the radius where curves start to fall, and where each has fallen: a few odd inputs must not squeeze it."""
    starts, ends, largest = [], [], panel["radius"].max()
    for _, curve in panel.groupby(["method", "certificate", "domain"]):
        radius, share = curve["radius"].to_numpy(), curve["certified_accuracy"].to_numpy()
        if share[0] > 0:
            starts.append(radius[share >= 0.97 * share[0]][-1])
            ends.append(radius[share > share[-1] + 0.005][-1] if share[0] > share[-1] + 0.005 else 0.0)
    low = max(min(starts) * 0.7, largest * 1e-5)
    return min(low, largest / 10), ends if max(ends) > 0 else [largest]


def _panel_title(rows: pd.DataFrame, styles: Mapping[CurveId, LineStyle], norm: str) -> str:
    """Name the norm, and the methods that have no line in it."""
    absent = rows[rows["certified"] == 0][["method", "certificate", "domain"]].itertuples(index=False)
    names = [styles[tuple(key)].name for key in absent]
    title = f"{NORM_SYMBOLS[norm]} perturbations"
    if names:
        title += "\n" + textwrap.fill(f"not certified in this norm: {', '.join(names)}", 46)
    return title


def _label(
    figure: Figure,
    styles: Mapping[CurveId, LineStyle],
    families: Mapping[str, Color],
    heading: str,
    width: float,
    columns: int,
    key: str,
) -> None:
    """Put the heading above and the legend below the panels."""
    figure.suptitle(_wrapped(heading, width), fontsize=NORMAL)
    handles = [style.handle(style.label, 1.0) for style in styles.values()]
    handles += [
        Line2D([], [], color=color, **ENVELOPE_LOOK, label=plain_text(f"{family}: {ENVELOPE_NOTE}"))
        for family, color in families.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        fontsize=SMALL,
        frameon=False,
        handlelength=3.0,
        columnspacing=1.0,
        labelspacing=0.3,
        title=textwrap.fill(key, int(width * 20)),
        title_fontsize=SMALL,
    )


def _wrapped(heading: str, width: float) -> str:
    lines = heading.splitlines()
    return "\n".join(
        textwrap.fill(line if "$" in line else plain_text(line), int(width * 16)) for line in lines
    )


def _only_heading(heading: str) -> Figure:
    figure = Figure(figsize=(PAGE, 1.2))
    figure.text(0.5, 0.5, _wrapped(heading, PAGE), ha="center", va="center", fontsize=NORMAL)
    return figure
