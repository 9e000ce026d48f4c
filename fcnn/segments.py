"""What one coordinate's move can take from a feature-space tangent, and the radius that follows.

Behind a feature map that acts on each coordinate alone, a tangent of the convex network bounds the score below by
m - Σ_i decrease_i(δ_i). The best decrease within |δ_i| <= t is bounded by a concave function of t with at most two
slopes: ``near_weight`` up to ``near_room``, then ``far_weight`` for another ``far_room``. Maximising their sum under a
norm budget is a continuous knapsack, solved exactly. Proofs: ``docs/certificates.md``.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.linalg import vecdot

from fcnn.certificates import LARGEST, ROUNDING, in_domain, separable
from fcnn.feature_maps import CenteredAbs, FeatureMap, Identity

ROOT_STEPS = 100


@dataclass(frozen=True)
class Segments:
    """Concave bounds on each coordinate's decrease, (N, d) and >= 0; the far slope is not the steeper one."""

    near_weight: Tensor
    near_room: Tensor
    far_weight: Tensor
    far_room: Tensor


@dataclass(frozen=True)
class OneSlope:
    """Bounds on each coordinate's decrease (N, d), >= 0, with one slope; room (N, d), None where nothing bounds it."""

    weight: Tensor
    room: Tensor | None = None


def decrease_segments(
    feature_map: FeatureMap, gradient: Tensor, x: Tensor, box: bool, slope_error: Tensor | float = 0.0
) -> Segments | OneSlope | None:
    """Bound -gradient . (φ(x + δ) - φ(x)) coordinate by coordinate; None where φ mixes coordinates.

    slope_error (1, d): by how much each coordinate's slopes may be off; only behind CenteredAbs in the free domain.
    """
    weights = feature_map.coordinate_weights(gradient)
    if weights is None:
        return None
    if feature_map.is_exactly(CenteredAbs):
        on_centred, on_absolute = (part.flatten(1) for part in gradient.chunk(2, dim=1))
        centred = feature_map(x).chunk(2, dim=1)[0].flatten(1)
        x = x.flatten(1)
        rooms = (x, 1 - x) if box else (torch.full_like(x, math.inf),) * 2
        return _centered_abs_segments(on_centred, on_absolute, centred, *rooms, slope_error)
    x = x.flatten(1)
    if not box:
        return OneSlope(weights)
    if feature_map.is_exactly(Identity):
        return OneSlope(weights, torch.where(gradient.flatten(1) > 0, x, 1 - x))
    return OneSlope(weights, torch.maximum(x, 1 - x))


def segment_radius(margin: Tensor, segments: Segments | OneSlope, norm: str) -> Tensor:
    """Smallest ‖δ‖_p at which the bounded decreases can add up to the margin (N,): radii (N,) float64.

    Raises ValueError as ``in_domain`` does.
    """
    if isinstance(segments, OneSlope):
        if segments.room is None:
            return separable(margin, segments.weight, norm)
        return in_domain(margin, segments.weight, segments.room, norm)
    weights = torch.cat([segments.near_weight, segments.far_weight], 1)
    rooms = torch.cat([segments.near_room, segments.far_room], 1)
    if norm == "l1":
        # Filling by falling weight takes the near segment of a coordinate first by itself.
        return in_domain(margin, weights, rooms, norm)
    return _two_slopes(margin, segments, torch.where(weights > 0, weights * rooms, 0.0).sum(1), norm)


def _two_slopes(margin: Tensor, segments: Segments, reachable: Tensor, norm: str) -> Tensor:
    """Radius in ℓ2 or ℓ∞, where a coordinate's far segment waits for its near one."""
    scale = segments.near_weight.amax(1).clamp(min=torch.finfo(torch.float64).tiny)
    near_weight, far_weight = (
        weight / scale[:, None] for weight in (segments.near_weight, segments.far_weight)
    )
    scaled = replace(segments, near_weight=near_weight, far_weight=far_weight)
    shaved = margin.double().clamp(min=0) * (1 - ROUNDING)
    missed = reachable < shaved
    # What is out of reach has its answer already, and would keep the search for a level busy.
    wanted = torch.where(missed, 0.0, (shaved / scale).clamp(max=LARGEST))
    radius = (_two_slopes_l2 if norm == "l2" else _two_slopes_linf)(wanted, scaled)
    return torch.where(missed, math.inf, radius)


def _two_slopes_linf(margin: Tensor, segments: Segments) -> Tensor:
    """Newton on the reachable decrease, concave in r, from below: every iterate is a valid radius."""
    near, far = segments.near_weight, segments.far_weight
    level = torch.zeros_like(margin)
    for _ in range(ROOT_STEPS):
        moved_near = torch.minimum(level[:, None], segments.near_room)
        left_near = (segments.near_room - level[:, None]).clamp(min=0)
        moved_far = torch.minimum((level[:, None] - segments.near_room).clamp(min=0), segments.far_room)
        missing = margin - vecdot(near, moved_near) - vecdot(far, moved_far)
        on_near, far_left = left_near.sign(), (segments.far_room - moved_far).sign()
        slope = vecdot(near, on_near) + vecdot(far, far_left * (1 - on_near))
        climbing = (missing > ROUNDING * margin) & (slope > 0)
        if not climbing.any():
            break
        level = torch.where(climbing, level + missing / slope, level)
    return level


