"""What a certificate costs: seconds per certificate of every method, logarithmic."""

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bench.report.figures.line_styles import NORM_SYMBOLS, CurveId, LineStyle, log_axis, plain_text

NORM_MARKERS = {"l1": "o", "l2": "s", "linf": "^"}
NORM_GREYS = {"l1": "0.0", "l2": "0.35", "linf": "0.65"}


def seconds_figure(summary: pd.DataFrame, styles: Mapping[CurveId, LineStyle], heading: str) -> Figure:
    """Draw one data set's seconds per certificate: a row for each curve, a marker for each norm."""
    figure = Figure(figsize=(7.0, 1.6 + 0.27 * len(styles)), layout="constrained")
    ax = figure.subplots()
    norms = [norm for norm in NORM_MARKERS if norm in set(summary["norm"])]
    for place, norm in enumerate(norms):
        rows = summary[(summary["norm"] == norm) & (summary["seconds_per_certificate"] > 0)]
        ranks = [styles[tuple(key)].rank for key in rows[["method", "certificate", "domain"]].to_numpy()]
        shift = 0.5 * ((place + 0.5) / len(norms) - 0.5)
        ax.plot(
            rows["seconds_per_certificate"],
            np.array(ranks, dtype=float) + shift,
            linestyle="none",
            marker=NORM_MARKERS[norm],
            markersize=4.5,
            color=NORM_GREYS[norm],
            label=NORM_SYMBOLS[norm],
        )
    ax.set_yticks(
        range(len(styles)), [textwrap.fill(style.name, 44) for style in styles.values()], fontsize=8
    )
    ax.set_ylim(len(styles) - 0.5, -0.5)
    log_axis(ax)
    # One call covers all norms of a run, so its marks lie above each other.
    ax.set_xlabel(
        "seconds to certify an input in all of its norms at once (mean over those predicted sensitive)"
    )
    figure.suptitle(
        "\n".join(textwrap.fill(plain_text(line), 80) for line in heading.splitlines()), fontsize=10
    )
    figure.legend(loc="outside lower center", ncols=len(norms), frameon=False, fontsize=8)
    return figure
