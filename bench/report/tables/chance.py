"""Which classifiers have not learned: no opponent, whatever their certificates say.

At one data set and operating point a method is *near chance* if its balanced accuracy (mean of the two recalls, over
all seeds)

* is not above 1/2 by more than the 95 % band that so few test inputs leave, as if it tossed a coin; or
* stands above 1/2 by less than half of what the best method reaches there: a network that finds a fifth of the
  sensitive inputs where others find all of them is no opponent either.

A classifier that calls everything sensitive is certified everywhere, so without this mark it would be the best.
"""

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
LEAST_SHARE = 0.5
PLACE = ["dataset", "operating_point"]


def near_chance(predictions: pd.DataFrame) -> set[tuple[str, str, str]]:
    """Return the (dataset, method, operating point) whose predictions show that it has not learned."""
    if predictions.empty:
        return set()
    right = (predictions["predicted"] == predictions["label"]).fillna(False).astype(float)
    key = [*PLACE, "method", "label"]
    by_class = predictions.assign(right=right).groupby([*key, "seed"])["right"].agg(["mean", "size"])
    recalls = by_class["mean"].groupby(key).mean().unstack("label").reindex(columns=[0, 1])
    inputs = by_class["size"].groupby(key).min().unstack("label").reindex(columns=[0, 1])
    accuracy = recalls.mean(axis=1, skipna=False)
    above = accuracy - 0.5
    # Half the sum of two independent shares; of one seed's inputs, as all seeds are tested on the same.
    spread = np.sqrt((recalls * (1 - recalls) / inputs).sum(axis=1)) / 2
    quantile = stats.norm.ppf((1 + CONFIDENCE) / 2)
    best = above.groupby(PLACE).transform("max")
    marked = (above <= quantile * spread) | (above < LEAST_SHARE * best)
    return {(dataset, method, point) for dataset, point, method in marked[marked].index}
