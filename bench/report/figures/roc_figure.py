"""Figures over all thresholds: certified recall over the false positive rate, and median radius over the recall.

Lines are of curves whose method finds radii at many thresholds in one pass; the others are points, at the thresholds
that were chosen on validation data. Nothing in them is chosen on test data: all thresholds are shown.
"""

import math
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter
from sklearn.metrics import roc_curve

from bench.kept.rows import LINE
from bench.report.figures.line_styles import NORM_SYMBOLS, CurveId, LineStyle, legend_columns, plain_text
from bench.report.figures.looks import NORMAL, PAGE, SMALL
from bench.report.tables.roc_table import mean_over_seeds

PANEL = (PAGE / 3, 1.65)
LEGEND_ROW, LEGEND_TITLE = 0.12, 0.45
SHOWN_RADII = 3
RATES = (1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0)
# With so many inputs of the other class an axis has room for powers of ten only.
MANY, DECADES = 5000, (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
KEY = (
    "Lines: every threshold, from one pass. No line: each threshold would be certified anew (walks, searches, and "
    "smoothing in two stages, whose pilot plans the draws for one threshold). Markers: thresholds chosen on validation "
    "data; hollow: converted from another norm. The axis ends where the test inputs can tell a rate from 0."
)


@dataclass(frozen=True)
class Thresholds:
    """What the figures of one data set show.

    scores: predictions of the methods that have a score, at one operating point each (another's are shifted).
    roc: means over the seeds, see bench.kept.roc, perhaps empty. summary: all operating points, at the same radii.
    others: how many test inputs the other class has.
    """

    scores: pd.DataFrame
    roc: pd.DataFrame
    summary: pd.DataFrame
    others: int

    @classmethod
    def of_run(
        cls, predictions: pd.DataFrame, roc: pd.DataFrame | None, summary: pd.DataFrame
    ) -> "Thresholds | None":
        """Return what to show of one data set's tables; None where they say nothing about thresholds.

        roc: None or ``roc_table``'s rows; tables of schema version 1 have neither it nor scores.
        """
        whole = predictions.groupby("method")["score"].transform(lambda scores: scores.notna().all())
        scores = predictions[whole.astype(bool)]
        scores = scores.drop_duplicates(["method", "seed", "index"])
        others = predictions.loc[predictions["label"] == 0, "index"].nunique()
        if scores.empty or others == 0:
            return None
        means = pd.DataFrame(columns=["norm"]) if roc is None or roc.empty else mean_over_seeds(roc)
        return cls(scores, means, summary, others)


def certified_roc_figure(shown: Thresholds, styles: Mapping[CurveId, LineStyle], heading: str) -> Figure:
    """Draw the usual ROC, then for each norm the certified one at up to three radii."""
    norms = [norm for norm in NORM_SYMBOLS if (shown.summary["norm"] == norm).any()]
    radii = {norm: named(shown.summary[shown.summary["norm"] == norm]) for norm in norms}
    norms = [norm for norm in norms if radii[norm]]
    columns = max([2, *(len(radii[norm]) for norm in norms)])
    height = PANEL[1] * (len(norms) + 1) + _legend_height(styles, columns) + 0.4
    figure = Figure(figsize=(PANEL[0] * columns, height), layout="constrained")
    axes = figure.subplots(len(norms) + 1, columns, squeeze=False, sharey=True)
    _draw_usual(axes[0, 0], shown, styles)
    for ax in axes[0, 1:]:
        ax.set_axis_off()
    _legend(figure, styles, columns)
    for row, norm in zip(axes[1:], norms, strict=True):
        for number, ax in enumerate(row, start=1):
            if number > len(radii[norm]):
                ax.set_axis_off()
                continue
            draw_roc(ax, shown, norm, f"certified_recall_{number}", f"certified_accuracy_{number}", styles)
            ax.set_title(
                f"certified at {NORM_SYMBOLS[norm]} radius {radii[norm][number - 1]:g}",
                fontsize=NORMAL,
                pad=3,
            )
    for ax in (ax for ax in axes.flat if ax.axison):
        rate_axis(ax, shown.others)
        ax.set_ylim(-0.02, 1.03)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    for row in axes:
        row[0].set_ylabel("recall, sensitive class", fontsize=NORMAL)
    figure.suptitle(_wrapped(heading, columns), fontsize=NORMAL)
    return figure


def median_figure(shown: Thresholds, styles: Mapping[CurveId, LineStyle], heading: str) -> Figure:
    """Draw, in each norm, the median radius of all sensitive test inputs over the other class's recall."""
    norms = [norm for norm in NORM_SYMBOLS if (shown.summary["norm"] == norm).any()]
    columns = max(2, len(norms))
    size = (PANEL[0] * columns, 2.4 + _legend_height(styles, columns))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(norms), squeeze=False)[0]
    for ax, norm in zip(axes, norms, strict=True):
        draw_roc(ax, shown, norm, "median_radius", "median_radius", styles)
        rate_axis(ax, shown.others)
        ax.invert_xaxis()
        ax.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: _share(1 - rate, shown.others)))
        ax.set_xlabel("recall of the other class (%)", fontsize=NORMAL, labelpad=1)
        ax.set_ylim(bottom=0)
        ax.set_ylabel(f"median {NORM_SYMBOLS[norm]} radius", fontsize=NORMAL)
    _legend(figure, styles, columns)
    figure.suptitle(_wrapped(heading, columns), fontsize=NORMAL)
    return figure


