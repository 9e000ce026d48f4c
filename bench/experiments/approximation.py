"""Universal approximation in the classification sense: share of the plane misclassified against the network's width.

The target is where an input is *not* sensitive: a disc, which is convex, and a crescent, which is not. A convex score
can approach the first as closely as one likes; for the second its own set stays convex, so that no width removes the
error. The plain network beside it shows that the crescent itself is not the difficulty.
"""

import sys

from bench.experiments._single import single

if __name__ == "__main__":  # before the imports that take seconds, which --help can do without
    sys.exit(single("approximation", __doc__)())

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from bench.basics.seeds import derive_seed
from bench.experiments._finished import Figures, Finished
from bench.experiments._shared import Experiment, Options, Rows, finish, run_units
from bench.report.figures.identity import OWN
from bench.running.provenance import RunClock
from fcnn import ConvexMLP
from fcnn.convex_network import ConvexNetwork
from fcnn.training import TrainSettings, cross_entropy, train

EXPERIMENT = Experiment(
    "approximation",
    "Error against width on a convex and on a non-convex target set",
    "5,000 instead of 20,000 training points, 40 instead of 100 epochs",
)
WIDTHS = (2, 4, 8, 16, 32, 64)
REPEATS = 3
POINTS, POINTS_REDUCED = 20_000, 5_000
EPOCHS, EPOCHS_REDUCED = 100, 40
GRID = 400
NETWORKS = {"convex": "convex score (ICNN)", "plain": "plain network"}
COLORS = {"convex": OWN, "plain": "0.35"}


def disc(x: np.ndarray) -> np.ndarray:
    """Which points (N, 2) of the unit square lie in a disc."""
    return ((x - 0.5) ** 2).sum(axis=1) <= 0.33**2


def crescent(x: np.ndarray) -> np.ndarray:
    """Which points (N, 2) lie in the disc and outside a second, smaller disc that bites into it."""
    return disc(x) & (((x - np.array([0.72, 0.5])) ** 2).sum(axis=1) > 0.24**2)


TARGETS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "disc (convex)": disc,
    "crescent (not convex)": crescent,
}


def run(options: Options) -> list[Path]:
    """Train every width on every target several times, and plot the error."""
    clock = RunClock()
    points, epochs = (POINTS_REDUCED, EPOCHS_REDUCED) if options.reduced else (POINTS, EPOCHS)
    units = {
        f"{target}-{network}-{width}-seed{seed}": (target, network, width, points, epochs, seed)
        for target, network, width, seed in product(TARGETS, NETWORKS, WIDTHS, options.seeds)
    }
    rows = run_units(EXPERIMENT, options, units, train_and_measure)
    settings = {"widths": WIDTHS, "repeats": REPEATS, "points": points, "epochs": epochs, "grid": GRID}
    return finish(EXPERIMENT, options, rows, settings, clock)


def figures(finished: Finished) -> Figures:
    """The figure, from the rows."""
    return {EXPERIMENT.name: lambda: figure(finished.rows, finished.heading())}


def train_and_measure(target: str, network: str, width: int, points: int, epochs: int, seed: int) -> Rows:
    """Train REPEATS networks on uniform points; return the share of a grid that each gets wrong."""
    inside = TARGETS[target]
    x = np.random.default_rng(derive_seed(EXPERIMENT.name, target, seed)).random((points, 2))
    data = torch.from_numpy(x).float(), torch.from_numpy(~inside(x)).long()
    line = (np.arange(GRID) + 0.5) / GRID
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    rows = []
    for repeat in range(REPEATS):
        model_seed = derive_seed(EXPERIMENT.name, target, network, width, seed, repeat)
        model = untrained(network, width, model_seed)
        train(
            model,
            cross_entropy,
            data,
            TrainSettings(epochs=epochs, batch_size=256, learning_rate=0.02),
            seed=model_seed,
            after_step=model.project if isinstance(model, ConvexNetwork) else None,
        )
        with torch.no_grad():
            wrong = (model(torch.from_numpy(grid).float()) > 0).numpy() == inside(grid)
        rows.append(
            {
                "target": target,
                "network": network,
                "width": width,
                "seed": seed,
                "repeat": repeat,
                "error": wrong.mean(),
            }
        )
    return rows


class PlainMLP(nn.Module):
    """ReLU network with two hidden layers, (N, 2) -> (N,)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 1),
            nn.Flatten(0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def untrained(network: str, width: int, seed: int) -> nn.Module:
    """Return a network of two hidden layers with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ConvexMLP(2, (width, width), hidden_init=1 / width) if network == "convex" else PlainMLP(width)


def figure(rows: pd.DataFrame, heading: str) -> Figure:
    """Draw the median error over the repeats, with their range, a panel for each target."""
    drawing = Figure(figsize=(8.0, 3.9), layout="constrained")
    axes = drawing.subplots(1, len(TARGETS), sharey=True)
    for ax, target in zip(axes, TARGETS, strict=True):
        for network, marker in zip(NETWORKS, "os", strict=True):
            part = rows[(rows["target"] == target) & (rows["network"] == network)]
            error = part.groupby("width")["error"].agg(["min", "median", "max"])
            color = COLORS[network]
            ax.fill_between(error.index, error["min"], error["max"], color=color, alpha=0.2, linewidth=0)
            ax.plot(
                error.index,
                error["median"],
                marker=marker,
                color=color,
                markersize=4,
                label=NETWORKS[network],
            )
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
        ax.set_xlabel("width of both hidden layers")
        ax.set_title(f"not sensitive: {target}", fontsize=9)
    axes[0].set_ylabel("share of the square misclassified")
    axes[0].legend(frameon=False, fontsize=9)
    drawing.suptitle(f"{heading}\nmedian and range of {REPEATS} trainings", fontsize=10)
    return drawing
