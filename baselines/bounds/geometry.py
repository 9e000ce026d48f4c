"""Perturbation balls, and the exact range of a linear function over them.

Over a ball the worst case of a linear function is a dual norm. Over a ball cut off by the unit box it is a
continuous knapsack: coordinate i can contribute |a_i| t_i with 0 <= t_i <= cap_i. It is solved through its Lagrangian
dual, whose value bounds the worst case for *every* multiplier, so a multiplier that is not optimal costs tightness,
never soundness.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

NORMS = ("l1", "l2", "linf")
DOMAINS = ("free", "box")
DUAL_ORDER = {"l1": float("inf"), "l2": 2.0, "linf": 1.0}
CHUNK_ELEMENTS = 1 << 22
NEWTON_STEPS = 50
SMALLEST = 1e-300


@dataclass(frozen=True)
class Balls:
    """A batch of sets {x' : ||x' - center||_p <= radius}, intersected with [0, 1]^d where domain is ``box``.

    center: (N, d) float64. radius: (N,) float64, one per input, in the units of x.
    """

    center: Tensor
    radius: Tensor
    norm: str
    domain: str = "free"

    def select(self, index: Tensor | slice) -> "Balls":
        """The balls at an index."""
        return replace(self, center=self.center[index], radius=self.radius[index])

    def enclosing_box(self) -> tuple[Tensor, Tensor]:
        """Smallest box around each ball: lower and upper corner, both (N, d)."""
        lower, upper = self.center - self.radius[:, None], self.center + self.radius[:, None]
        return (lower.clamp(min=0.0), upper.clamp(max=1.0)) if self.domain == "box" else (lower, upper)

    def largest_decrease(self, rows: Tensor) -> Tensor:
        """Largest a . (center - x') over x' in the ball, (N, S), for rows a: (S, d) shared or (N, S, d) per input."""
        if self.domain == "free":
            dual = torch.linalg.vector_norm(rows, ord=DUAL_ORDER[self.norm], dim=-1)
            return dual * self.radius[:, None]
        if self.norm == "linf":
            return self._largest_decrease_over_a_box(rows)
        rows = rows.expand(len(self.center), *rows.shape[-2:])
        width = max(1, CHUNK_ELEMENTS // max(1, self.center.numel()))
        return torch.cat([self._knapsack(part) for part in rows.split(width, dim=1)], dim=1)

    def _largest_decrease_over_a_box(self, rows: Tensor) -> Tensor:
        lower, upper = self.enclosing_box()
        down, up = (self.center - lower)[..., None], (upper - self.center)[..., None]
        return (rows.clamp(min=0) @ down + (-rows).clamp(min=0) @ up).squeeze(-1)

    def _knapsack(self, rows: Tensor) -> Tensor:
        """Dual value of max sum_i |a_i| t_i over ||t||_p <= radius, 0 <= t_i <= cap_i; rows (N, S, d) -> (N, S)."""
        center, radius = self.center[:, None, :], self.radius[:, None]
        caps = torch.where(rows > 0, center, 1.0 - center)
        weights = rows.abs()
        if self.norm == "l1":
            price = _l1_price(weights.detach(), caps, radius)[..., None]
            return (caps * (weights - price).clamp(min=0)).sum(-1) + price.squeeze(-1) * radius
        price = _l2_price(weights.detach(), caps, radius)[..., None]
        moves = torch.minimum(weights / price.clamp(min=SMALLEST), caps)
        gain = (weights * moves - price * moves.square() / 2).sum(-1)
        return gain + price.squeeze(-1) * radius.square() / 2


def _l1_price(weights: Tensor, caps: Tensor, radius: Tensor) -> Tensor:
    """Weight of the coordinate at which the budget runs out, coordinates taken by weight; 0 if it never does."""
    order = weights.argsort(dim=-1, descending=True)
    spent = caps.gather(-1, order).cumsum(-1)
    last = (spent < radius[..., None]).sum(-1, keepdim=True)
    ordered = torch.nn.functional.pad(weights.gather(-1, order), (0, 1))
    return ordered.gather(-1, last).squeeze(-1)


def _l2_price(weights: Tensor, caps: Tensor, radius: Tensor) -> Tensor:
    """Multiplier lambda with ||min(weights / lambda, caps)||_2 = radius: ever more coordinates reach their cap."""
    squares, budget = weights.square(), radius.square()
    full = torch.zeros_like(weights, dtype=torch.bool)
    price = torch.zeros(weights.shape[:-1], dtype=weights.dtype, device=weights.device)
    for _ in range(NEWTON_STEPS):
        left = budget - torch.where(full, caps.square(), 0.0).sum(-1)
        price = (torch.where(full, 0.0, squares).sum(-1) / left.clamp(min=SMALLEST)).sqrt()
        grown = full | (weights > price[..., None] * caps)
        if torch.equal(grown, full):
            break
        full = grown
    return price
