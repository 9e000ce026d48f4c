"""The feature map on CIFAR-10 cats and dogs: (x - mean, |x - mean|) against the identity, without a regulariser."""

import sys

from bench.experiments._single import single

if __name__ == "__main__":  # before the imports that take seconds, which --help can do without
    sys.exit(single("feature_map", __doc__)())

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from bench.contract import NORMS
from bench.experiments import _cifar
from bench.experiments._finished import Figures, Finished
from bench.experiments._shared import (
    Experiment,
    Options,
    accuracy_line,
    run_as_suite,
)
from bench.report.figures.identity import OWN, OWN_LIGHT
from bench.report.figures.line_styles import NORM_SYMBOLS
from bench.report.tables.summary import summarise

EXPERIMENT = Experiment("feature_map", "Feature map: CenteredAbs against Identity", _cifar.REDUCED)
ENTRIES = {
    "centered_abs": {
        "title": "φ(x) = (x - μ, |x - μ|)",
        "settings": {"feature_map": "centered_abs", "gradient_weights": {}},
    },
    "identity": {"title": "φ(x) = x", "settings": {"feature_map": "identity", "gradient_weights": {}}},
}
LOOK = {
    ("centered_abs", "closed_form"): (OWN, "-"),
    ("centered_abs", "refined"): (OWN, "--"),
    ("identity", "closed_form"): (OWN_LIGHT, "-"),
    ("identity", "refined"): (OWN_LIGHT, "--"),
}


def run(options: Options) -> list[Path]:
    """Train and certify with both maps, and plot certified accuracy."""
    return run_as_suite(EXPERIMENT, options, _cifar.suite_table(options, ENTRIES))


def figures(finished: Finished) -> Figures:
    """The figure, from the rows."""
    summary = summarise(finished.rows, finished.predictions)
    return {EXPERIMENT.name: lambda: figure(finished.rows, summary, finished.heading(_cifar.TITLE))}


def figure(radii: pd.DataFrame, summary: pd.DataFrame, heading: str) -> Figure:
    """Draw certified accuracy over the radius for both maps, a panel for each norm."""
    drawing = Figure(figsize=(9.0, 3.5), layout="constrained")
    axes = drawing.subplots(1, len(NORMS), sharey=True)
    recalls = summary.groupby("method")[["recall_sensitive", "recall_other"]].first()
    for ax, norm in zip(axes, NORMS, strict=True):
        for (method, certificate), (color, dashes) in LOOK.items():
            rows = radii[(radii["method"] == method) & (radii["certificate"] == certificate)]
            clean = recalls.loc[method]
            label = (
                f"{ENTRIES[method]['title']}, {certificate.replace('_', ' ')}; "
                f"clean {clean['recall_sensitive']:.1%} / {clean['recall_other']:.1%}"
            )
            accuracy_line(ax, rows[rows["norm"] == norm], color=color, linestyle=dashes, label=label)
        ax.set_xlim(left=0)
        ax.set_xlabel(f"{NORM_SYMBOLS[norm]} radius")
    axes[0].set_ylim(-0.02, 1.03)
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    axes[0].set_ylabel("certified accuracy")
    drawing.suptitle(heading, fontsize=10)
    drawing.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8
    )
    return drawing
