"""The table of a run: accuracy, certified radii and cost of every method, as numbers and as text.

Columns of the summary, one row for each data set, method, certificate, domain, norm and operating point:

guarantee, native, calibrated_on, calibration_others: as in the rows (:mod:`bench.kept.rows`).
resolved: whether the split that the threshold was chosen on has enough inputs of the other class to allow a false
    positive at this operating point. near_chance: whether the method has not learned: see
    :mod:`bench.report.tables.chance`.
seeds, inputs: runs, and sensitive test inputs in each. Quantities below are means over the seeds.
recall_sensitive, recall_other: share of each class's test inputs predicted as that class; an abstention is a miss.
balanced_accuracy: mean of the two recalls. All three are missing where a failed cell left no predictions.
mean_radius, median_radius: over *all* sensitive test inputs, one that is not certified counting as radius 0;
    inf where an infinite radius (the whole domain is certified) decides them.
radius_1, certified_accuracy_1, ...: certified accuracy at named radii, the same for all methods of a norm.
seconds_per_certificate, norms_in_call: seconds of the call that certifies an input, mean over the inputs that were
    predicted sensitive, and how many norms such a call covers; only equal numbers of norms compare.
certified, abstained, ...: number of rows with each outcome, over all seeds.
"""

from collections.abc import Mapping, Sequence
from decimal import ROUND_FLOOR, Context, Decimal
from typing import Any

import numpy as np
import pandas as pd

from bench.calibration import resolves
from bench.contract import Outcome
from bench.kept.rows import CURVE_KEY
from bench.report.tables.chance import near_chance
from bench.report.tables.curves import accuracy_by_seed

DEFAULT_QUANTILES = (0.25, 0.5, 0.75)
NOT_TRIED = (Outcome.MISCLASSIFIED, Outcome.UNSUPPORTED, Outcome.ERROR)


def summarise(
    radii: pd.DataFrame, predictions: pd.DataFrame, named: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Return the summary of all rows, with the columns of the module's docstring.

    named: radii to name per norm, {norm: [r, ...]}, or per data set {dataset: {norm: [r, ...]}}; where none are
    given, the quartiles of all certified radii of that data set and norm, cut to two digits.
    """
    recalls = recall_table(predictions)
    chance = near_chance(predictions)
    table = []
    for (dataset, norm), panel in radii.groupby(["dataset", "norm"], sort=True):
        at = named_radii(named or {}, dataset, norm, panel)
        for key, rows in panel.groupby(CURVE_KEY, sort=True):
            curve = dict(zip(CURVE_KEY, key, strict=True))
            place = (dataset, curve["method"], curve["operating_point"])
            recall = recalls.get(place, (np.nan, np.nan))
            table.append({**curve, **_one_curve(rows, recall, at), "near_chance": place in chance})
    frame = pd.DataFrame(table)
    # Named radii come last, however many there are.
    last = sorted(
        (name for name in frame.columns if name[-1].isdigit()), key=lambda name: name.rpartition("_")[2]
    )
    return frame[[name for name in frame.columns if name not in last] + last]


def _one_curve(rows: pd.DataFrame, recall: tuple[float, float], at: Sequence[float]) -> dict[str, Any]:
    shares, inputs = accuracy_by_seed(rows, at)
    first = rows.iloc[0]
    others = first["calibration_others"]
    radius = rows["radius"].fillna(0.0).to_numpy(dtype=float).reshape(-1)
    by_seed = [radius[positions] for positions in rows.groupby("seed").indices.values()]
    tried = ~rows["outcome"].isin(NOT_TRIED) & (rows["predicted"] == 1).fillna(False)
    counts = rows["outcome"].value_counts()
    result = {
        "guarantee": first["guarantee"],
        "native": bool(first["native"]),
        "calibrated_on": first["calibrated_on"],
        "calibration_others": others,
        "resolved": bool(pd.isna(others) or resolves(first["operating_point"], int(others))),
        "seeds": len(by_seed),
        "inputs": inputs,
        "recall_sensitive": recall[0],
        "recall_other": recall[1],
        "balanced_accuracy": (recall[0] + recall[1]) / 2,
        "mean_radius": float(np.mean([seed.mean() for seed in by_seed])),
        "median_radius": float(np.mean([np.median(seed) for seed in by_seed])),
        "seconds_per_certificate": float(rows.loc[tried, "seconds"].mean()),
        "norms_in_call": int(first["norms_in_call"]),
    }
    result |= {str(outcome): int(counts.get(outcome, 0)) for outcome in Outcome}
    for number, (radius_at, share) in enumerate(zip(at, shares.mean(axis=0), strict=True), start=1):
        result |= {f"radius_{number}": radius_at, f"certified_accuracy_{number}": float(share)}
    return result


def recall_table(predictions: pd.DataFrame) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Return {(dataset, method, operating point): (recall of the sensitive class, of the other)}, means over seeds.

    An abstention is a miss, whichever class the input has.
    """
    right = (predictions["predicted"] == predictions["label"]).fillna(False).astype(float)
    key = ["dataset", "method", "operating_point"]
    columns = [*key, "seed", "label"]
    by_seed = predictions[columns].assign(right=right).groupby(columns)["right"].mean()
    means = by_seed.groupby([*key, "label"]).mean()
    places = {place[:3] for place in means.index}
    return {place: (means.get((*place, 1), np.nan), means.get((*place, 0), np.nan)) for place in places}


def named_radii(given: Mapping[str, Any], dataset: str, norm: str, panel: pd.DataFrame) -> tuple[float, ...]:
    """Return the radii at which to name certified accuracy: those given, else quartiles of the panel's radii."""
    listed = given.get(dataset, given).get(norm)
    if listed is not None:
        return tuple(sorted(float(radius) for radius in listed))
    radii = panel["radius"].dropna().to_numpy(dtype=float)
    radii = radii[np.isfinite(radii)]
    if not len(radii):
        return ()
    return tuple(sorted({floor_digits(radius, 2) for radius in np.quantile(radii, DEFAULT_QUANTILES)}))


def floor_digits(value: float, digits: int) -> float:
    """Cut a number >= 0 to so many significant digits, never rounding up: printed radii must hold, too."""
    if value == 0 or not np.isfinite(value):
        return value
    # The shortest decimal that means this float; cutting it gives a float that is not larger.
    decimal = Decimal(repr(float(value)))
    place = Decimal(1).scaleb(decimal.adjusted() - digits + 1)
    return float(decimal.quantize(place, rounding=ROUND_FLOOR, context=Context(prec=400)))


def shown_factor(factor: float) -> str:
    """Return a ratio of radii >= 0 as text, cut to two decimals at most: 1.03 and 0.97 are told apart."""
    if not np.isfinite(factor) or factor >= 100 or 0 < factor < 0.1:
        return f"{floor_digits(factor, 2):.3g}"
    return f"{Decimal(repr(float(factor))).quantize(Decimal('0.01'), rounding=ROUND_FLOOR).normalize():f}"
