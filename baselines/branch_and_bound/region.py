"""The set of allowed inputs, and linear minimisation over it."""

from dataclasses import dataclass

import torch
from torch import Tensor

NORMS = ("l1", "l2", "linf")
DOMAINS = ("free", "box")
ORDER = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}
DUAL_ORDER = {"l1": float("inf"), "l2": 2.0, "linf": 1.0}
NEWTON_STEPS = 10
SMALLEST = 1e-150
FIRST_COORDINATES = 32


@dataclass(frozen=True)
class Region:
    """Perturbations {delta: ||delta||_p <= radius, lower <= delta <= upper} of inputs ``center``, one per row.

    center, lower, upper: (N, d) float64; radius: (N, 1). Every norm implies |delta_i| <= radius, so the bounds are
    finite in the free domain too, and in linf they say all.
    """

    center: Tensor
    radius: Tensor
    lower: Tensor
    upper: Tensor
    norm: str

    @classmethod
    def around(
        cls, center: Tensor, radius: Tensor, norm: str, domain: str, mutable: Tensor | None = None
    ) -> "Region":
        """Balls of the radii (N,) around center (N, d), intersected with the unit box where domain is ``box``.

        mutable: (d,) bool, the only coordinates that move; None: all.
        """
        radius = radius[:, None]
        lower, upper = -radius.expand_as(center), radius.expand_as(center)
        if domain == "box":
            lower, upper = torch.maximum(lower, -center), torch.minimum(upper, 1 - center)
        if mutable is not None:
            moves = mutable.to(center)
            lower, upper = lower * moves, upper * moves
        return cls(center, radius, lower, upper, norm)

    def take(self, index: Tensor) -> "Region":
        """The rows at an index (M,); a single row is left to broadcast instead of being copied."""
        if len(self.center) == 1:
            return self
        parts = (self.center[index], self.radius[index], self.lower[index], self.upper[index])
        return Region(*parts, self.norm)

    def minimise(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Minimise a . delta for a: (N, d); returns delta (N, d) and slack (N,) <= 0.

        a . delta + slack is a lower bound of the minimum (in l2 the Lagrangian dual's value, so that an unfinished
        search for the multiplier stays sound); at convergence the slack is zero and delta the minimiser.
        """
        caps = torch.where(direction > 0, -self.lower, self.upper)
        if self.norm == "linf":
            return -direction.sign() * caps, direction.new_zeros(len(direction))
        if self.norm == "l1":
            return -direction.sign() * self._spend(direction.abs(), caps), direction.new_zeros(len(direction))
        step = self._l2_step(direction.square(), caps.square())
        delta = -direction.sign() * torch.minimum(step * direction.abs(), caps)
        excess = delta.square().sum(1) - self.radius[:, 0].square()
        return delta, excess.clamp(max=0) / (2 * step[:, 0])

    def _spend(self, weight: Tensor, caps: Tensor) -> Tensor:
        """Sizes |delta_i| (N, d) that spend the l1 budget on the largest weights first (fractional knapsack)."""
        weight = torch.where(caps > 0, weight, -1.0)
        count = min(FIRST_COORDINATES, weight.shape[1])
        while True:
            order = weight.topk(count, dim=1).indices
            chosen = caps.gather(1, order)
            total = chosen.cumsum(1)
            if count == weight.shape[1] or bool((total[:, -1:] >= self.radius).all()):
                break
            count = min(4 * count, weight.shape[1])
        spent = torch.minimum(chosen, (self.radius - (total - chosen)).clamp(min=0))
        return torch.zeros_like(weight).scatter_(1, order, spent)

    def _l2_step(self, squares: Tensor, cap_squares: Tensor) -> Tensor:
        """Step t (N, 1) with ||min(t |a|, caps)||_2 = radius, by Newton in t^2 from below; huge if no t reaches it."""
        budget = self.radius.square()
        step = budget / squares.sum(1, keepdim=True).clamp(min=SMALLEST)
        for _ in range(NEWTON_STEPS):
            capped = step * squares >= cap_squares
            if not bool(capped.any()):
                break
            left = budget - torch.where(capped, cap_squares, 0.0).sum(1, keepdim=True)
            free = torch.where(capped, 0.0, squares).sum(1, keepdim=True).clamp(min=SMALLEST)
            longer = torch.maximum(step, left / free)
            done = bool((longer <= step * (1 + 1e-12)).all())
            step = longer
            if done:
                break
        return step.sqrt()
