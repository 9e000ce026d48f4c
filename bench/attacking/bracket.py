"""The bracket in which the truth lies: certified accuracy below it, accuracy under attack above it.

For a sample of each method's sensitive test inputs the attack goes outwards from the certified radius until it finds
an adversarial point, then pulls that point back towards the input as far as it stays one. At radius r the robust
accuracy lies between the share certified with a radius >= r and the share with no adversarial point found within r.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor
from tqdm import tqdm

from bench.attacking.attacks import AttackSettings, norm_exact
from bench.attacking.targets import FinishedRun, Target, sample
from bench.contract import Outcome
from bench.figures.line_styles import NORM_SYMBOLS, plain_text

GROUP = ["dataset", "method", "domain", "norm", "operating_point", "seed"]
LEVELS = 9
GROWTH = 1.5
BISECTIONS = 6
# Where the search starts for an input without a certificate, as a share of the largest certified radius.
FIRST_SHARE = 0.1
DEFAULT_START = 0.01
PANEL_WIDTH, PANEL_HEIGHT = 2.9, 1.35


def bracket_rows(run: FinishedRun, radii: pd.DataFrame, limit: int, settings: AttackSettings) -> pd.DataFrame:
    """Return a row for each sampled sensitive input of each method, domain, norm and seed.

    Columns: dataset, method, domain, norm, operating_point, seed, index, certified (its largest certified radius, 0 if
    none), adversarial (norm of the smallest adversarial perturbation found, inf if none; 0 if misclassified).
    """
    tables = []
    tried = radii[~radii["outcome"].isin([Outcome.UNSUPPORTED, Outcome.ERROR, Outcome.TIMEOUT])]
    for key, rows in tqdm(tried.groupby(GROUP, sort=True), desc="bracketing", disable=None):
        group = dict(zip(GROUP, key, strict=True))
        best = rows.fillna({"radius": 0.0}).sort_values("radius").drop_duplicates("index", keep="last")
        best = sample(best.sort_values("index"), limit, "bracket", group["dataset"])
        if not (best["radius"] > 0).any():
            continue
        adversarial = np.zeros(len(best))
        sensitive = (best["predicted"] == 1).fillna(False).to_numpy(dtype=bool)
        adversarial[sensitive] = smallest_adversarial(run.target(best[sensitive], group), settings)
        values = {
            "index": best["index"],
            "certified": best["radius"].astype(float),
            "adversarial": adversarial,
        }
        tables.append(pd.DataFrame({**group, **values}))
    columns = [*GROUP, "index", "certified", "adversarial"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def smallest_adversarial(target: Target, settings: AttackSettings) -> np.ndarray:
    """Return (N,) norms of the smallest adversarial perturbations found outside each radius; inf where none was."""
    found = torch.full((len(target.x),), torch.inf, dtype=torch.float64)
    finite = target.radius[torch.isfinite(target.radius)]
    start = FIRST_SHARE * float(finite.max()) if len(finite) and finite.max() > 0 else DEFAULT_START
    reach = target.radius.clamp(min=start)
    todo = torch.nonzero(torch.isfinite(reach)).flatten()
    for level in range(LEVELS):
        if not len(todo):
            break
        part = Target(
            target.method,
            target.x[todo],
            reach[todo] * GROWTH**level * 1.05,
            target.norm,
            target.domain,
            target.seed + level,
            target.mutable,
        )
        points = norm_exact(
            part.method.score, part.x, part.radius, part.norm, part.domain, settings, part.seed, part.mutable
        ).points
        broken = part.not_sensitive(points) & part.allowed(points)
        if broken.any():
            hit = Target(part.method, part.x[broken], part.radius[broken], part.norm, part.domain, part.seed)
            found[todo[broken]] = hit.distances(_pulled_back(hit, points[broken]))
        todo = todo[~broken]
    return found.numpy()


def _pulled_back(target: Target, points: Tensor) -> Tensor:
    """Return the points (N, *shape) moved towards their inputs as far as bisection finds them adversarial still."""
    shape = (-1,) + (1,) * (points.dim() - 1)
    low, high = torch.zeros(len(points)), torch.ones(len(points))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        adversarial = target.not_sensitive(target.x + middle.view(shape).to(points) * (points - target.x))
        low, high = torch.where(adversarial, low, middle), torch.where(adversarial, middle, high)
    return target.x + high.view(shape).to(points) * (points - target.x)


def bracket_figure(table: pd.DataFrame, titles: Mapping[str, str], heading: str) -> Figure:
    """Draw one data set's brackets: a row for each method and domain, a column for each norm.

    table: columns of ``bracket_rows``; titles: of the methods, in the order of the rows.
    """
    pairs = set(zip(table["method"], table["domain"], strict=True))
    order = list(dict.fromkeys([*titles, *table["method"]]))
    lines = sorted(pairs, key=lambda pair: (order.index(pair[0]), pair[1] != "free"))
    norms = [norm for norm in NORM_SYMBOLS if norm in set(table["norm"])]
    figure = Figure(
        figsize=(1.2 + PANEL_WIDTH * len(norms), 0.9 + PANEL_HEIGHT * len(lines)), layout="constrained"
    )
    axes = figure.subplots(len(lines), len(norms), squeeze=False, sharex="col", sharey=True)
    ends = {norm: _end(table[table["norm"] == norm]) for norm in norms}
    for row, (method, domain) in enumerate(lines):
        label = plain_text(titles.get(method, method)) + (" (box)" if domain == "box" else "")
        axes[row, 0].set_ylabel(label, fontsize=7, rotation=0, ha="right", va="center")
        for column, norm in enumerate(norms):
            mine = (table["method"] == method) & (table["domain"] == domain) & (table["norm"] == norm)
            _draw_bracket(axes[row, column], table[mine], ends[norm])
    for column, norm in enumerate(norms):
        axes[0, column].set_title(NORM_SYMBOLS[norm], fontsize=9)
        axes[-1, column].set_xlabel("radius")
        axes[0, column].set_xlim(0, ends[norm])
    axes[0, 0].set_ylim(0, 1.02)
    axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1.0))
    axes[0, -1].legend(loc="upper right", fontsize=6)
    figure.suptitle(plain_text(heading), fontsize=10)
    return figure


def _draw_bracket(ax: Axes, rows: pd.DataFrame, end: float) -> None:
    ax.tick_params(labelsize=6)
    if not len(rows):
        ax.text(0.5, 0.5, "not certified", transform=ax.transAxes, ha="center", fontsize=6, color="0.4")
        return
    grid = np.unique(np.concatenate([[0.0, end], *_finite(rows)]))
    certified = shares(rows["certified"].to_numpy(), grid)
    # An adversarial point at distance r means that the input is lost from r on.
    robust = shares(np.nextafter(rows["adversarial"].to_numpy(), 0.0), grid)
    ax.fill_between(grid, certified, robust, step="pre", color="0.85", label="the truth lies here")
    ax.step(
        grid, robust, where="pre", color="tab:red", linewidth=1, linestyle="--", label="not broken by attack"
    )
    ax.step(grid, certified, where="pre", color="tab:blue", linewidth=1, label="certified")


def shares(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the share of values that are positive and >= each entry of the grid (G,)."""
    return np.array([((values > 0) & (values >= radius)).mean() for radius in grid])


def _finite(rows: pd.DataFrame) -> Sequence[np.ndarray]:
    columns = (rows[name].to_numpy() for name in ("certified", "adversarial"))
    return [values[np.isfinite(values)] for values in columns]


def _end(rows: pd.DataFrame) -> float:
    """Return where the axis ends: most of what was found, outliers left out."""
    values = np.concatenate(_finite(rows))
    return float(np.quantile(values, 0.97)) * 1.05 if values.any() else 1.0