def _two_slopes_l2(margin: Tensor, segments: Segments) -> Tensor:
    """Lagrangian dual: r² >= Σ δ_i² + 2 ν (m - Σ decrease_i(δ_i)) with δ optimal for ν, for every multiplier ν >= 0.

    The bound is concave in ν with derivative 2 (m - Σ decrease_i), which falls: a bracketed Newton search for its root.
    """
    low, high = torch.zeros_like(margin), torch.full_like(margin, math.inf)
    squares = segments.near_weight.square(), segments.far_weight.square()
    multiplier = margin / squares[0].sum(1).clamp(min=1.0)
    best = torch.zeros_like(margin)
    for _ in range(ROOT_STEPS):
        squared, missing, slope = _l2_response(margin, segments, squares, multiplier)
        best = torch.maximum(best, squared + 2 * multiplier * missing)
        low = torch.where(missing > 0, multiplier, low)
        high = torch.where(missing > 0, high, multiplier)
        # No other multiplier gives more than this on top of the best bound.
        to_gain = 2 * missing.abs() * (high - low)
        arrived = (missing.abs() <= ROUNDING * margin) | (to_gain <= ROUNDING * best)
        if arrived.all():
            break
        newton = multiplier + missing / slope
        fallback = torch.where(torch.isinf(high), 2 * multiplier, (low + high) / 2)
        moved = torch.where((newton > low) & (newton < high), newton, fallback)
        multiplier = torch.where(arrived, multiplier, moved)
    return best.sqrt()


def _l2_response(
    margin: Tensor, segments: Segments, squares: tuple[Tensor, Tensor], multiplier: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """At multiplier ν: Σ δ_i², what the decrease still misses of the margin, and the decrease's derivative in ν."""
    near, far = segments.near_weight, segments.far_weight
    moved_near = torch.minimum(multiplier[:, None] * near, segments.near_room)
    moved_far = torch.minimum(
        (multiplier[:, None] * far - segments.near_room).clamp(min=0), segments.far_room
    )
    missing = margin - vecdot(near, moved_near) - vecdot(far, moved_far)
    grows_near = (segments.near_room - moved_near).sign()
    grows_far = moved_far.sign() * (segments.far_room - moved_far).sign()
    slope = vecdot(squares[0], grows_near) + vecdot(squares[1], grows_far)
    return (moved_near + moved_far).square().sum(1), missing, slope


def _centered_abs_segments(
    on_centred: Tensor,
    on_absolute: Tensor,
    centred: Tensor,
    room_down: Tensor,
    room_up: Tensor,
    slope_error: Tensor | float,
) -> Segments:
    """Segments of -(u δ + v (|c + δ| - |c|)): lines that bend where c + δ changes sign.

    Mirrored so that c >= 0: away from the kink the slope of the decrease is -(u + v); towards it u + v, and u - v
    beyond it.
    """
    mirrored = centred < 0
    sign = torch.where(mirrored, -1.0, 1.0)
    near_slope = sign * on_centred + on_absolute
    beyond_slope = sign * on_centred - on_absolute
    away_room = torch.where(mirrored, room_down, room_up)
    towards_room = torch.where(mirrored, room_up, room_down)
    kink = torch.minimum(centred.abs(), towards_room)
    if torch.isinf(away_room).any() or torch.isinf(towards_room).any():
        return _unbounded_segments(near_slope, beyond_slope, kink, slope_error)
    first_length = torch.where(near_slope >= 0, kink, away_room)
    first_decrease = first_length * near_slope.abs()
    last_decrease = near_slope * kink + beyond_slope * (towards_room - kink)
    return _concave_envelope(first_length, first_decrease, towards_room, last_decrease)


def _unbounded_segments(
    near_slope: Tensor, beyond_slope: Tensor, kink: Tensor, slope_error: Tensor | float
) -> Segments:
    """Envelope in the free domain: two slopes where the line bends down on its way, else the steeper one for ever."""
    bends_down = (near_slope >= 0) & (beyond_slope < near_slope)
    steepest = torch.maximum(near_slope.abs(), beyond_slope) + slope_error
    near_room = torch.where(bends_down, kink, math.inf)
    # Where the near slope may be negative but for rounding, moving away from the kink may gain as much.
    for_ever = torch.maximum(beyond_slope, -near_slope) + slope_error
    far_weight = torch.where(bends_down, for_ever.clamp(min=0), 0.0)
    return Segments(steepest, near_room, far_weight, torch.where(bends_down, math.inf, 0.0))


def _concave_envelope(length_a: Tensor, value_a: Tensor, length_b: Tensor, value_b: Tensor) -> Segments:
    """Least concave non-decreasing function above (0, 0) and two points: the steeper point first, then the other."""
    slope_a = torch.where(length_a > 0, value_a / length_a, 0.0)
    slope_b = torch.where(length_b > 0, value_b / length_b, 0.0)
    # On equal slopes the nearer point goes first: the other one continues its segment.
    a_first = (slope_a > slope_b) | ((slope_a == slope_b) & (length_a <= length_b))
    near_room, near_value = torch.where(a_first, length_a, length_b), torch.where(a_first, value_a, value_b)
    last_room, last_value = torch.where(a_first, length_b, length_a), torch.where(a_first, value_b, value_a)
    continues = (last_room > near_room) & (last_value > near_value.clamp(min=0))
    near_weight = torch.maximum(slope_a, slope_b).clamp(min=0)
    far_room = torch.where(continues, last_room - near_room, 0.0)
    far_weight = torch.where(continues, (last_value - near_value) / far_room, 0.0)
    return Segments(near_weight, near_room, torch.minimum(far_weight, near_weight), far_room)
