"""All 90 ordered pairs of MNIST digits: clean accuracy and median closed-form radius in each norm, as heat maps.

Rows are the sensitive digit, columns the other one: the two orders of a pair are two problems, since only one of the
digits is certified and the other's region is convex.
"""

import sys

from bench.experiments._single import single

if __name__ == "__main__":  # before the imports that take seconds, which --help can do without
    sys.exit(single("digit_pairs", __doc__)())

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from bench.contract import NORMS
from bench.data import load_dataset
from bench.experiments._finished import Figures, Finished
from bench.experiments._shared import Experiment, Options, Rows, finish, run_units
from bench.kept.rows import check_predictions, check_radii
from bench.methods.fcnn_published import PublishedFCNN
from bench.report.figures.line_styles import NORM_SYMBOLS
from bench.report.tables.summary import summarise
from bench.running.evaluate import Evaluation
from bench.running.plan import CellPlan
from bench.running.provenance import RunClock
from bench.suites.suite import MethodEntry

EXPERIMENT = Experiment(
    "digit_pairs", "All ordered pairs of MNIST digits", "3 instead of 60 epochs, 200 test inputs"
)
DIGITS = range(10)
# A perceptually uniform map that reads without colour, too.
COLOURS = "viridis"


def run(options: Options) -> list[Path]:
    """Train and certify every pair, and draw the heat maps. A pair is a unit: 90 suites' figures would help nobody."""
    clock = RunClock()
    settings, test_inputs = settings_of(options), 200 if options.reduced else 0
    place = (str(options.data_dir or ""), str(options.torch_device))
    units = {
        f"{pair}-seed{seed}": (pair, settings, test_inputs, seed, *place)
        for pair in pairs()
        for seed in options.seeds
    }
    rows = run_units(EXPERIMENT, options, units, train_and_certify)
    return finish(EXPERIMENT, options, rows, {**settings, "test_inputs": test_inputs}, clock)


def figures(finished: Finished) -> Figures:
    """The figure, from the rows."""
    return {EXPERIMENT.name: lambda: figure(finished.rows, finished.heading())}


def pairs() -> list[str]:
    """Names of all data sets, the sensitive digit first."""
    return [f"mnist:{first}-{second}" for first, second in permutations(DIGITS, 2)]


def settings_of(options: Options) -> dict[str, Any]:
    """Settings of the FCNN: the published ones but for the reduction."""
    training = {
        "optimizer": "sgd",
        "learning_rate": 1e-3,
        "batch_size": 64,
        "schedule": "exponential",
        "decay": 0.99,
    }
    epochs = 60
    if options.reduced:
        training, epochs = {"optimizer": "adam", "learning_rate": 2e-3, "batch_size": 256}, 3
    return {
        "gradient_weights": {"l2": 0.01},
        "certificates": ["closed_form:free"],
        "train": {**training, "epochs": epochs, "crop_padding": 1},
    }


def train_and_certify(
    pair: str, settings: dict[str, Any], test_inputs: int, seed: int, data_dir: str, device: str
) -> Rows:
    """Train an FCNN on one pair; return its clean accuracy and radii in each norm."""
    entry = MethodEntry(PublishedFCNN.name, settings=settings)
    data = load_dataset(pair, data_dir or None)
    method = entry.method_class(entry.settings_for(pair), torch.device(device))
    plan = CellPlan(pair, entry.name, seed, 0, NORMS, "validation", test_inputs)
    found = Evaluation(method, data, plan).run()
    if found.errors:
        raise RuntimeError(f"{pair}: {found.errors[0]}")
    summary = summarise(check_radii(found.radii), check_predictions(found.predictions))
    kept = ["dataset", "norm", "inputs", "recall_sensitive", "recall_other", "balanced_accuracy"]
    rows = summary[[*kept, "mean_radius", "median_radius", "seconds_per_certificate"]]
    return [{**row, "seed": seed} for row in rows.to_dict("records")]


def figure(rows: pd.DataFrame, heading: str) -> Figure:
    """Draw balanced accuracy and the median radius in each norm, means over the seeds, as heat maps."""
    summary = rows.groupby(["dataset", "norm"], as_index=False)[["balanced_accuracy", "median_radius"]].mean()
    drawing = Figure(figsize=(9.0, 8.4), layout="constrained")
    axes = drawing.subplots(2, 2)
    first = summary[summary["norm"] == NORMS[0]]
    maps = {"balanced clean accuracy, %": grid(first, 100 * first["balanced_accuracy"])}
    for norm in NORMS:
        part = summary[summary["norm"] == norm]
        maps[f"median {NORM_SYMBOLS[norm]} radius"] = grid(part, part["median_radius"])
    for ax, (title, values) in zip(axes.flat, maps.items(), strict=True):
        image = ax.imshow(values, cmap=COLOURS)
        drawing.colorbar(image, ax=ax, shrink=0.8)
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for row, column in zip(*np.nonzero(~np.isnan(values)), strict=True):
            value = values[row, column]
            color = "black" if value > middle else "white"
            ax.text(column, row, short(value), ha="center", va="center", fontsize=8, color=color)
        ax.set_xticks(DIGITS)
        ax.set_yticks(DIGITS)
        ax.set_xlabel("other digit")
        ax.set_ylabel("sensitive digit")
        ax.set_title(title, fontsize=9)
        ax.grid(False)
    drawing.suptitle(heading, fontsize=10)
    return drawing


def grid(rows: pd.DataFrame, values: pd.Series) -> np.ndarray:
    """Return (10, 10) values by sensitive and other digit; the diagonal is missing."""
    table = np.full((len(DIGITS), len(DIGITS)), np.nan)
    for dataset, value in zip(rows["dataset"], values, strict=True):
        first, second = dataset.removeprefix("mnist:").split("-")
        table[int(first), int(second)] = value
    return table


def short(value: float) -> str:
    """A number in at most four characters, cut: 99.9, 12, 1.3, .07."""
    if value >= 100:
        return "100"
    digits = 1 if value >= 1 else 2
    cut = np.floor(value * 10**digits + 1e-9) / 10**digits
    return f"{cut:.{digits}f}".removeprefix("0")
