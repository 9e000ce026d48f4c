"""Two lines around an activation on an interval, ``lower_slope z + lower`` and ``upper_slope z + upper``.

ReLU: Zhang et al., NeurIPS 2018 (the chord above; below, a slope between 0 and 1). Any other activation whose slope
changes at most by ``curvature`` per unit, and by ``jump`` at kinks: both lines have the chord's slope, and are moved
out to enclose a grid of values plus the interpolation error, curvature x cell^2 / 8 + jump x cell / 4, which encloses
everything between the grid's points.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from baselines.layered.operators import RELU, Activation

CELLS = 64
ROUNDING = 1e-12
SMALLEST = 1e-300


@dataclass(frozen=True)
class Lines:
    """Lines (N, n) below and above an activation on the intervals [lower, upper] of its input."""

    lower_slope: Tensor
    lower: Tensor
    upper_slope: Tensor
    upper: Tensor

    def with_lower_slope(self, slope: Tensor, crossing: Tensor) -> "Lines":
        """The same with another slope in [0, 1] below the ReLUs that are ``crossing`` zero (N, n)."""
        return replace(self, lower_slope=torch.where(crossing, slope, self.lower_slope))


def lines(activation: Activation, lower: Tensor, upper: Tensor) -> Lines:
    """Lines that hold for lower <= z <= upper, both (N, n)."""
    return _relu_lines(lower, upper) if activation is RELU else _smooth_lines(activation, lower, upper)


def crossing(lower: Tensor, upper: Tensor) -> Tensor:
    """Where a ReLU is not linear on the interval."""
    return (lower < 0) & (upper > 0)


def values_on(activation: Activation, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest value of an activation on intervals, by where it falls and rises."""
    at_lower, at_upper = activation.function(lower), activation.function(upper)
    least, greatest = torch.minimum(at_lower, at_upper), torch.maximum(at_lower, at_upper)
    if activation is RELU:
        return least, greatest
    if activation.valley is not None:
        before, after, value = activation.valley
        least = torch.where((lower < after) & (upper > before), least.clamp(max=value), least)
    margin = activation.step + ROUNDING * (1 + torch.maximum(least.abs(), greatest.abs()))
    return least - margin, greatest + margin


def _relu_lines(lower: Tensor, upper: Tensor) -> Lines:
    cross = crossing(lower, upper)
    active = (lower >= 0).to(lower.dtype)
    chord = torch.where(cross, upper / (upper - lower).clamp(min=SMALLEST), active)
    nearer = torch.where(cross, (upper > -lower).to(lower.dtype), active)
    return Lines(nearer, torch.zeros_like(lower), chord, torch.where(cross, -lower * chord, 0.0))


def _smooth_lines(activation: Activation, lower: Tensor, upper: Tensor) -> Lines:
    assert activation.curvature is not None  # only the ReLU has none
    width = upper - lower
    function = activation.function
    slope = torch.where(
        width > 0, (function(upper) - function(lower)) / width.clamp(min=SMALLEST), torch.zeros_like(width)
    )
    least, most = torch.full_like(lower, torch.inf), torch.full_like(lower, -torch.inf)
    for place in range(CELLS + 1):
        z = lower + width * (place / CELLS)
        gap = function(z) - slope * z
        least, most = torch.minimum(least, gap), torch.maximum(most, gap)
    size = torch.maximum(lower.abs(), upper.abs())
    cell = width / CELLS
    error = activation.curvature * cell.square() / 8 + activation.jump * cell / 4 + activation.step
    error = error + ROUNDING * (1 + function(lower).abs() + function(upper).abs() + slope.abs() * size)
    # On a wide interval the range of values is the better band.
    floor, ceiling = values_on(activation, lower, upper)
    flat = (ceiling - floor) < (most - least + 2 * error)
    slope = torch.where(flat, 0.0, slope)
    return Lines(
        slope, torch.where(flat, floor, least - error), slope, torch.where(flat, ceiling, most + error)
    )
