"""Decision regions in the plane with certified balls: two circles, the outer one sensitive.

For each feature map and norm: where the classifier says "sensitive", and around some test inputs the balls in which it
provably does, by the closed form and refined. A ball that touches the boundary cannot be enlarged.
"""

import sys

from bench.experiments._single import single

if __name__ == "__main__":  # before the imports that take seconds, which --help can do without
    sys.exit(single("decision_regions", __doc__)())

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, Polygon, Rectangle

from bench.basics.errors import UsageError
from bench.basics.files import DamagedFileError
from bench.contract import NORMS
from bench.data import Dataset, load_dataset
from bench.experiments._finished import Figures, Finished
from bench.experiments._shared import Experiment, Options, run_as_suite
from bench.kept.store import Store
from bench.methods import get_method
from bench.report.figures.identity import OWN, OWN_DARK
from bench.report.figures.line_styles import NORM_SYMBOLS
from bench.suites.suite import MethodEntry
from fcnn import FeatureConvexClassifier

EXPERIMENT = Experiment("decision_regions", "Decision regions and certified balls", "")
DATASET = "circles"
MAPS = {"identity": "φ(x) = x", "centered_abs": "φ(x) = (x - μ, |x - μ|)"}
BALLS = 9
GRID = 301
MARGIN = 0.12
REGION, CLOSED_FORM, REFINED, OTHER = "#CCE3F0", OWN, OWN_DARK, "0.45"


def run(options: Options) -> list[Path]:
    """Train both classifiers, certify, and draw the regions."""
    return run_as_suite(EXPERIMENT, options, suite_table())


def figures(finished: Finished) -> Figures:
    """The figure, from the rows and the networks that are kept beside them. Raises UsageError where they are not."""
    data, seed = load_dataset(DATASET), finished.configuration["seeds"][0]
    models = {name: trained(finished.out, name, data, seed) for name in MAPS}
    return {EXPERIMENT.name: lambda: figure(finished.rows, data, models, finished.heading(), seed)}


def suite_table() -> dict[str, Any]:
    """What runs: an FCNN with each feature map."""
    return {
        "datasets": [DATASET],
        "methods": [
            {"method": "fcnn", "id": name, "title": title, "settings": settings_of(name)}
            for name, title in MAPS.items()
        ],
    }


def settings_of(feature_map: str) -> dict[str, Any]:
    """Settings of one entry."""
    return {
        "feature_map": feature_map,
        "hidden": [32, 16],
        "gradient_weights": {},
        "certificates": ["closed_form:free", "refined:free"],
        "train": {"epochs": 200, "batch_size": 64, "learning_rate": 5e-3},
    }


def trained(out: Path, feature_map: str, data: Dataset, seed: int) -> FeatureConvexClassifier:
    """Return the classifier that the suite has stored. Raises UsageError where it is not there."""
    try:
        state = Store(out).cell(DATASET, feature_map, seed).read_state()
    except DamagedFileError as error:
        raise UsageError(
            f"the networks whose regions are drawn are not in {str(out)!r} ({error}): run without --redraw"
        ) from error
    entry = MethodEntry("fcnn", id=feature_map, settings=settings_of(feature_map))
    method = get_method("fcnn")(entry.settings_for(DATASET))
    method.build(data.input_shape, 0)
    method.load_state(state or {})
    assert isinstance(method.model, FeatureConvexClassifier)
    return method.model


def figure(
    radii: pd.DataFrame,
    data: Dataset,
    models: Mapping[str, FeatureConvexClassifier],
    heading: str,
    seed: int,
) -> Figure:
    """Draw a row of panels for each feature map, a panel for each norm."""
    drawing = Figure(figsize=(9.0, 6.9), layout="constrained")
    axes = drawing.subplots(len(models), len(NORMS), sharex=True, sharey=True, squeeze=False)
    shown = spread_by_angle(data)
    for row, (name, model) in enumerate(models.items()):
        for column, norm in enumerate(NORMS):
            ax = axes[row, column]
            _region(ax, model)
            ax.scatter(*data.x_test[data.y_test == 0].T, s=4, color=OTHER, marker="x", linewidths=0.6)
            ax.scatter(*data.x_test[data.y_test == 1].T, s=4, color="black", linewidths=0)
            chosen = radii[(radii["method"] == name) & (radii["norm"] == norm) & (radii["seed"] == seed)]
            _balls(ax, data, chosen, norm, shown)
            ax.set_title(f"{MAPS[name]}, {NORM_SYMBOLS[norm]}", fontsize=9)
            ax.set_aspect("equal")
            ax.set_xlim(-MARGIN, 1 + MARGIN)
            ax.set_ylim(-MARGIN, 1 + MARGIN)
            ax.grid(False)
    drawing.suptitle(heading, fontsize=10)
    drawing.legend(handles=_legend(), loc="outside lower center", ncols=5, frameon=False, fontsize=8.5)
    return drawing


def spread_by_angle(data: Dataset) -> list[int]:
    """Return test indices of sensitive inputs, one for each of BALLS directions from the centre."""
    sensitive = np.flatnonzero(data.y_test == 1)
    offset = data.x_test[sensitive] - data.x_train.mean(axis=0)
    angle = np.arctan2(offset[:, 1], offset[:, 0])
    wanted = np.linspace(-np.pi, np.pi, BALLS, endpoint=False)
    away = np.abs(np.angle(np.exp(1j * (angle[None] - wanted[:, None]))))
    return sorted(set(sensitive[away.argmin(axis=1)].tolist()))


def _region(ax: Axes, model: FeatureConvexClassifier) -> None:
    line = np.linspace(-MARGIN, 1 + MARGIN, GRID)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    with torch.no_grad():
        score = model.frozen().score(torch.from_numpy(grid)).numpy().reshape(GRID, GRID)
    ax.contourf(line, line, score, levels=[0, score.max() + 1], colors=[REGION])
    ax.contour(line, line, score, levels=[0], colors="black", linewidths=1.0)


def _balls(ax: Axes, data: Dataset, rows: pd.DataFrame, norm: str, shown: Sequence[int]) -> None:
    for certificate, color, dashes in (("refined", REFINED, "--"), ("closed_form", CLOSED_FORM, "-")):
        part = rows[(rows["certificate"] == certificate) & rows["index"].isin(shown)].dropna(subset="radius")
        for index, radius in zip(part["index"], part["radius"].astype(float), strict=True):
            centre = data.x_test[index]
            ax.add_patch(
                _ball(centre, radius, norm, fill=False, edgecolor=color, linestyle=dashes, linewidth=1.2)
            )


def _ball(centre: np.ndarray, radius: float, norm: str, **look: Any) -> Patch:
    if norm == "l2":
        return Circle(tuple(centre), radius, **look)
    if norm == "linf":
        return Rectangle(tuple(centre - radius), 2 * radius, 2 * radius, **look)
    return Polygon(centre + radius * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]]), closed=True, **look)


def _legend() -> list[Any]:
    return [
        Patch(facecolor=REGION, edgecolor="black", label="predicted sensitive"),
        Line2D(
            [], [], color="black", marker="o", markersize=3, linestyle="none", label="sensitive test input"
        ),
        Line2D([], [], color=OTHER, marker="x", markersize=4, linestyle="none", label="other test input"),
        Line2D([], [], color=CLOSED_FORM, label="closed form"),
        Line2D([], [], color=REFINED, linestyle="--", label="refined"),
    ]
