"""Certified accuracy over the radius: the curves of the figures, with their 95 % band.

Certified accuracy at r is the share of *sensitive test inputs* that are classified right and certified with a
radius >= r. Every sensitive input is in the denominator, also those that were abstained on, timed out or failed.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from bench.contract import Outcome
from bench.kept.rows import CURVE_KEY

CURVE_COLUMNS = (
    "dataset",
    "method",
    "certificate",
    "norm",
    "domain",
    "operating_point",
    "radius",
    "certified_accuracy",
    "lower",
    "upper",
    "seeds",
    "inputs",
)
ENVELOPE = "best at each radius"
LINEAR_POINTS = 201
LOG_POINTS = 101


def certified_curves(radii: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return the certified-accuracy curves of all rows, with the columns CURVE_COLUMNS.

    All curves of one data set and norm share one grid of radii, so they can be compared line by line. ``inputs`` is
    the number of sensitive test inputs, ``seeds`` the number of runs averaged; ``lower`` and ``upper`` are the band
    of :func:`confidence_band`.
    """
    curves = []
    for _, panel in radii.groupby(["dataset", "norm"], sort=True):
        grid = radius_grid(panel["radius"].dropna().to_numpy(dtype=float))
        for key, rows in panel.groupby(CURVE_KEY, sort=True):
            shares, inputs = accuracy_by_seed(rows, grid)
            lower, upper = confidence_band(shares, inputs, confidence)
            curve = {
                **dict(zip(CURVE_KEY, key, strict=True)),
                "radius": grid,
                "certified_accuracy": shares.mean(axis=0),
                "lower": lower,
                "upper": upper,
                "seeds": len(shares),
                "inputs": inputs,
            }
            curves.append(pd.DataFrame(curve))
    empty = pd.DataFrame(columns=list(CURVE_COLUMNS))
    return pd.concat(curves, ignore_index=True)[list(CURVE_COLUMNS)] if curves else empty


def envelopes(curves: pd.DataFrame, families: Mapping[str, str]) -> pd.DataFrame:
    """Return, for each family of methods, its best member's certified accuracy at every radius, as further curves.

    families: method -> name of its family, which stands in the column ``method``; the certificate is ENVELOPE. The
    member is chosen on the test inputs, radius by radius, so no single classifier has this curve: it shows what the
    choice of a noise level could at most have bought, and is no certificate at any alpha. (Worse would be the largest
    radius of each input over the members: it fails where any of them does, and so spends alpha once for each.) The band
    is that of the member chosen.
    """
    members = curves[curves["method"].isin(families)]
    if members.empty:
        return curves.iloc[:0]
    members = members.assign(method=members["method"].map(families), certificate=ENVELOPE)
    key = [*CURVE_KEY, "radius"]
    best = members.groupby(key, sort=True)["certified_accuracy"].idxmax()
    return members.loc[best].reset_index(drop=True)


def radius_grid(radii: np.ndarray) -> np.ndarray:
    """Return increasing radii (G,) from 0 to just past the largest finite one, dense on linear and log axes."""
    finite = radii[np.isfinite(radii) & (radii > 0)]
    if not len(finite):
        return np.linspace(0.0, 1.0, LINEAR_POINTS)
    smallest, largest = finite.min(), finite.max()
    linear = np.linspace(0.0, largest, LINEAR_POINTS)
    # The largest radius itself, and a point past it where the curve has fallen to the share of infinite radii.
    ends = [largest, 1.02 * largest]
    return np.unique(np.concatenate([linear, np.geomspace(smallest, largest, LOG_POINTS), ends]))


def accuracy_by_seed(rows: pd.DataFrame, grid: ArrayLike) -> tuple[np.ndarray, int]:
    """Return (certified accuracies (S, G) of one curve's S seeds at the radii (G,), sensitive inputs per seed).

    Raises ValueError if the seeds were run on different numbers of inputs.
    """
    shares, counts = [], set()
    for _, seed in rows.groupby("seed", sort=True):
        certified = seed.loc[seed["outcome"] == Outcome.CERTIFIED, "radius"].to_numpy(dtype=float)
        at_least = len(certified) - np.searchsorted(np.sort(certified), grid, side="left")
        shares.append(at_least / len(seed))
        counts.add(len(seed))
    if len(counts) != 1:
        raise ValueError(f"the seeds of a curve have {sorted(counts)} rows: run them on the same test inputs")
    return np.stack(shares), counts.pop()


def confidence_band(
    shares: np.ndarray, inputs: int, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Return the band (lower (G,), upper (G,)) around the mean of certified accuracies (S, G) over S seeds.

    One seed: the Clopper-Pearson interval for k successes among the test inputs (Clopper and Pearson, Biometrika
    1934). Several seeds: all are tested on the same inputs, so their spread shows training and sampling noise only,
    and the choice of test inputs comes on top. The two are independent, so the half-width of a t-interval over seeds
    and the distance to the Clopper-Pearson end at the mean count are added in quadrature. Clipped to [0, 1].
    """
    mean = shares.mean(axis=0)
    lower, upper = clopper_pearson(mean * inputs, inputs, confidence)
    seeds = len(shares)
    if seeds == 1:
        return lower, upper
    quantile = stats.t.ppf((1 + confidence) / 2, seeds - 1)
    between = quantile * shares.std(axis=0, ddof=1) / np.sqrt(seeds)
    below = np.hypot(mean - lower, between)
    above = np.hypot(upper - mean, between)
    return np.clip(mean - below, 0.0, 1.0), np.clip(mean + above, 0.0, 1.0)


def clopper_pearson(
    successes: np.ndarray, trials: int, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Return the two-sided exact interval (lower, upper) of a binomial proportion, for any shape of successes.

    The mean of several counts need not be whole; the beta quantiles interpolate between whole counts.
    """
    successes = np.asarray(successes, dtype=float)
    tail = (1 - confidence) / 2
    # At the ends one of the beta parameters is 0, where the interval ends at 0 or 1 by definition.
    lower = stats.beta.ppf(tail, np.maximum(successes, 1e-300), trials - successes + 1)
    upper = stats.beta.ppf(1 - tail, successes + 1, np.maximum(trials - successes, 1e-300))
    return np.where(successes <= 0, 0.0, lower), np.where(successes >= trials, 1.0, upper)
