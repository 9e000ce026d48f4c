"""What a certificate costs: seconds of the call that certifies an input, and how many norms such a call covers."""

import textwrap
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.kept.rows import LINE
from bench.report.figures.line_styles import CurveId, LineStyle, plain_text, seconds_axis
from bench.report.figures.looks import NORMAL, PAGE, SMALL

# By the number of norms that a call covers; only equal markers compare.
MARKERS = {1: "o", 2: "s", 3: "^"}
LABEL = "time to certify an input (mean over those predicted sensitive)"


def seconds_figure(summary: pd.DataFrame, styles: Mapping[CurveId, LineStyle], heading: str) -> Figure:
    """Draw one data set's seconds: a row for each curve, a marker for each call, which may cover several norms."""
    figure = Figure(figsize=(PAGE, 1.1 + 0.16 * len(styles)), layout="constrained")
    ax = figure.subplots()
    timed = summary[summary["seconds_per_certificate"] > 0]
    # The norms of one call show the same seconds: they are one marker.
    calls = timed.drop_duplicates([*LINE, "seconds_per_certificate", "norms_in_call"])
    for row in calls.to_dict("records"):
        style = styles[tuple(row[name] for name in LINE)]
        look: dict[str, Any] = {
            "marker": MARKERS[row["norms_in_call"]],
            "markersize": 4.5,
            "linestyle": "none",
        }
        ax.plot([row["seconds_per_certificate"]], [style.rank], color=style.color, **look)
    names = [textwrap.shorten(style.name, 60, placeholder=" ...") for style in styles.values()]
    ax.set_yticks(range(len(styles)), names, fontsize=SMALL)
    ax.tick_params(labelsize=SMALL, pad=1)
    ax.set_ylim(len(styles) - 0.5, -0.5)
    seconds_axis(ax)
    ax.set_xlabel(LABEL, fontsize=NORMAL)
    lines = [textwrap.fill(plain_text(line), 110) for line in heading.splitlines()]
    figure.suptitle("\n".join(lines), fontsize=NORMAL)
    covered = sorted(set(calls["norms_in_call"]))
    handles = [
        Line2D([], [], color="0.3", linestyle="none", marker=MARKERS[count], label=_covers(count))
        for count in covered
    ]
    title = None if len(covered) == 1 else "only equal markers compare"
    look = {"frameon": False, "fontsize": SMALL, "title": title, "title_fontsize": SMALL}
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), **look)
    return figure


def _covers(count: int) -> str:
    return "a call for one norm" if count == 1 else f"one call for {count} norms"
