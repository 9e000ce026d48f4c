"""Strength of the gradient regulariser on CIFAR-10 cats and dogs: 0, 0.0025, 0.005, 0.0075 and 0.01."""

import sys

from bench.experiments._single import single

if __name__ == "__main__":  # before the imports that take seconds, which --help can do without
    sys.exit(single("regulariser", __doc__)())

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from bench.contract import NORMS
from bench.experiments import _cifar
from bench.experiments._finished import Figures, Finished
from bench.experiments._shared import Experiment, Options, run_as_suite
from bench.report.figures.identity import OWN, OWN_DARK, OWN_LIGHT
from bench.report.figures.line_styles import NORM_SYMBOLS
from bench.report.tables.summary import summarise

EXPERIMENT = Experiment("regulariser", "Strength of the gradient regulariser", _cifar.REDUCED)
STRENGTHS = (0.0, 0.0025, 0.005, 0.0075, 0.01)
CERTIFICATES = {
    "closed_form": ("o", "-", OWN),
    "separable": ("s", "--", OWN_LIGHT),
    "refined": ("^", ":", OWN_DARK),
}
CLEAN = {"recall_sensitive": ("cats", "o", "-", OWN), "recall_other": ("dogs", "s", "--", OWN_LIGHT)}


def run(options: Options) -> list[Path]:
    """Train and certify with every strength, and plot accuracy and median radius over it."""
    entries = {
        f"weight_{strength:g}": {
            "title": f"weight {strength:g}",
            "settings": {"feature_map": "centered_abs", "gradient_weights": {"l2": strength}},
        }
        for strength in STRENGTHS
    }
    return run_as_suite(EXPERIMENT, options, _cifar.suite_table(options, entries))


def figures(finished: Finished) -> Figures:
    """The figure, from the rows."""
    summary = summarise(finished.rows, finished.predictions)
    summary["strength"] = summary["method"].str.removeprefix("weight_").astype(float)
    return {EXPERIMENT.name: lambda: figure(summary, finished.heading(_cifar.TITLE))}


def figure(summary: pd.DataFrame, heading: str) -> Figure:
    """Draw the recalls, and the median radius in each norm, over the strength."""
    drawing = Figure(figsize=(9.0, 3.0), layout="constrained")
    axes = drawing.subplots(1, 1 + len(NORMS))
    clean = summary.groupby("strength")[list(CLEAN)].first()
    for column, (label, marker, dashes, color) in CLEAN.items():
        axes[0].plot(
            clean.index,
            clean[column],
            marker=marker,
            linestyle=dashes,
            color=color,
            markersize=4,
            label=label,
        )
    axes[0].set_ylim(0, 1.03)
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    axes[0].set_title("clean recall", fontsize=9)
    axes[0].legend(frameon=False, fontsize=8, loc="lower right")
    for ax, norm in zip(axes[1:], NORMS, strict=True):
        for certificate, (marker, dashes, color) in CERTIFICATES.items():
            rows = summary[(summary["norm"] == norm) & (summary["certificate"] == certificate)].sort_values(
                "strength"
            )
            label = certificate.replace("_", " ")
            ax.plot(
                rows["strength"],
                rows["median_radius"],
                marker=marker,
                linestyle=dashes,
                color=color,
                markersize=4,
                label=label,
            )
        ax.set_ylim(bottom=0)
        ax.set_title(f"median {NORM_SYMBOLS[norm]} radius", fontsize=9)
    axes[1].legend(frameon=False, fontsize=8, loc="lower right")
    for ax in axes:
        ax.set_xlabel("weight of the regulariser")
        ax.set_xticks(STRENGTHS, [f"{1000 * strength:g}" for strength in STRENGTHS])
        ax.set_xlabel("weight × 1000")
    drawing.suptitle(heading, fontsize=10)
    return drawing
