"""The bracket in which the truth lies: certified accuracy below it, accuracy under attack above it.

For a sample of each method's sensitive test inputs the attack goes outwards from the certified radius until it finds
an adversarial point, then pulls that point back towards the input as far as it stays one. At radius r the robust
accuracy lies between the share certified with a radius >= r and the share with no adversarial point found within r.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from bench.attacking.attacks import AttackSettings, norm_exact
from bench.attacking.targets import FinishedRun, Target, sample
from bench.contract import Outcome

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
