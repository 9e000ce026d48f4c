"""Two-stage sampling: a pilot's draws choose how many draws an input gets, and only those are counted.

The pilot is independent of the draws that are counted, so whatever it chooses, the confidence bound holds as it would
for a fixed number of draws. Source of the idea: Chen et al., "Input-Specific Robustness Certification for Randomized
Smoothing", AAAI 2022; the plans here are our own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from baselines.smoothing.confidence import lower_bound, upper_bound

RadiusOf = Callable[[np.ndarray], np.ndarray]

# Numbers of draws that a plan chooses among, each 5 % above the one before.
CHOICES = 100
# A pilot's posterior for p is looked at in so many equally likely parts.
POSTERIOR_PARTS = 41


@dataclass(frozen=True)
class TwoStage:
    """Plan that keeps the certified accuracy at every radius: each input may fall behind a few of the others.

    pilot: draws of the first stage, which only choose; radius_of: the radius (any one norm) of lower bounds p; loss:
    the share of the inputs that may be expected to lose their certificate at any one radius. If each input's radius
    falls to that of the input which a share ``loss`` of all lies behind it, then at every radius just this share,
    those that pass it in falling, is lost.
    """

    pilot: int
    radius_of: RadiusOf
    loss: float

    def plan(self, pilot_votes: np.ndarray, draws: int, alpha: float) -> np.ndarray:
        """Return (N,) numbers of draws, at most ``draws``, from (N,) sensitive votes in the pilot.

        The radius expected is that of the pilot's share of votes; the inputs given are those compared. One that the
        pilot shows to be hopeless (it would abstain) gets no draws.
        """
        votes, back, inputs = np.unique(pilot_votes, return_inverse=True, return_counts=True)
        choices = _choices(draws)
        counted = np.floor((votes / self.pilot)[:, None] * choices)
        radius = self.radius_of(lower_bound(counted, choices, alpha))
        full, rank = radius[:, -1], inputs.cumsum() / inputs.sum()
        fallen = np.interp(rank - self.loss, np.append(0, rank), np.append(0, full))
        # Inputs of which the pilot saw no other vote may all have p = 1 and one radius: they would pass it together.
        fallen = np.where(votes == self.pilot, full, fallen)
        planned = choices[np.argmax(radius >= fallen[:, None], axis=1)]
        hopeless = upper_bound(votes, self.pilot, alpha) < 0.5
        return np.where(hopeless, 0, planned)[back]


@dataclass(frozen=True)
class TwoStageAtRadii:
    """Plan that keeps the certified accuracy at the radii one cares for, and spends nothing on what lies between.

    radii: in the units of ``radius_of``. price: how many of these radii, as an expected number, full draws must be
    worth to an input, and a part of them that part: the one price for all inputs buys the most certified accuracy.
    """

    pilot: int
    radius_of: RadiusOf
    radii: tuple[float, ...]
    price: float

    def plan(self, pilot_votes: np.ndarray, draws: int, alpha: float) -> np.ndarray:
        """Return (N,) numbers of draws, at most ``draws``, from (N,) sensitive votes in the pilot.

        p is taken to follow the posterior of Jeffreys' prior; for each choice of draws the expected number of radii
        that will be certified follows.
        """
        choices = _choices(draws)
        needed = self._votes_needed(choices, alpha)
        distinct, back = np.unique(pilot_votes, return_inverse=True)
        parts = (np.arange(POSTERIOR_PARTS) + 0.5) / POSTERIOR_PARTS
        p = stats.beta.ppf(parts, distinct[:, None] + 0.5, self.pilot - distinct[:, None] + 0.5)
        reached = stats.binom.sf(needed - 1, choices, p[:, :, None, None]).mean(axis=1).sum(axis=1)
        worth = reached - self.price * choices / draws
        planned = np.where(worth.max(axis=1) > 0, choices[np.argmax(worth, axis=1)], 0)
        return planned[back]

    def _votes_needed(self, choices: np.ndarray, alpha: float) -> np.ndarray:
        """Return (radii, choices): the fewest votes whose radius is large enough, choice + 1 where none is."""
        wanted = np.asarray(self.radii)[:, None]
        few = np.full((len(wanted), len(choices)), -1)
        many = np.broadcast_to(choices + 1, few.shape)
        while (many - few > 1).any():
            middle = (few + many) // 2
            votes = np.clip(middle, 0, choices)
            reaches = (self.radius_of(lower_bound(votes, choices, alpha)) >= wanted) | (middle > choices)
            few, many = np.where(reaches, few, middle), np.where(reaches, middle, many)
        return many


def _choices(draws: int) -> np.ndarray:
    return np.unique(np.geomspace(max(1, draws // 100), draws, CHOICES).round().astype(np.int64))
