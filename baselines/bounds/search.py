"""Largest radius at which a lower bound of the score stays positive: a root search over a batch, one radius per input.

The bound falls as the ball grows, at first in a straight line, then faster; so a secant between the last certified and
the first uncertified radius is a far better guess than the middle. Only radii that were certified themselves are
returned, hence the result is sound even where the bound should not fall monotonically.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.bounds.propagation import OutOfTimeError

MOST_EVALUATIONS = 60
FIRST_STEP = 1e-2
LARGEST_GROWTH = 30.0
SANDWICH = 0.4
BISECT_AFTER = 3

Margin = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class SearchResult:
    """Certified radii (N,), and where (N,) the largest radius allowed was itself certified."""

    radius: Tensor
    reached_limit: Tensor


def largest_radius(
    margin: Margin,
    start: Tensor,
    at_zero: Tensor,
    limit: Tensor,
    tolerance: float,
    until: float | None = None,
    first: Tensor | None = None,
) -> SearchResult:
    """Search each input's largest certified radius in [start, limit] to a relative ``tolerance``.

    margin(index, radius) -> bound at those radii for those inputs, positive = certified; OutOfTimeError ends the
    search. start: (N,) radii known to be
    certified (0 is allowed). at_zero: (N,) margin at radius 0. Inputs with at_zero <= 0 get radius 0. until: moment of
    time.monotonic() after which nothing more is tried. first: (N,) radii to try first where nothing is certified yet.
    """
    first = FIRST_STEP * limit if first is None else torch.minimum(first, FIRST_STEP * limit)
    bracket = _Bracket(start, at_zero, limit, first)
    for _ in range(MOST_EVALUATIONS):
        active = bracket.open(tolerance).nonzero().squeeze(1)
        if len(active) == 0 or (until is not None and time.monotonic() > until):
            break
        radius = bracket.guess(tolerance)[active]
        try:
            found = margin(active, radius)
        except OutOfTimeError:
            break
        bracket.update(active, radius, found)
    return SearchResult(bracket.low, (bracket.low >= limit) & (at_zero > 0))


class _Bracket:
    """Per input: the largest certified radius, the smallest uncertified one, and the margins there."""

    def __init__(self, start: Tensor, at_zero: Tensor, limit: Tensor, first: Tensor) -> None:
        self.alive, self.limit, self.first = at_zero > 0, limit, first
        self.low = torch.where(self.alive, torch.minimum(start, limit), 0.0)
        self.high = torch.full_like(limit, torch.inf)
        self.low_margin = torch.where(start > 0, torch.nan, at_zero)
        self.high_margin = torch.full_like(limit, torch.nan)
        self.before = torch.zeros_like(limit)
        self.before_margin = at_zero.clone()
        self.run = torch.zeros_like(limit)

    def open(self, tolerance: float) -> Tensor:
        """Inputs whose bracket is still wider than the tolerance."""
        wide = self.high.isinf() | (self.high - self.low > tolerance * self.high)
        return self.alive & (self.low < self.limit) & wide

    def guess(self, tolerance: float) -> Tensor:
        """The next radius to try for each input."""
        return torch.where(self.high.isinf(), self._extrapolate(tolerance), self._interpolate(tolerance))

    def _extrapolate(self, tolerance: float) -> Tensor:
        """No uncertified radius yet: follow the line through the last two certified points, a little further.

        A start whose margin is unknown is tried just above itself: often there is nothing to gain.
        """
        slope = (self.before_margin - self.low_margin) / (self.low - self.before)
        root = 1.02 * (self.low + self.low_margin / slope)
        nothing_known = torch.where(self.low > 0, (1 + 0.9 * tolerance) * self.low, self.first)
        falls = root.isfinite() & (root > self.low)
        grown = torch.where(self.low > 0, LARGEST_GROWTH * self.low, self.limit)
        step = torch.where(
            falls, torch.minimum(root, grown), torch.where(self.low_margin > 0, grown, nothing_known)
        )
        step = torch.where(self.low > 0, step, nothing_known)
        return torch.minimum(step, self.limit)

    def _interpolate(self, tolerance: float) -> Tensor:
        """Between both ends: the secant's root, nudged to the far side of the end that moved last."""
        width = self.high - self.low
        share = self.low_margin / (self.low_margin - self.high_margin)
        share = torch.where(share.isfinite(), share, 0.5)
        root = self.low + width * share
        root = root + torch.sign(self.run) * SANDWICH * tolerance * self.high
        guess = torch.where(self.run.abs() >= BISECT_AFTER, self.low + width / 2, root)
        return torch.minimum(torch.maximum(guess, self.low + 0.02 * width), self.high - 0.02 * width)

    def update(self, index: Tensor, radius: Tensor, margin: Tensor) -> None:
        """Move one end of each bracket; an end that stays twice in a row counts for half (the Illinois rule)."""
        good = margin > 0
        up, down = index[good], index[~good]
        self.before[up], self.before_margin[up] = self.low[up], self.low_margin[up]
        self.high_margin[up] *= torch.where(self.run[up] > 0, 0.5, 1.0)
        self.low[up], self.low_margin[up] = radius[good], margin[good]
        self.run[up] = self.run[up].clamp(min=0) + 1
        self.low_margin[down] *= torch.where(self.run[down] < 0, 0.5, 1.0)
        self.high[down], self.high_margin[down] = radius[~good], margin[~good]
        self.run[down] = self.run[down].clamp(max=0) - 1
