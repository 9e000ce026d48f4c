"""Real data: the distance of each training input to the convex hull of the other class, proved by a hyperplane.

Both directions: could a convex set hold all dogs and no cat, and the reverse? A convex score can fit the data perfectly
exactly if it could (docs/separability.md). The distance is also an upper bound on the l2 radius at that input of every
convex classifier without errors on the other class. Each separation is re-checked in float64 from its hyperplane alone.
"""

import sys

from bench.experiments._single import single

if __name__ == "__main__":  # before the imports that take seconds, which --help can do without
    sys.exit(single("separability_data", __doc__)())

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bench.basics.seeds import derive_seed
from bench.data import Dataset, load_dataset
from bench.experiments._cifar import DATASET, TITLE
from bench.experiments._finished import Figures, Finished
from bench.experiments._shared import Experiment, Options, Rows, finish, run_units
from bench.running.provenance import RunClock
from fcnn.separability import Hull

EXPERIMENT = Experiment(
    "separability_data",
    "Distance of each training image to the convex hull of the other class",
    "",
)
TARGETS_PER_UNIT = 1_000
TOLERANCE = 0.01
COLORS = ("#0072B2", "#D55E00")


def run(options: Options) -> list[Path]:
    """Measure in units of targets, and plot the distances."""
    clock = RunClock()
    data = load_dataset(DATASET, options.data_dir)
    units = {}
    for sensitive in (1, 0):
        count = int((whole_train(data)[1] == sensitive).sum())
        cuts = [*range(0, count, TARGETS_PER_UNIT), count]
        for start, end in pairwise(cuts):
            arguments = (DATASET, str(options.data_dir or ""), data.sha256, sensitive, start, end)
            units[f"{data.classes[1 - sensitive]}-{start}-{end}"] = arguments
    rows = run_units(EXPERIMENT, options, units, measure)
    settings = {"dataset": DATASET, "tolerance": TOLERANCE, "sha256": data.sha256}
    return finish(EXPERIMENT, options, rows, settings, clock)


def figures(finished: Finished) -> Figures:
    """The figure, from the rows."""
    return {EXPERIMENT.name: lambda: figure(finished.rows, finished.heading(TITLE))}


def measure(dataset: str, data_dir: str, sha256: str, sensitive: int, start: int, end: int) -> Rows:
    """Distances of targets ``start`` to ``end`` of one class, in a seeded order, to the hull of the other class."""
    data = load_dataset(dataset, data_dir or None)
    x, y = whole_train(data)
    own = np.flatnonzero(y == sensitive)
    chosen = np.random.default_rng(derive_seed(EXPERIMENT.name, dataset, sensitive)).permutation(own)[
        start:end
    ]
    found = Hull(x[y != sensitive]).distances(x[chosen], TOLERANCE)
    target, hull = data.classes[1 - sensitive], data.classes[sensitive]
    return [
        {
            "target": target,
            "hull": hull,
            "hull_points": int((y != sensitive).sum()),
            "index": int(index),
            "separated": bool(separated),
            "distance_lower": float(lower),
            "distance_upper": float(upper),
            "steps": int(steps),
        }
        for index, separated, lower, upper, steps in zip(
            chosen, found.separated, found.lower, found.upper, found.steps, strict=True
        )
    ]


def whole_train(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the training split as it was before a validation part was cut off: x (N, d) in float64, y (N,)."""
    x = np.concatenate([data.x_train, data.x_val])
    return x.reshape(len(x), -1).astype(np.float64), np.concatenate([data.y_train, data.y_val])


def figure(rows: pd.DataFrame, heading: str) -> Figure:
    """Draw the share of targets that are further than r from the other class's hull, for both directions."""
    drawing = Figure(figsize=(6.5, 4.0), layout="constrained")
    ax = drawing.subplots()
    for (_, part), color, dashes in zip(rows.groupby("target", sort=True), COLORS, ("-", "--"), strict=False):
        first = part.iloc[0]
        distance = np.sort(part["distance_lower"].to_numpy())
        share = 1 - np.arange(len(distance)) / len(distance)
        separated = int(part["separated"].sum())
        label = (
            f"{separated:,} of {len(part):,} {first['target']}s separated\nfrom the hull of "
            f"{first['hull_points']:,} {first['hull']}s; median {np.median(distance):.2f}"
        )
        ax.step(
            np.append(0.0, distance),
            np.append(share[0], share),
            where="pre",
            color=color,
            linestyle=dashes,
            label=label,
        )
    ax.set_xlabel(r"proved $\ell_2$ distance to the hull (pixels in [0, 1])")
    ax.set_ylabel("share of targets at least that far")
    ax.set_xlim(left=0)
    ax.set_ylim(0, 1.03)
    ax.legend(frameon=False, fontsize=9)
    drawing.suptitle(heading, fontsize=10)
    return drawing
