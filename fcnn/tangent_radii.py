"""Radii of tangents of a certified score, less what rounding of their slopes may take.

The margins that come in are lowered by the errors of the scores already. A slope is off by no more than
``rounding.of_slope()``, which takes at most slope_error ‖δ‖_p from a tangent; in the box ‖δ‖_p is bounded.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from fcnn.certificates import closed_forms, separable
from fcnn.feature_maps import CenteredAbs
from fcnn.score import CertifiedScore
from fcnn.segments import decrease_segments, segment_radius


def lipschitz_radii(
    score: CertifiedScore, margin: Tensor, gradient: Tensor, norms: Sequence[str]
) -> dict[str, Tensor]:
    """The closed form in each norm, norm -> (N,), from margins (N,) and gradients (N, *feature shape)."""
    return closed_forms(margin, gradient, *score.of_map(tuple(norms)))


def separable_radius(score: CertifiedScore, margin: Tensor, gradient: Tensor, norm: str) -> Tensor | None:
    """The separable radius (N,) in the free domain; None where the feature map mixes coordinates."""
    weights = score.frozen.feature_map.coordinate_weights(gradient)
    return None if weights is None else separable(margin, weights, norm, score.slope_error(norm))


def tangent_radius(
    score: CertifiedScore, margin: Tensor, gradient: Tensor, x: Tensor, norm: str, domain: str
) -> Tensor:
    """The largest radius (N,) on which margin + gradient . (phi(x + δ) - phi(x)) is seen to be positive; x (N, *shape).

    Over all of R^d ("free") or with x + δ kept in [0, 1]^d ("box"). A feature map that mixes coordinates gets the
    closed form in both.
    """
    feature_map = score.frozen.feature_map
    radius: Tensor | None
    if domain == "box":
        segments = decrease_segments(feature_map, gradient, x, box=True)
        margin_left = margin - box_loss(score, x, norm)
        radius = None if segments is None else segment_radius(margin_left, segments, norm)
    elif feature_map.is_exactly(CenteredAbs):
        error = feature_map.coordinate_weights(score.rounding.of_slope().reshape(1, *score.feature_shape))
        assert error is not None  # CenteredAbs acts on each coordinate alone
        segments = decrease_segments(feature_map, gradient, x, box=False, slope_error=error)
        radius = None if segments is None else segment_radius(margin, segments, norm)
    else:
        radius = separable_radius(score, margin, gradient, norm)
    return lipschitz_radii(score, margin, gradient, (norm,))[norm] if radius is None else radius


def box_loss(score: CertifiedScore, x: Tensor, norm: str) -> float:
    """The most that errors of a slope can take from a tangent inside the box."""
    return score.slope_error(norm) * _diameter(x, norm)


def _diameter(x: Tensor, norm: str) -> float:
    """The largest ‖δ‖_p with x and x + δ in [0, 1]^d."""
    coordinates = math.prod(x.shape[1:])
    return {"l1": float(coordinates), "l2": math.sqrt(coordinates), "linf": 1.0}[norm]
