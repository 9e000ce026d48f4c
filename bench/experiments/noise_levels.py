"""Smoothing at 1, 2, 3 and 4 times the base noise level: every kind of noise on every data set."""

import sys

from bench.experiments._single import single

if __name__ == "__main__":  # before the imports that take seconds, which --help can do without
    sys.exit(single("noise_levels", __doc__)())

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from bench.contract import NORMS
from bench.experiments._finished import Figures, Finished
from bench.experiments._shared import (
    Experiment,
    Options,
    accuracy_line,
    run_as_suite,
)
from bench.report.figures.identity import FAMILIES, shade
from bench.report.figures.line_styles import NORM_SYMBOLS, log_axis

EXPERIMENT = Experiment(
    "noise_levels",
    "Smoothing at several noise levels",
    "MNIST 3-8 only, 200 test inputs, small network, 6 epochs, 1,000 draws",
)
BASE = {"mnist_38": 0.75, "fashion_mnist_shirts": 0.75, "cifar10_catsdogs": 0.75, "malware_benign_128": 3.5}
REDUCED_DATASETS = ("mnist_38",)
TIMES = (1, 2, 3, 4)
KINDS = {"gaussian": "Gaussian", "laplace": "Laplace", "uniform": "uniform", "splitting": "splitting"}
# Shades of the family's colour, from light to dark with the level, and told apart by dashes without colour.
SMOOTHING = to_rgb(FAMILIES["smoothing"])
LOOK = {
    times: (shade(SMOOTHING, share), dashes)
    for times, share, dashes in ((1, 0.5, "-"), (2, 0.1, "--"), (3, -0.35, "-."), (4, -0.75, ":"))
}
FULL_TRAINING = {
    "epochs": 60,
    "batch_size": 64,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "nesterov": True,
    "weight_decay": 1e-4,
}


def run(options: Options) -> list[Path]:
    """Train and certify at every level, and plot certified accuracy for each data set."""
    return run_as_suite(EXPERIMENT, options, suite_table(options))


def figures(finished: Finished) -> Figures:
    """A figure for each data set, from its rows."""
    return {
        f"{EXPERIMENT.name}_{dataset}": partial(figure, rows, finished.heading(dataset), BASE[dataset])
        for dataset, rows in finished.rows.groupby("dataset")
    }


def suite_table(options: Options) -> dict[str, Any]:
    """Every kind of noise at every level."""
    datasets = REDUCED_DATASETS if options.reduced else tuple(BASE)
    methods = [
        {
            "method": f"smoothing_{kind}",
            "id": f"{kind}_{times}",
            "title": f"{title} noise, {times} x base",
            "family": f"{title} noise",
            "settings": settings(options, kind),
            "for_": {dataset: {"sigma": times * BASE[dataset]} for dataset in datasets},
        }
        for (kind, title), times in product(KINDS.items(), TIMES)
    ]
    return {"datasets": list(datasets), "methods": methods, "test_inputs": 200 if options.reduced else 1000}


def settings(options: Options, kind: str) -> dict[str, Any]:
    """Settings of one kind of noise, without its level."""
    draws = (
        {}
        if kind == "splitting"
        else {"draws": 1_000 if options.reduced else 100_000, "draws_calibrate": 100}
    )
    if options.reduced:
        return {**draws, "train": {"epochs": 6, "batch_size": 128}}
    return {**draws, "network": "resnet18", "train": FULL_TRAINING}


def figure(radii: pd.DataFrame, heading: str, base: float) -> Figure:
    """Draw certified accuracy over the radius: a row for each kind of noise, a column for each norm."""
    drawing = Figure(figsize=(9.0, 9.0), layout="constrained")
    axes = drawing.subplots(len(KINDS), len(NORMS), sharey=True, sharex="col")
    for (row, (kind, title)), (column, norm) in product(enumerate(KINDS.items()), enumerate(NORMS)):
        ax = axes[row, column]
        for times, (color, dashes) in LOOK.items():
            rows = radii[(radii["method"] == f"{kind}_{times}") & (radii["norm"] == norm)]
            accuracy_line(ax, rows, color=color, linestyle=dashes, label=f"{times * base:g}")
        native = "" if rows["native"].all() else ", converted"
        ax.set_title(f"{title}, {NORM_SYMBOLS[norm]}{native}", fontsize=9)
        ax.set_ylim(-0.02, 1.03)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    for column, norm in enumerate(NORMS):
        axes[-1, column].set_xlabel(f"{NORM_SYMBOLS[norm]} radius")
        smallest = (
            radii.loc[(radii["norm"] == norm) & (radii["radius"] > 0), "radius"].astype(float).quantile(0.01)
        )
        axes[0, column].set_xlim(
            smallest, 1.1 * radii.loc[radii["norm"] == norm, "radius"].astype(float).max()
        )
        log_axis(axes[-1, column])
    for ax in axes[:, 0]:
        ax.set_ylabel("certified accuracy")
    drawing.suptitle(heading, fontsize=10)
    drawing.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(TIMES),
        frameon=False,
        title="standard deviation of the noise",
    )
    return drawing
