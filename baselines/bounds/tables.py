"""Fast sound bounds on a linear function's decrease over a ball in the unit box, prepared once for every radius.

Coordinate i can contribute at most |a_i| cap_i. For any threshold, let some coordinates pay that in full and bound the
others by the dual norm, as over the whole ball: the decrease is at most ``intercept + radius * slope``. The least of a
few such lines is within a few percent of the exact knapsack (see ``geometry``), within half a percent on handwritten
digits, and neither number depends on the radius, so a search computes them once, by matrix products where the rows
are shared by all inputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# l1: thresholds are the |a_i| of these ranks, since few coordinates use the budget up.
RANK_RATIO = 1.35
# l2: coordinates with a cap up to the threshold pay in full.
CAP_THRESHOLDS = (0.0, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class DualTable:
    """Lines above the largest decrease of S linear functions: intercept (N, S, K), slope (N or 1, S, K)."""

    intercept: Tensor
    slope: Tensor

    def at(self, radius: Tensor) -> Tensor:
        """Upper bounds (N, S) on the decrease within radius (N,)."""
        return (self.intercept + radius[:, None, None] * self.slope).amin(dim=-1)

    def select(self, index: Tensor | slice) -> "DualTable":
        """The table for some of the inputs."""
        slope = self.slope if len(self.slope) == 1 else self.slope[index]
        return DualTable(self.intercept[index], slope)


def without_zeros(rows: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (S, d) and center (N, d) as rows (S, m) of what is not 0 and the center there (N, S, m), if that is less.

    A convolution looks at a few of the pixels each time.
    """
    most = max(1, int((rows != 0).sum(dim=1).amax())) if len(rows) else 0
    if most * len(center) > rows.shape[1]:
        return rows, center
    places = rows.abs().topk(most, dim=1).indices
    return rows.gather(1, places), center[:, places]


def l1_table(rows: Tensor, center: Tensor) -> DualTable:
    """Lines for rows (S, d) over l1 balls around center (N, d): |a_i| above a threshold pays the excess in full.

    center: or (N, S, d), for each row the coordinates that it acts on.
    """
    thresholds = _ranked_thresholds(rows.abs())
    lines = []
    for threshold in thresholds.unbind(dim=1):
        excess = (rows.abs() - threshold[:, None]).clamp(min=0)
        lines.append(_full_payment(torch.copysign(excess, rows), center))
    return DualTable(torch.stack(lines, dim=-1), thresholds[None])


def l2_table(rows: Tensor, center: Tensor) -> DualTable:
    """Lines for rows (S, d), or (N, S, d) per input, over l2 balls around center (N, d) or, per row, (N, S, d)."""
    down, up = rows.clamp(min=0), (-rows).clamp(min=0)
    caps = ((center, down), (1 - center, up))
    intercepts, slopes = [], []
    for threshold in CAP_THRESHOLDS:
        full = [_project(torch.where(cap <= threshold, cap, 0.0), part) for cap, part in caps]
        rest = [_project((cap > threshold).to(rows.dtype), part.square()) for cap, part in caps]
        intercepts.append(full[0] + full[1])
        slopes.append((rest[0] + rest[1]).clamp(min=0).sqrt())
    return DualTable(torch.stack(intercepts, dim=-1), torch.stack(slopes, dim=-1))


def _ranked_thresholds(weights: Tensor) -> Tensor:
    """(S, K) values of weights (S, d) at geometrically growing ranks, and 0."""
    ranks, rank = [0], 1.0
    while rank < weights.shape[1]:
        if round(rank) > ranks[-1] and round(rank) < weights.shape[1]:
            ranks.append(round(rank))
        rank *= RANK_RATIO
    ordered = weights.sort(dim=1, descending=True).values
    return torch.cat([ordered[:, ranks], torch.zeros_like(ordered[:, :1])], dim=1)


def _full_payment(rows: Tensor, center: Tensor) -> Tensor:
    """sum_i |a_i| cap_i, (N, S), for rows (S, d): downwards a coordinate can move by x_i, upwards by 1 - x_i."""
    return _project(center, rows.clamp(min=0)) + _project(1 - center, (-rows).clamp(min=0))


def _project(features: Tensor, rows: Tensor) -> Tensor:
    """Products (N, S) of features (N, d) with rows (S, d) or (N, S, d); of features (N, S, d) row by row."""
    if features.dim() == 3:
        return (features * rows).sum(dim=-1)
    if rows.dim() == 2:
        return features @ rows.T
    return (rows @ features[..., None]).squeeze(-1)
