"""Where a score is cut, and what probability it stands for: both learnt from scores of held-out rows."""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

# As good as no penalty, and the fit stays finite where scores separate the classes.
WEAK_PENALTY = 1e6
SMALLEST_SLOPE = 1e-6
# A threshold keeps this share of the gap that it lies in away from both scores.
EDGE = 0.05


def choose_threshold(
    scores: np.ndarray, sensitive: np.ndarray, weight: np.ndarray, other_recall: float | None = None
) -> float:
    """Return the t at which "score > t" is to mean sensitive.

    scores (N,); sensitive (N,) bool, of both kinds; weight (N,) > 0. Without ``other_recall`` the two classes' recalls
    come closest, up to half a row of the rarer class, which is more than a few held-out rows can tell; of all such
    places it is the one nearest to that which is as far from one class as from the other, in standard deviations of
    their scores. With it: the lowest t at which that share of the other class is called so, in the middle of a gap, or
    just beyond the last score.
    """
    values = np.unique(scores)
    cuts = np.concatenate([[values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1] + 1]])
    other = _share_up_to(values, scores[~sensitive], weight[~sensitive])
    caught = 1 - _share_up_to(values, scores[sensitive], weight[sensitive])
    if other_recall is not None:
        return float(cuts[np.flatnonzero(other >= other_recall - 1e-12)[0]])
    imbalance, smaller = np.abs(caught - other), np.minimum(caught, other)
    tolerance = 0.5 / min(sensitive.sum(), (~sensitive).sum())
    exact = imbalance <= imbalance.min() + 1e-12
    good = smaller >= smaller[exact].max() - tolerance
    best = np.flatnonzero(good & (imbalance <= imbalance.min() + tolerance))
    fair = _fair_place(scores, sensitive, weight)
    low, high = np.append(cuts[0], values)[best], np.append(values, cuts[-1])[best]
    margin = EDGE * (high - low)
    places = np.clip(fair, low + margin, high - margin)
    return float(places[np.abs(places - fair).argmin()])


def _fair_place(scores: np.ndarray, sensitive: np.ndarray, weight: np.ndarray) -> float:
    """Return the score that is equally many standard deviations away from both classes' means."""
    means, deviations = [], []
    for members in (sensitive, ~sensitive):
        mean = np.average(scores[members], weights=weight[members])
        means.append(mean)
        deviations.append(np.sqrt(np.average((scores[members] - mean) ** 2, weights=weight[members])))
    total = sum(deviations)
    shares = (deviations[1] / total, deviations[0] / total) if total > 0 else (0.5, 0.5)
    return float(np.dot(shares, means))


def _share_up_to(values: np.ndarray, scores: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return (V + 1,) the weighted share of scores below each cut: one before all V values, one after each of them."""
    summed = np.zeros(len(values) + 1)
    np.add.at(summed, np.searchsorted(values, scores) + 1, weight)
    share = np.cumsum(summed) / weight.sum()
    share[-1] = 1.0  # whatever the sum was rounded to
    return share


@dataclass(frozen=True)
class Probability:
    """p(sensitive) = 1 / (1 + exp(-(slope score + offset))) with slope > 0, so it rises with the score."""

    slope: float
    offset: float

    @classmethod
    def fit(
        cls, scores: np.ndarray, sensitive: np.ndarray, weight: np.ndarray, through_zero: bool = False
    ) -> "Probability":
        """Fit to scores (N,) of sensitive (N,) bool rows with weights (N,); through_zero: a score of 0 is even odds.

        Source: Platt (1999), with his targets, which are a little less than certain.
        """
        scale = float(np.abs(scores).max()) or 1.0
        positive, negative = sensitive.sum(), (~sensitive).sum()
        target = np.where(sensitive, (positive + 1) / (positive + 2), 1 / (negative + 2))
        both = np.concatenate([np.ones(len(scores)), np.zeros(len(scores))])
        shares = np.concatenate([target * weight, (1 - target) * weight])
        regression = LogisticRegression(C=WEAK_PENALTY, max_iter=1000, fit_intercept=not through_zero)
        regression.fit(np.tile(scores / scale, 2)[:, None], both, sample_weight=shares)
        slope = float(regression.coef_[0, 0]) / scale
        return cls(
            max(slope, SMALLEST_SLOPE / scale), 0.0 if through_zero else float(regression.intercept_[0])
        )

    def of(self, scores: np.ndarray) -> np.ndarray:
        """Return the probabilities (N,) of scores (N,)."""
        logit = np.clip(self.slope * scores + self.offset, -700, 700)
        return 1 / (1 + np.exp(-logit))

    def score_of(self, probability: float) -> float:
        """Return the score whose probability it is; raise ValueError for none in (0, 1)."""
        if not 0 < probability < 1:
            raise ValueError(f"probability = {probability}: must lie between 0 and 1")
        return (float(np.log(probability / (1 - probability))) - self.offset) / self.slope