def named(summary: pd.DataFrame) -> list[float]:
    """Return the radii, at most three, at which one norm's summary names certified accuracy."""
    columns = [f"radius_{number}" for number in range(1, SHOWN_RADII + 1)]
    found = [summary[name].dropna() for name in columns if name in summary]
    return [float(values.iloc[0]) for values in found if len(values)]


def _draw_usual(ax: Axes, shown: Thresholds, styles: Mapping[CurveId, LineStyle]) -> None:
    """Draw the ROC of each method's scores, all seeds' scores on the curve of the first seed's axis."""
    for method, rows in shown.scores.groupby("method", sort=True):
        style = next((style for key, style in styles.items() if key[0] == method), None)
        if style is None:
            continue
        for _, mine in rows.groupby("seed", sort=True):
            # The first point, where nothing is called sensitive, is not on a logarithmic axis.
            rate, recall = (values[1:] for values in usual_roc(mine))
            ax.step(_shown_rate(rate, shown.others), recall, where="post", color=style.color, linewidth=1.0)
    summary = shown.summary.drop_duplicates(["method", "operating_point"])
    for row in summary.to_dict("records"):
        key = next((key for key in styles if key[0] == row["method"]), None)
        if key is not None:
            _mark(ax, 1 - row["recall_other"], row["recall_sensitive"], shown.others, styles[key])
    ax.set_title("radius 0: the usual ROC", fontsize=NORMAL, pad=3)


