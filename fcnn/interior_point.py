"""A batched primal-dual interior-point method for the linear programs of a refinement in ℓ1 and ℓ∞.

minimise cost Σ x_i over 0 <= x <= room, subject to offset_j + slope_j · x <= level for every cut j

ℓ1: x = (p, n), the two sides of δ = p - n, cost 1, level 0. ℓ∞: x = δ - lower within |δ_i| <= r, cost 0, and the level
is what is minimised. A cut's multiplier is its weight λ_j. Each step solves one K x K system, K the number of cuts.
Source of the method: Wright, Primal-Dual Interior-Point Methods (1997), chapters 1 and 5 (path following, bounds).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

STEP_TO_BOUNDARY = 0.9
START_WEIGHT = 0.95
TINY = 1e-12


@dataclass(frozen=True)
class Cuts:
    """Cuts offsets_j + slopes_j · δ <= 0 and bounds on δ, in units where the margin is 1 and the radius about 1.

    slopes (N, K, d), offsets (N, K), lower <= 0 <= upper (N, d), radius (N, 1): certified so far.
    """

    slopes: Tensor
    offsets: Tensor
    lower: Tensor
    upper: Tensor
    radius: Tensor

    def within(self, length: Tensor | float) -> Self:
        """The same cuts with |δ_i| <= length as well."""
        return replace(self, lower=self.lower.clamp(min=-length), upper=self.upper.clamp(max=length))

    def to(self, dtype: torch.dtype) -> Self:
        """The same cuts in another precision."""
        return replace(self, **{part.name: getattr(self, part.name).to(dtype) for part in fields(self)})

    def combine(self, weights: Tensor) -> Tensor:
        """Σ_j λ_j a_j, (N, d)."""
        return torch.bmm(weights[:, None], self.slopes)[:, 0]

    def values(self, step: Tensor) -> Tensor:
        """m_j + a_j · δ, (N, K)."""
        return self.offsets + torch.bmm(self.slopes, step[:, :, None])[:, :, 0]

    def curvature(self, give: Tensor, slack: Tensor, weights: Tensor) -> Tensor:
        """A diag(give) Aᵀ + diag(slack / λ), (N, K, K)."""
        system = torch.bmm(self.slopes * give[:, None], self.slopes.transpose(1, 2))
        return system + torch.diag_embed(slack / weights + TINY)


def solve_rows(systems: Tensor, sides: Tensor) -> Tensor:
    """Solve each row's system (N, K, K) for its right-hand sides (N, K, c); a singular one spoils its own row only."""
    return torch.linalg.solve_ex(systems, sides)[0]


def longest(values: Tensor, change: Tensor) -> Tensor:
    """Step length (N, 1) <= 1 that keeps positive values (N, ...) positive."""
    reach = (-change / values).amax(1, keepdim=True)
    return STEP_TO_BOUNDARY / reach.clamp(min=STEP_TO_BOUNDARY)


class InteriorPoint(ABC):
    """State of the programs: x = ``parts`` with multipliers ``at_zero`` and ``at_room`` of its bounds; λ and slacks.

    It starts on the central path at ``weights`` (N, K) > 0: parts, multipliers and slacks that belong to these
    weights at barrier ``first_barrier``. Near the solution of a program with one cut less that is a good start.
    """

    cost: ClassVar[float]
    first_barrier: ClassVar[float]
    centering: ClassVar[float]
    steps: ClassVar[int]

    def __init__(self, cuts: Cuts, room: Tensor, weights: Tensor) -> None:
        self.cuts, self.weights = cuts, weights
        self.movable = room > TINY
        # A part without room is given some, but no influence on the cuts: it stays out of the way.
        self.room = torch.where(self.movable, room, 1.0)
        barrier = self.first_barrier / cuts.slopes.shape[2]
        price = self.cost + self._spread(cuts.combine(weights))
        # What is left of the room is kept apart: as a difference it would round to 0 in float32.
        self.parts, self.left = _central(price, self.room, barrier), _central(-price, self.room, barrier)
        self.at_zero, self.at_room = barrier / self.parts, barrier / self.left
        self.slack = self._first_slack(barrier)

    def solve(self) -> tuple[Tensor, Tensor]:
        """Weights λ (N, K) and perturbation δ (N, d) after the class's number of steps."""
        for _ in range(self.steps):
            self._advance()
        return self.weights, self._perturbation()

    def _advance(self) -> None:
        """One Newton step on the conditions of the central path, towards a smaller barrier."""
        left, barrier = self.left, self._barrier()
        price = self.cost + self._spread(self.cuts.combine(self.weights))
        give = self.movable / (self.at_zero / self.parts + self.at_room / left)
        residual = price - barrier / self.parts + barrier / left
        # Where the parts would go, were the weights to stay: the cuts' values there drive the weights.
        aim = self.cuts.values(self._gather(self.parts - give * residual))
        system = self.cuts.curvature(self._gather_give(give), self.slack, self.weights)
        weights = self._newton(system, aim + barrier / self.weights)
        parts = -give * (residual + self._spread(self.cuts.combine(weights)))
        self._move(barrier, parts, weights)

    def _move(self, barrier: Tensor, parts: Tensor, weights: Tensor) -> None:
        """Take the step that the changes of parts and weights imply, primal and dual lengths apart."""
        left = self.left
        at_zero = barrier / self.parts - self.at_zero * (1 + parts / self.parts)
        at_room = barrier / left - self.at_room * (1 - parts / left)
        slack = (barrier - self.slack * weights) / self.weights - self.slack
        primal = torch.minimum(longest(self.parts, parts), longest(left, -parts))
        primal = torch.minimum(primal, longest(self.slack, slack))
        dual = torch.minimum(longest(self.at_zero, at_zero), longest(self.at_room, at_room))
        dual = torch.minimum(dual, longest(self.weights, weights))
        self.parts, self.left = self.parts + primal * parts, left - primal * parts
        self.slack = self.slack + primal * slack
        self.at_zero, self.at_room = self.at_zero + dual * at_zero, self.at_room + dual * at_room
        self.weights = self.weights + dual * weights

    def _barrier(self) -> Tensor:
        """The barrier to aim for: a fraction of the mean product of the pairs, (N, 1)."""
        bounds = (self.parts * self.at_zero + self.left * self.at_room).sum(1, keepdim=True)
        pairs = 2 * self.parts.shape[1] + self.weights.shape[1]
        return self.centering / pairs * (bounds + (self.slack * self.weights).sum(1, keepdim=True))

    @abstractmethod
    def _first_slack(self, barrier: float) -> Tensor:
        """Slacks of the cuts to start from, (N, K) > 0."""

    @abstractmethod
    def _spread(self, slope: Tensor) -> Tensor:
        """The parts' share of a slope in δ, 0 for parts that cannot move."""

    @abstractmethod
    def _gather(self, parts: Tensor) -> Tensor:
        """The move in δ that the parts make, (N, d)."""

    @abstractmethod
    def _gather_give(self, give: Tensor) -> Tensor:
        """How far δ_i gives way to its price, from the parts', (N, d)."""

    @abstractmethod
    def _newton(self, system: Tensor, push: Tensor) -> Tensor:
        """Change of the weights, (N, K)."""

    @abstractmethod
    def _perturbation(self) -> Tensor:
        """δ, (N, d)."""


