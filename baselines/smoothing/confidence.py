"""Confidence bounds on the probability of the sensitive class, from counted votes (Clopper, Pearson 1934)."""

import numpy as np
from scipy.special import betaincinv

# The quantiles of the beta distribution are accurate to a few units in the last place; this keeps bounds on their side.
BOUND_SHAVE = 1e-12


def lower_bound(votes: np.ndarray | int, draws: np.ndarray | int, alpha: float) -> np.ndarray:
    """Return a lower bound on P(vote is sensitive) that fails with probability at most ``alpha``.

    votes: number of sensitive votes, draws: number of draws, any shapes that broadcast; no draws bound by 0.
    """
    votes, draws = _checked(votes, draws, alpha)
    bound = betaincinv(np.maximum(votes, 1), draws - votes + 1, alpha) * (1 - BOUND_SHAVE)
    return np.where(votes > 0, bound, 0.0)


def upper_bound(votes: np.ndarray | int, draws: np.ndarray | int, alpha: float) -> np.ndarray:
    """Return an upper bound on P(vote is sensitive) that fails with probability at most ``alpha``."""
    votes, draws = _checked(votes, draws, alpha)
    return 1 - lower_bound(draws - votes, draws, alpha)


def votes_needed(draws: int, alpha: float) -> int:
    """Return the smallest number of votes out of ``draws`` whose lower bound exceeds 1/2; draws + 1 if none does."""
    decided = lower_bound(np.arange(draws + 1), draws, alpha) > 0.5
    return int(np.argmax(decided)) if decided.any() else draws + 1


def _checked(votes: np.ndarray | int, draws: np.ndarray | int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha = {alpha}: give a failure probability between 0 and 1/2, for example 0.001")
    votes, draws = np.broadcast_arrays(np.asarray(votes, dtype=np.int64), np.asarray(draws, dtype=np.int64))
    if ((votes < 0) | (votes > draws)).any():
        raise ValueError("the number of votes must lie between 0 and the number of draws")
    return votes, draws