def usual_roc(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return false positive rates and recalls (T,) of one method's and seed's predictions, over all thresholds."""
    rate, recall, _ = roc_curve(rows["label"], rows["score"].astype(float), drop_intermediate=False)
    return rate, recall


def draw_roc(
    ax: Axes,
    shown: Thresholds,
    norm: str,
    column: str,
    point_column: str,
    styles: Mapping[CurveId, LineStyle],
    bold: Collection[CurveId] = (),
) -> dict[CurveId, tuple[np.ndarray, np.ndarray]]:
    """Draw one norm's lines of ``column`` (of the roc table) and points of ``point_column`` (of the summary).

    Only curves with a style are drawn; returned are x and y of the lines.
    """
    paths: dict[CurveId, tuple[np.ndarray, np.ndarray]] = {}
    roc = shown.roc[shown.roc["norm"] == norm] if len(shown.roc) else shown.roc
    for key, curve in roc.groupby(LINE, sort=True) if column in roc else ():
        if key not in styles:
            continue
        style, curve = styles[key], curve.sort_values("false_positives")
        rate = _shown_rate(curve["false_positives"] / curve["others"], shown.others)
        # Between two thresholds of the grid nothing more is claimed than at the stricter one.
        width = 2.2 if key in bold else 1.0
        look: dict[str, Any] = {"color": style.color, "linestyle": style.dashes, "linewidth": width}
        ax.step(rate, curve[column], where="post", **look)
        paths[key] = (rate, curve[column].to_numpy())
    hollow = shown.summary[shown.summary["norm"] == norm].drop_duplicates(LINE).set_index(LINE)["native"]
    for key, points in marked(shown, norm, point_column, styles).items():
        for rate, value in zip(*points, strict=True):
            _mark(ax, rate, value, shown.others, styles[key], hollow=not hollow[key])
    return paths


def marked(
    shown: Thresholds, norm: str, column: str, styles: Mapping[CurveId, LineStyle]
) -> dict[CurveId, tuple[np.ndarray, np.ndarray]]:
    """Return rates and values of ``column`` (P,) at the operating points of each curve that has a style."""
    rows = shown.summary[(shown.summary["norm"] == norm) & (shown.summary["certified"] > 0)]
    found = {}
    for key, mine in rows.groupby(LINE, sort=True) if column in rows else ():
        if key in styles:
            found[key] = (_shown_rate(1 - mine["recall_other"], shown.others), mine[column].to_numpy())
    return found


def _mark(ax: Axes, rate: float, value: float, others: int, style: LineStyle, hollow: bool = False) -> None:
    face = "white" if hollow else style.color
    look: dict[str, Any] = {
        "color": style.color,
        "marker": style.marker,
        "markersize": 3.5,
        "markeredgewidth": 0.7,
        "markerfacecolor": face,
    }
    ax.plot(_shown_rate(np.array([rate]), others), [value], linestyle="none", zorder=3, **look)


def _shown_rate(rate: np.ndarray | pd.Series, others: int) -> np.ndarray:
    """Return rates for a logarithmic axis: 0 stands where half of the smallest rate would."""
    return np.maximum(np.asarray(rate, dtype=float), 0.5 / others)


def rate_axis(ax: Axes, others: int) -> None:
    """Make the x axis logarithmic, from no false positive (marked 0) to 1."""
    ax.set_xscale("log")
    ax.set_xlim(0.4 / others, 1.1)
    rates, fewest = (RATES, 2) if others < MANY else (DECADES, 4)
    ticks = [0.5 / others, *(rate for rate in rates if rate >= fewest / others)]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda rate, _: "0" if rate < 0.9 / others else f"{100 * rate:g}")
    )
    ax.set_xlabel("false positive rate (%)", fontsize=NORMAL, labelpad=1)
    ax.tick_params(labelleft=True, labelsize=SMALL, pad=1)


def _share(share: float, others: int) -> str:
    return "100" if 1 - share < 0.9 / others else f"{100 * share:g}"


def _legend(figure: Figure, styles: Mapping[CurveId, LineStyle], panels: int) -> None:
    """Put the names and the key below all panels, of which ``panels`` stand side by side."""
    handles = [style.handle(style.name, 1.0) for style in styles.values()]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=_columns(styles, panels),
        fontsize=SMALL,
        frameon=False,
        handlelength=3.0,
        columnspacing=1.0,
        labelspacing=0.3,
        title=textwrap.fill(KEY, 47 * panels),
        title_fontsize=SMALL,
    )


def _legend_height(styles: Mapping[CurveId, LineStyle], panels: int) -> float:
    return LEGEND_TITLE + LEGEND_ROW * math.ceil(len(styles) / _columns(styles, panels))


def _columns(styles: Mapping[CurveId, LineStyle], panels: int) -> int:
    return legend_columns([style.name for style in styles.values()], PANEL[0] * panels)


def _wrapped(heading: str, columns: int) -> str:
    return "\n".join(textwrap.fill(plain_text(line), 40 * max(2, columns)) for line in heading.splitlines())