class L1Program(InteriorPoint):
    """min Σ (p_i + n_i) with all cuts of p - n satisfied."""

    cost = 1.0
    first_barrier = 1.28
    centering = 0.15
    steps = 7

    def __init__(self, cuts: Cuts, weights: Tensor) -> None:
        room = torch.cat([cuts.upper, -cuts.lower], 1)
        super().__init__(cuts, room, weights * _knapsack_scale(cuts, weights))

    def _first_slack(self, barrier: float) -> Tensor:
        return barrier / self.weights

    def _spread(self, slope: Tensor) -> Tensor:
        return torch.cat([slope, -slope], 1) * self.movable

    def _gather(self, parts: Tensor) -> Tensor:
        up, down = (parts * self.movable).chunk(2, dim=1)
        return up - down

    def _gather_give(self, give: Tensor) -> Tensor:
        up, down = give.chunk(2, dim=1)
        return up + down

    def _newton(self, system: Tensor, push: Tensor) -> Tensor:
        return solve_rows(system, push[:, :, None])[:, :, 0]

    def _perturbation(self) -> Tensor:
        return self._gather(self.parts)


class LinfProgram(InteriorPoint):
    """min over |δ_i| <= r, lower <= δ <= upper of the largest cut; the weights λ sum to 1."""

    cost = 0.0
    first_barrier = 0.1
    centering = 0.1
    steps = 8

    def __init__(self, cuts: Cuts, weights: Tensor) -> None:
        cuts = cuts.within(cuts.radius)
        self.lower = cuts.lower
        shifted = replace(cuts, offsets=cuts.values(cuts.lower))
        super().__init__(shifted, cuts.upper - cuts.lower, weights / weights.sum(1, keepdim=True))

    def _first_slack(self, barrier: float) -> Tensor:
        return torch.full_like(self.weights, 0.05)

    def _spread(self, slope: Tensor) -> Tensor:
        return slope * self.movable

    def _gather(self, parts: Tensor) -> Tensor:
        return parts * self.movable

    def _gather_give(self, give: Tensor) -> Tensor:
        return give

    def _newton(self, system: Tensor, push: Tensor) -> Tensor:
        """The step that keeps Σ λ_j: the level, that constraint's multiplier, comes from a second right-hand side."""
        both = solve_rows(system, torch.stack([push, torch.ones_like(push)], 2))
        level = both[:, :, 0].sum(1) / both[:, :, 1].sum(1)
        return both[:, :, 0] - level[:, None] * both[:, :, 1]

    def _perturbation(self) -> Tensor:
        return self.lower + self._gather(self.parts)


def _central(price: Tensor, room: Tensor, barrier: float) -> Tensor:
    """argmin over 0 < t < room of price t - barrier (log t + log(room - t))."""
    half = room / 2
    pull = price * half
    return (half - half * pull / (barrier + torch.sqrt(barrier**2 + pull.square()))).clamp(min=TINY)


def _knapsack_scale(cuts: Cuts, weights: Tensor) -> Tensor:
    """Scale (N, 1) after which only coordinates that the ℓ1 knapsack would fill have a negative price."""
    slope = cuts.combine(weights)
    room = torch.where(slope > 0, -cuts.lower, cuts.upper)
    steepness, order = slope.abs().sort(1, descending=True)
    filled = (room.gather(1, order).cumsum(1) < cuts.radius).sum(1, keepdim=True)
    critical = steepness.gather(1, filled.clamp(max=room.shape[1] - 1))
    return START_WEIGHT / critical.clamp(min=TINY)
