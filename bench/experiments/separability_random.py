"""Uniform random data: how often a convex set holds N points and none of M others, against three lower bounds.

Each trial draws M + N points uniformly from the cube and asks whether any of the M lies in the convex hull of the N:
first by their bounding box, then by non-negative least squares, whose residual is a separating direction when there is
one. The interval is Clopper and Pearson's, at a level so high that all of the grid's intervals hold together.
"""

import sys

from bench.experiments._single import single

if __name__ == "__main__":  # before the imports that take seconds, which --help can do without
    sys.exit(single("separability_random", __doc__)())

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.optimize import nnls

from bench.basics.seeds import derive_seed
from bench.experiments._finished import Figures, Finished
from bench.experiments._shared import Experiment, Options, Rows, finish, run_units
from bench.report.tables.curves import clopper_pearson
from bench.running.provenance import RunClock
from fcnn.separability_bounds import box_bound, interval_bound, one_sided_bound

EXPERIMENT = Experiment(
    "separability_random",
    "Convex separability of uniform random data",
    "1,500 instead of 10,000 trials for each M, N, d",
)
SIZES = (1, 2, 5, 10, 20)
DIMENSIONS = (1, 2, 3, 5, 8, 12, 20)
TRIALS, TRIALS_REDUCED = 10_000, 1_500
# 175 intervals hold together with probability 0.998.
CONFIDENCE = 0.99999
TOLERANCE = 1e-9
BOUNDS = {
    "one_sided": (one_sided_bound, "bound 1 (the paper's)", "#0072B2", ":"),
    "interval": (interval_bound, "bound 2 (interval)", "#D55E00", "--"),
    "box": (box_bound, "bound 3 (box)", "#009E73", "-"),
}
DRAWN = (5, 10, 20)


def run(options: Options) -> list[Path]:
    """Draw, count, compare with the bounds, and plot."""
    clock = RunClock()
    trials = TRIALS_REDUCED if options.reduced else TRIALS
    units = {
        f"d{dimension}-seed{seed}": (dimension, trials, seed)
        for dimension, seed in product(DIMENSIONS, options.seeds)
    }
    counts = run_units(EXPERIMENT, options, units, count_dimension)
    rows = with_bounds(counts)
    settings = {"sizes": SIZES, "dimensions": DIMENSIONS, "trials": trials, "confidence": CONFIDENCE}
    return finish(EXPERIMENT, options, rows, settings, clock)


def figures(finished: Finished) -> Figures:
    """The figure, from the rows."""
    return {EXPERIMENT.name: lambda: figure(finished.rows, finished.heading())}


def count_dimension(dimension: int, trials: int, seed: int) -> Rows:
    """Count separable draws for every (M, N) in one dimension."""
    rows = []
    for others, inside in product(SIZES, SIZES):
        rng = np.random.default_rng(derive_seed(EXPERIMENT.name, seed, dimension, others, inside))
        found = sum(
            separable(rng.random((others, dimension)), rng.random((inside, dimension))) for _ in range(trials)
        )
        rows.append(
            {
                "M": others,
                "N": inside,
                "d": dimension,
                "seed": seed,
                "trials": trials,
                "separable": int(found),
            }
        )
    return rows


def separable(others: np.ndarray, inside: np.ndarray) -> bool:
    """Say whether none of others (M, d) lies in the convex hull of inside (N, d)."""
    boxed = ((others >= inside.min(axis=0)) & (others <= inside.max(axis=0))).all(axis=1)
    if inside.shape[1] == 1:
        return not boxed.any()
    lifted = np.vstack([inside.T, np.ones(len(inside))])
    return all(nnls(lifted, np.append(point, 1.0))[1] > TOLERANCE for point in others[boxed])


def with_bounds(counts: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each (M, N, d), seeds added up, with the share, its interval and the three bounds."""
    rows = counts.groupby(["M", "N", "d"], as_index=False)[["trials", "separable"]].sum()
    rows["share"] = rows["separable"] / rows["trials"]
    limits = [clopper_pearson(np.array([row.separable]), row.trials, CONFIDENCE) for row in rows.itertuples()]
    rows["lower"], rows["upper"] = ([float(limit[side][0]) for limit in limits] for side in (0, 1))
    for name, (bound, *_) in BOUNDS.items():
        rows[name] = [bound(row.M, row.N, row.d) for row in rows.itertuples()]
    rows["below_a_bound"] = rows["upper"] < rows[list(BOUNDS)].max(axis=1)
    return rows


def figure(rows: pd.DataFrame, heading: str) -> Figure:
    """Draw the share and the bounds over d, a panel for each (M, N)."""
    drawing = Figure(figsize=(8.0, 7.0), layout="constrained")
    axes = drawing.subplots(len(DRAWN), len(DRAWN), sharex=True, sharey=True)
    for (row, others), (column, inside) in product(enumerate(DRAWN), enumerate(DRAWN)):
        ax = axes[row, column]
        panel = rows[(rows["M"] == others) & (rows["N"] == inside)].sort_values("d")
        error = [panel["share"] - panel["lower"], panel["upper"] - panel["share"]]
        ax.errorbar(
            panel["d"],
            panel["share"],
            error,
            fmt="o",
            color="black",
            markersize=3.5,
            capsize=2,
            label="Monte Carlo",
        )
        for name, (_, label, color, dashes) in BOUNDS.items():
            ax.plot(panel["d"], panel[name], color=color, linestyle=dashes, linewidth=1.4, label=label)
        ax.set_title(f"M = {others}, N = {inside}", fontsize=9)
        ax.set_ylim(-0.03, 1.03)
    for ax in axes[-1]:
        ax.set_xlabel("dimension d")
    for ax in axes[:, 0]:
        ax.set_ylabel("P(separable)")
    broken = int(rows["below_a_bound"].sum())
    verdict = "below no bound" if not broken else f"below a bound at {broken} points"
    facts = f"{rows['trials'].iloc[0]:,} trials a point; {CONFIDENCE:.3%} intervals: {verdict} (all {len(rows)} points)"
    drawing.suptitle(f"{heading}\n{facts}", fontsize=10)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return drawing
