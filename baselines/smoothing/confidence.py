"""Confidence bounds on the probability of the sensitive class, from counted votes.

Those of Clopper and Pearson (1934), and the randomised one of Stevens (1950), whose coverage is exact."""

import numpy as np
from scipy.special import betainc, betaincinv

# The quantiles of the beta distribution are accurate to a few units in the last place; this keeps bounds on their side.
BOUND_SHAVE = 1e-12
# The randomised bound stays below a failure probability smaller by this share: more than sums of quantiles err by.
ALPHA_SHAVE = 1e-9
# Halvings of the interval between two neighbouring Clopper-Pearson bounds.
BISECTIONS = 50


def lower_bound(votes: np.ndarray | int, draws: np.ndarray | int, alpha: float) -> np.ndarray:
    """Return a lower bound on P(vote is sensitive) that fails with probability at most ``alpha``.

    votes: number of sensitive votes, draws: number of draws, any shapes that broadcast; no draws bound by 0.
    """
    votes, draws = _checked(votes, draws, alpha)
    bound = betaincinv(np.maximum(votes, 1), draws - votes + 1, alpha) * (1 - BOUND_SHAVE)
    return np.where(votes > 0, bound, 0.0)


def randomised_lower_bound(
    votes: np.ndarray | int, draws: np.ndarray | int, alpha: float, uniform: np.ndarray | float
) -> np.ndarray:
    """Return the lower bound that fails with probability alpha, not less: never below ``lower_bound``.

    uniform: a number in (0, 1] for each bound, drawn for it alone and before the votes are looked at; 1 gives
    ``lower_bound``. With K ~ Binomial(draws, p) it is the p at which P(K > votes) + uniform P(K = votes) = alpha.
    Where all votes are sensitive and uniform <= alpha no p is that large, and the bound is the largest number below 1.
    Source: Stevens, Biometrika 37 (1950); for smoothing Voracek, NeurIPS 2024. Proof: docs/certificates.md.
    """
    votes, draws = _checked(votes, draws, alpha)
    uniform = np.asarray(uniform, dtype=np.float64)
    if not ((uniform > 0) & (uniform <= 1)).all():
        raise ValueError("a randomised bound needs uniform numbers in (0, 1]")
    votes, draws, uniform = np.broadcast_arrays(votes, draws, uniform)
    low = lower_bound(votes, draws, alpha)
    high = np.where(votes < draws, lower_bound(np.minimum(votes + 1, draws), draws, alpha), 1.0)
    high = np.maximum(low, np.minimum(high, np.nextafter(1.0, 0.0)))
    for _ in range(BISECTIONS):
        middle = low + (high - low) / 2
        below = _randomised_tail(middle, votes, draws, uniform) <= alpha * (1 - ALPHA_SHAVE)
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.where(draws > 0, low * (1 - BOUND_SHAVE), 0.0)


def _randomised_tail(p: np.ndarray, votes: np.ndarray, draws: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return P(K > votes) + uniform P(K = votes) for K ~ Binomial(draws, p), as a mean of two tails."""
    at_least = np.where(votes > 0, betainc(np.maximum(votes, 1), draws - votes + 1, p), 1.0)
    more = np.where(votes < draws, betainc(votes + 1, np.maximum(draws - votes, 1), p), 0.0)
    return uniform * at_least + (1 - uniform) * more


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
