"""The run's table of certified recalls over false positive rates, from the tables of its cells."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench.kept.roc import ROC_COLUMNS, certified_share, median_radius
from bench.report.tables.summary import named_radii


def roc_table(roc: pd.DataFrame, radii: pd.DataFrame, named: Mapping[str, Any]) -> pd.DataFrame:
    """Return what a run's folder keeps of the cells' tables: one row for each curve, norm, seed and threshold.

    Columns: those of a cell's table but the radii; median_radius, over all sensitive test inputs; radius_1,
    certified_recall_1, ...: the share of them with a radius of at least that, at the radii the summary names.
    radii: the run's rows; named: as in ``summarise``.
    """
    rows = []
    for (dataset, norm), panel in roc.groupby(["dataset", "norm"], sort=True):
        own = radii[(radii["dataset"] == dataset) & (radii["norm"] == norm)]
        at = named_radii(named, str(dataset), str(norm), own)
        for row in panel.to_dict("records"):
            found, inputs = np.asarray(row.pop("radii"), dtype=float), row["inputs"]
            row["median_radius"] = median_radius(found, inputs)
            for number, radius in enumerate(at, start=1):
                row |= {
                    f"radius_{number}": radius,
                    f"certified_recall_{number}": certified_share(found, inputs, radius),
                }
            rows.append(row)
    kept = [name for name in ROC_COLUMNS if name != "radii"] + ["median_radius"]
    frame = pd.DataFrame(rows)
    return frame[[*kept, *sorted(set(frame.columns) - set(kept), key=_number)]] if rows else frame


def mean_over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Return the means over the seeds of ``roc_table``'s numbers at each number of false positives that all reach."""
    key = ["dataset", "method", "certificate", "domain", "norm"]
    seeds = table.groupby(key)["seed"].transform("nunique")
    place = [*key, "false_positives"]
    # Scores that tie give two thresholds the same count: the lower one certifies at least as much.
    best = table.sort_values("threshold").drop_duplicates([*place, "seed"])
    whole = best.groupby(place)["seed"].transform("count") == seeds.loc[best.index]
    return best[whole].drop(columns=["seed", "threshold"]).groupby(place, as_index=False).mean()


def _number(column: str) -> tuple[int, str]:
    return int(column.rpartition("_")[2]), column
