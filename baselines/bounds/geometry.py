"""Perturbation balls, and the exact range of a linear function over them.

Over a ball the worst case of a linear function is a dual norm. Over a ball cut off by the unit box it is a
continuous knapsack: coordinate i can contribute |a_i| t_i with 0 <= t_i <= cap_i. It is solved through its Lagrangian
dual, whose value bounds the worst case for *every* multiplier, so a multiplier that is not optimal costs tightness,
never soundness.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from baselines.bounds.tables import DualTable, l1_table, l2_table, without_zeros

NORMS = ("l1", "l2", "linf")
DOMAINS = ("free", "box")
DUAL_ORDER = {"l1": float("inf"), "l2": 2.0, "linf": 1.0}
CHUNK_ELEMENTS = 1 << 22
LOOK_AT = 128
NEWTON_STEPS = 50
SMALLEST = 1e-300


@dataclass(frozen=True)
class Balls:
    """A batch of sets {x' : ||x' - center||_p <= radius}, intersected with [0, 1]^d where domain is ``box``.

    center: (N, d) float64. radius: (N,) float64, one per input, in the units of x. tables: for named shared rows, fast
    bounds on the decrease of rows and of -rows, see ``with_tables``. mutable: (d,) bool, the coordinates in which x'
    may differ from the center; None: all.
    """

    center: Tensor
    radius: Tensor
    norm: str
    domain: str = "free"
    tables: Mapping[str, tuple[DualTable, DualTable]] = field(default_factory=dict)
    mutable: Tensor | None = None

    def select(self, index: Tensor | slice) -> "Balls":
        """The balls at an index."""
        tables = {name: (down.select(index), up.select(index)) for name, (down, up) in self.tables.items()}
        return replace(self, center=self.center[index], radius=self.radius[index], tables=tables)

    def with_radius(self, radius: Tensor) -> "Balls":
        """Balls around the same centers."""
        return replace(self, radius=radius)

    def with_tables(self, rows: Mapping[str, Tensor]) -> "Balls":
        """The same balls, prepared for many radii: name -> rows (S, d) shared by all inputs; l1 and l2 in the box."""
        if self.domain == "free" or self.norm == "linf":
            return self
        build = l1_table if self.norm == "l1" else l2_table
        tables = {}
        for name, part in rows.items():
            moving, center = without_zeros(self._moving(part), self.center)
            tables[name] = build(moving, center), build(-moving, center)
        return replace(self, tables=tables)

    def range_of(self, name: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Largest decrease and largest increase, both (N, S), of shared rows (S, d), by their table if there is one."""
        if name in self.tables:
            falls, rises = self.tables[name]
            return falls.at(self.radius), rises.at(self.radius)
        down = self.largest_decrease(rows[None])
        return down, down if self.domain == "free" else self.largest_decrease(-rows[None])

    def enclosing_box(self) -> tuple[Tensor, Tensor]:
        """Smallest box around each ball: lower and upper corner, both (N, d)."""
        reach = self._moving(self.radius[:, None].expand_as(self.center))
        lower, upper = self.center - reach, self.center + reach
        return (lower.clamp(min=0.0), upper.clamp(max=1.0)) if self.domain == "box" else (lower, upper)

    def largest_decrease(self, rows: Tensor) -> Tensor:
        """Largest a . (center - x') over x' in the ball, (N, S), for rows a: (1, S, d) shared or (N, S, d) per input.

        In the box the bound is exact in linf and for single rows (S = 1), and close otherwise, see ``tables``.
        """
        rows = self._moving(rows)
        if self.domain == "free":
            dual = torch.linalg.vector_norm(rows, ord=DUAL_ORDER[self.norm], dim=-1)
            return dual * self.radius[:, None]
        if self.norm == "linf":
            return self._largest_decrease_over_a_box(rows)
        rows = rows.expand(len(self.center), *rows.shape[-2:])
        if self.norm == "l2" and rows.shape[1] > 1:
            return l2_table(rows, self.center).at(self.radius)
        width = max(1, CHUNK_ELEMENTS // max(1, self.center.numel()))
        return torch.cat([self._knapsack(part) for part in rows.split(width, dim=1)], dim=1)

    def _moving(self, values: Tensor) -> Tensor:
        """Return values (..., d) with 0 in the coordinates that stay as they are."""
        return values if self.mutable is None else values * self.mutable.to(values)

    def _largest_decrease_over_a_box(self, rows: Tensor) -> Tensor:
        lower, upper = self.enclosing_box()
        down, up = self.center - lower, upper - self.center
        if len(rows) == 1:
            return down @ rows[0].clamp(min=0).T + up @ (-rows[0]).clamp(min=0).T
        return (rows.clamp(min=0) @ down[..., None] + (-rows).clamp(min=0) @ up[..., None]).squeeze(-1)

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
    """Weight of the coordinate at which the budget runs out, coordinates taken by weight; 0 if it never does.

    Of several rows only the largest weights are looked at; where the budget outlasts them all, their smallest is
    returned, a valid price that is not quite the best.
    """
    dim = weights.shape[-1]
    count = dim if weights.shape[1] == 1 else min(dim, LOOK_AT)
    largest, order = weights.topk(count, dim=-1)
    spent = caps.gather(-1, order).cumsum(-1)
    last = (spent < radius[..., None]).sum(-1, keepdim=True)
    if count == dim:
        largest = torch.nn.functional.pad(largest, (0, 1))
    return largest.gather(-1, last.clamp(max=largest.shape[-1] - 1)).squeeze(-1)


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
