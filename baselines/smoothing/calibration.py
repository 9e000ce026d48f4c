"""The class-balancing threshold of a smoothed classifier, from noisy scores of validation inputs."""

import numpy as np
from torch import Tensor

from baselines.smoothing.confidence import votes_needed


def decision_scores(scores: Tensor, draws: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) low and (N,) high: with threshold t an input is sensitive iff t < low, not sensitive iff t >= high.

    scores: (N, m) noisy scores of each input. In between it abstains: neither side has the share of votes that a
    decision from ``draws`` draws at level ``alpha`` needs. Raises ValueError where no number of votes would decide.
    """
    needed = votes_needed(draws, alpha)
    if needed > draws:
        raise ValueError(f"{draws} draws can never decide at alpha = {alpha}: draw more or raise alpha")
    ordered = np.sort(scores.double().cpu().numpy(), axis=1)
    count = ordered.shape[1]
    position = min(count, int(np.ceil(needed / draws * count)))
    return ordered[:, count - position], ordered[:, position - 1]


def balanced_threshold(low: np.ndarray, high: np.ndarray, y: np.ndarray) -> float:
    """Return the threshold for which the recalls of the two classes are closest.

    low, high: (N,) from :func:`decision_scores`; y: (N,) with 1 = sensitive, both classes present. An abstention counts
    against the recall of the input's class. Among equally balanced thresholds the one with the highest smaller recall
    wins, then the one closest to 0. Raises ValueError when a class is missing.
    """
    sensitive = np.asarray(y) > 0.5
    if not sensitive.any() or sensitive.all():
        raise ValueError("a balanced threshold needs inputs of both classes: found only one")
    values = np.unique(np.concatenate((low[sensitive], high[~sensitive], [0.0])))
    candidates = np.concatenate((values, (values[1:] + values[:-1]) / 2))
    recall = _share_above(low[sensitive], candidates)
    recall_other = 1 - _share_above(high[~sensitive], candidates)
    imbalance, smaller = np.abs(recall - recall_other), np.minimum(recall, recall_other)
    best = np.lexsort((np.abs(candidates), -smaller, imbalance))[0]
    return float(candidates[best])


def _share_above(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return, per threshold, the share of scores strictly above it."""
    return 1 - np.searchsorted(np.sort(scores), thresholds, side="right") / len(scores)
