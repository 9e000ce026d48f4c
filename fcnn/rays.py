"""Where a convex score falls to 0 on rays, from few evaluations."""

import math

import torch
from torch import Tensor

OVERSHOOT = 1.5


class Crossings:
    """Brackets of the crossings on N rays, level 0 being the start with a positive score, level 1 tried first.

    Evaluate the score at ``level`` (N,) and report it to ``update``. On a ray along which the score is convex the
    crossing is never before the root of the last chord of positive scores; further tries overshoot that root, the
    more so the more often that was not enough, until a score <= 0 closes the bracket. ``tolerance`` (N,) is relative.
    No level beyond ``farthest`` (N,) is tried: far out, where a score that hardly falls would have its root, rounding
    drowns it.
    """

    def __init__(self, score: Tensor, tolerance: Tensor, farthest: Tensor) -> None:
        self.tolerance, self.farthest = tolerance, farthest
        self.level = torch.ones_like(score).minimum(farthest)
        self._positive, self._score = torch.zeros_like(score), score.clone()
        self._floor = torch.zeros_like(score)
        self._found = torch.full_like(score, math.inf)
        self._overshoot = torch.full_like(score, OVERSHOOT)

    def open(self) -> Tensor:
        """Indices of the rays whose crossing is not known well enough."""
        unknown = self._found.isinf() | (self._found - self._floor > self.tolerance * self._found)
        return (unknown & (self._positive < self.farthest)).nonzero()[:, 0]

    def update(self, rows: Tensor, score: Tensor) -> None:
        """Take in the scores of these rays at their levels, and choose their next levels."""
        level, positive, before = self.level[rows], self._positive[rows], self._score[rows]
        above = score > 0
        # Where the chord through the last positive score and this one meets 0; never for one that does not fall.
        root = positive + before * (level - positive) / (before - score).clamp(min=0)
        floor = torch.where(
            above & root.isfinite(), torch.maximum(root, self._floor[rows]), self._floor[rows]
        )
        beyond = level + self._overshoot[rows] * (root - level) + self.tolerance[rows] * level
        found = torch.where(above, self._found[rows], torch.minimum(level, self._found[rows]))
        ceiling = torch.where(above, found, torch.minimum(root, found))
        following = torch.where(found.isinf(), beyond, (floor + ceiling) / 2)
        following = torch.where(following.isfinite(), following, 2 * level)
        self.level[rows] = following.minimum(self.farthest[rows])
        self._overshoot[rows] = torch.where(above, 2 * self._overshoot[rows], OVERSHOOT)
        self._positive[rows] = torch.where(above, level, positive)
        self._score[rows] = torch.where(above, score, before)
        self._floor[rows], self._found[rows] = floor, found
