"""What a certificate costs: seconds of the call that certifies an input, and how many norms such a call covers."""

import textwrap
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.kept.rows import LINE
from bench.report.figures.line_styles import CurveId, LineStyle, log_axis, plain_text

# By the number of norms that a call covers; only equal markers compare.
MARKERS = {1: "o", 2: "s", 3: "^"}
LABEL = "seconds to certify an input (mean over those predicted sensitive)"


def seconds_figure(summary: pd.DataFrame, styles: Mapping[CurveId, LineStyle], heading: str) -> Figure:
    """Draw one data set's seconds: a row for each curve, a marker for each call, which may cover several norms."""
    figure = Figure(figsize=(7.0, 1.6 + 0.25 * len(styles)), layout="constrained")
    ax = figure.subplots()
    timed = summary[summary["seconds_per_certificate"] > 0]
    # The norms of one call show the same seconds: they are one marker.
    calls = timed.drop_duplicates([*LINE, "seconds_per_certificate", "norms_in_call"])
    for row in calls.to_dict("records"):
        style = styles[tuple(row[name] for name in LINE)]
        look: dict[str, Any] = {"marker": MARKERS[row["norms_in_call"]], "markersize": 6, "linestyle": "none"}
        ax.plot([row["seconds_per_certificate"]], [style.rank], color=style.color, **look)
    names = [textwrap.fill(style.name, 44) for style in styles.values()]
    ax.set_yticks(range(len(styles)), names, fontsize=8)
    ax.set_ylim(len(styles) - 0.5, -0.5)
    log_axis(ax)
    ax.set_xlabel(LABEL, fontsize=9)
    lines = [textwrap.fill(plain_text(line), 80) for line in heading.splitlines()]
    figure.suptitle("\n".join(lines), fontsize=10)
    covered = sorted(set(calls["norms_in_call"]))
    handles = [
        Line2D([], [], color="0.3", linestyle="none", marker=MARKERS[count], label=_covers(count))
        for count in covered
    ]
    title = None if len(covered) == 1 else "only equal markers compare"
    look = {"frameon": False, "fontsize": 8, "title": title, "title_fontsize": 8}
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), **look)
    return figure


def _covers(count: int) -> str:
    return "a call for one norm" if count == 1 else f"one call for {count} norms"
