"""Certified radii from tangents: pure, batched tensor functions.

A convex score lies above each of its tangents, so whatever bounds the tangent from below over a ball bounds the
score. The functions here turn a margin m > 0 and a slope into the largest ball on which the tangent stays
positive; they know nothing of networks. Proofs: ``docs/certificates.md``.

All of them compute in float64 and first shave the margin by the relative ``ROUNDING``. A radius is a convex
function of the margin that vanishes at 0, so the radius shrinks by at least as much, which is far more than what
rounding in the sums can add: no radius exceeds its exact value.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

NORMS = ("l1", "l2", "linf")
DUAL_ORDER = {"l1": math.inf, "l2": 2.0, "linf": 1.0}
ROUNDING = 5e-10
LARGEST = torch.finfo(torch.float64).max
SAFE_SQUARE = 1e-140  # squares of smaller numbers may underflow
NEWTON_STEPS = 60
FIRST_SELECTION = 48
CACHED_FLOATS = 2**17  # batches of more numbers fall out of the processor's caches


class UnsoundCertificate(RuntimeError):
    """A certified radius reaches beyond an adversarial point: a fault of the code or the network, never a result."""


def closed_form(
    margin: Tensor, gradient: Tensor, lipschitz: float, norm: str, to: str | None = None
) -> Tensor:
    """Radius m / (Lip_p→q(φ) ‖a‖_{q*}), with q = p the certificate of the paper.

    Args:
        margin: score m = ĝ(φ(x)), (N,); a radius is 0 where it is not positive.
        gradient: a subgradient a of ĝ at φ(x), (N, k) or (N, *feature shape).
        lipschitz: Lipschitz constant of φ from ℓp to ℓq.
        norm: "l1", "l2" or "linf", the norm p of the radius.
        to: the norm q in which φ is measured, or p as well.

    Returns:
        Radii (N,), float64, in the units of x; inf where the gradient vanishes under a positive margin.

    Raises:
        ValueError: an unknown norm, mismatched shapes, a value that is not a number, or a Lipschitz constant < 0.

    Source: Pfrommer, Anderson, Piet and Sojoudi, arXiv 2302.01961, the theorem on certified radii.
    """
    return closed_forms(margin, gradient, {norm: lipschitz}, to={norm: to or norm})[norm]


def closed_forms(
    margin: Tensor,
    gradient: Tensor,
    lipschitz: Mapping[str, float],
    slope_errors: Mapping[str, float] | None = None,
    to: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    """``closed_form`` in several norms, norm -> (N,), for little more than one; lipschitz: norm -> Lip(φ).

    slope_errors: norm -> how much more than the gradient says a step of length 1 may take; none unless given.
    to: norm -> the one in which φ is measured; the same unless given.
    """
    for norm, constant in lipschitz.items():
        check_norm(norm)
        check_norm((to or {}).get(norm, norm))
        if not (math.isfinite(constant) and constant >= 0):
            raise ValueError(f"lipschitz must be a finite number >= 0, got {constant}")
    margin, gradient = _prepare(margin, gradient, "gradient")
    return _free_radii(margin, gradient, lipschitz, "gradient", slope_errors, to)


def separable(margin: Tensor, weights: Tensor, norm: str, slope_error: float = 0.0) -> Tensor:
    """Radius m / ‖w‖_{p*} where a unit of |δ_i| moves the tangent by at most w_i.

    Identity map: w = |a|. Map x -> (x - μ, |x - μ|) with gradient (u, v): w = |u| + |v|, never worse than
    ``closed_form``.

    Args:
        margin: score (N,).
        weights: w >= 0, (N, d).
        norm: "l1", "l2" or "linf".
        slope_error: how much more than the weights say a step of length 1 may take.

    Returns:
        Radii (N,), float64; inf where all weights vanish under a positive margin.

    Raises:
        ValueError: an unknown norm, mismatched shapes, negative weights or a value that is not a number.
    """
    check_norm(norm)
    margin, weights = _prepare(margin, weights, "weights")
    _check_non_negative(weights, "weights")
    return _free_radii(margin, weights, {norm: 1.0}, "weights", {norm: slope_error})[norm]


def in_domain(margin: Tensor, weights: Tensor, caps: Tensor, norm: str) -> Tensor:
    """Smallest ‖δ‖_p with Σ w_i |δ_i| >= m and |δ_i| <= cap_i: the tangent's radius inside a box, exactly.

    A continuous knapsack. ℓ1 fills coordinates by falling weight; ℓ2 takes |δ_i| = min(μ w_i, cap_i) and ℓ∞
    |δ_i| = min(r, cap_i), where the reachable decrease is concave in the level, so Newton's method started at
    the free radius climbs from below and ends after finitely many steps.

    Args:
        margin: score m (N,).
        weights: w >= 0, (N, d).
        caps: room of each coordinate, (N, d), >= 0; inf is allowed.
        norm: "l1", "l2" or "linf".

    Returns:
        Radii (N,), float64; inf where even δ = cap keeps the tangent positive.

    Raises:
        ValueError: an unknown norm, mismatched shapes, negative values or a value that is not a number.
    """
    check_norm(norm)
    if caps.shape != weights.shape:
        raise ValueError(
            f"caps must have the shape of weights, {tuple(weights.shape)}, got {tuple(caps.shape)}"
        )
    margin, weights = _prepare(margin, weights, "weights")
    caps = caps.detach().double().flatten(1)
    _check_non_negative(weights, "weights")
    _check_non_negative(caps, "caps")
    free = _free_radii(margin, weights, {norm: 1.0}, "weights")[norm]
    scale, weights = _rescale(weights)
    if not torch.isfinite(caps.sum()):
        caps = caps.masked_fill(weights == 0, 0.0)
    margin = (margin / scale).clamp(max=LARGEST)
    within = {"l1": _knapsack_l1, "l2": _knapsack_l2, "linf": _knapsack_linf}[norm](margin, weights, caps)
    reachable = torch.linalg.vecdot(weights, caps) >= margin
    within = torch.where(reachable | (margin == 0), within, math.inf)
    # The free radius is never larger but for rounding: the maximum keeps the order of the certificates exact.
    return torch.maximum(within, free)


def check_norm(norm: str) -> None:
    """Refuse a norm that is not one of ``NORMS``."""
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}: choose from {', '.join(NORMS)}")


def row_norms(values: Tensor, orders: Sequence[float]) -> list[Tensor]:
    """The norms (N,) of the rows of values (N, d), of orders 1, 2, infinity; PyTorch's own are slower on a CPU."""
    size = max(1, CACHED_FLOATS // values.shape[1])
    if len(values) <= size:
        magnitudes = values if all(order == 2 for order in orders) else values.abs()
        return [_magnitudes_norm(magnitudes, order) for order in orders]
    found: list[list[Tensor]] = [[] for _ in orders]
    # A few rows at a time stay in the processor's caches.
    for part in values.split(size):
        magnitudes = part.abs()
        for norms, order in zip(found, orders, strict=True):
            norms.append(_magnitudes_norm(magnitudes, order))
    return [torch.cat(norms) for norms in found]


def _magnitudes_norm(magnitudes: Tensor, order: float) -> Tensor:
    if order == 2:
        return torch.linalg.vector_norm(magnitudes, dim=1)
    return magnitudes.sum(1) if order == 1 else magnitudes.amax(1)


def _prepare(margin: Tensor, slope: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Shaved margins (N,) and slopes (N, d) in float64; margins that are not positive become 0."""
    if margin.ndim != 1 or slope.ndim < 2 or len(slope) != len(margin):
        raise ValueError(
            f"margin must be (N,) and {name} (N, d) with the same N, got {tuple(margin.shape)} and {tuple(slope.shape)}"
        )
    margin, slope = margin.detach().double(), slope.detach().double().flatten(1)
    _check_finite(margin, "margin")
    return margin.clamp(min=0) * (1 - ROUNDING), slope


def _check_finite(values: Tensor, name: str) -> None:
    """Refuse NaN and infinity."""
    # A sum is finite unless a term is not (or it overflows): one number to look at.
    if not math.isfinite(values.sum().item()) and not torch.isfinite(values).all():
        raise ValueError(f"{name} must be finite: check the inputs and the network for NaN or overflow")


def _check_non_negative(values: Tensor, name: str) -> None:
    """Refuse negative values and NaN."""
    if values.numel() and not values.min() >= 0:
        raise ValueError(f"{name} must be >= 0, the smallest is {values.min().item()}")


def _rescale(weights: Tensor) -> tuple[Tensor, Tensor]:
    """The largest weight of each row (1 for a row of zeros), and the rows divided by it: squares cannot underflow."""
    scale = weights.amax(1)
    scale = torch.where(scale > 0, scale, 1.0)
    return scale, weights / scale[:, None]


def _free_radii(
    margin: Tensor,
    slope: Tensor,
    lipschitz: Mapping[str, float],
    name: str,
    slope_errors: Mapping[str, float] | None = None,
    to: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    """m / (Lip ‖slope‖_{q*} + error) for each norm p; refuses a slope that is not finite, under its name."""
    landings = {norm: norm for norm in lipschitz} | dict(to or {})
    duals = row_norms(slope, [DUAL_ORDER[landings[norm]] for norm in lipschitz])
    radii = {}
    for (norm, constant), dual in zip(lipschitz.items(), duals, strict=True):
        error = (slope_errors or {}).get(norm, 0.0)
        least, largest = (end.item() for end in dual.aminmax()) if len(dual) else (math.inf, 0.0)
        # NaN and infinity show in every norm, which spares another pass over the slopes; so does overflow.
        if not math.isfinite(least + largest):
            _check_finite(slope, name)
        if landings[norm] == "l2" and not least > SAFE_SQUARE:
            scale = slope.abs().amax(1)
            dual = scale * torch.linalg.vector_norm(
                slope / torch.where(scale > 0, scale, 1.0)[:, None], dim=1
            )
        radii[norm] = _ratio(margin, constant * dual + error, positive=constant * least + error > 0)
    return radii


def _ratio(margin: Tensor, slope: Tensor, positive: bool) -> Tensor:
    """m / slope, where 0 / 0 = 0 and m / 0 = inf; positive: whether all slopes are known to be."""
    if positive:
        return (margin / slope).clamp(max=LARGEST)
    unbounded = torch.where(margin > 0, math.inf, 0.0)
    return torch.where(slope > 0, (margin / slope).clamp(max=LARGEST), unbounded)


def _knapsack_l2(margin: Tensor, weights: Tensor, caps: Tensor) -> Tensor:
    """|δ_i| = min(μ w_i, cap_i) for the μ that reaches the margin; the norm of δ is valid for any smaller μ too."""
    level = _climb(margin, weights, caps, proportional=True)
    return torch.linalg.vector_norm(torch.minimum(level[:, None] * weights, caps), dim=1)


def _knapsack_linf(margin: Tensor, weights: Tensor, caps: Tensor) -> Tensor:
    """|δ_i| = min(r, cap_i) for the r that reaches the margin; any smaller r is valid too."""
    return _climb(margin, weights, caps, proportional=False)


def _climb(margin: Tensor, weights: Tensor, caps: Tensor, proportional: bool) -> Tensor:
    """Level at which Σ w_i min(level [w_i], cap_i) reaches the margin, with the factor w_i where ``proportional``.

    Newton's method from below on a concave function. Rows that have arrived are dropped once they are half of all.
    """
    slopes = weights.square() if proportional else weights
    level = margin / slopes.sum(1).clamp(min=1.0)
    reached, rows = level.clone(), torch.arange(len(level), device=level.device)
    for _ in range(NEWTON_STEPS):
        moved = torch.minimum(level[:, None] * weights if proportional else level[:, None], caps)
        missing = margin - torch.linalg.vecdot(weights, moved)
        slope = torch.linalg.vecdot(slopes, (caps - moved).sign())
        climbing = (missing > ROUNDING * margin) & (slope > 0)
        level = torch.where(climbing, level + missing / slope, level)
        reached[rows] = level
        left = climbing.nonzero()[:, 0]
        if len(left) == 0:
            break
        if 2 * len(left) <= len(rows):
            rows, margin, level = rows[left], margin[left], level[left]
            weights, slopes, caps = (values.index_select(0, left) for values in (weights, slopes, caps))
    return reached


def _knapsack_l1(margin: Tensor, weights: Tensor, caps: Tensor) -> Tensor:
    """Fill coordinates by falling weight; only the heaviest are looked at, more of them where they do not suffice."""
    radius = torch.full_like(margin, math.inf)
    rows = torch.arange(len(margin), device=margin.device)
    size = min(FIRST_SELECTION, weights.shape[1])
    while len(rows):
        heaviest, index = weights.topk(size, dim=1)
        room = caps.gather(1, index)
        filled, enough = _fill(margin, heaviest, room)
        radius[rows[enough]] = filled[enough]
        if size == weights.shape[1]:
            break
        missed = (~enough).nonzero()[:, 0]
        size = _next_selection(margin[missed], heaviest[missed], room[missed], weights.shape[1])
        rows, margin, weights, caps = rows[missed], margin[missed], weights[missed], caps[missed]
    return radius


def _next_selection(margin: Tensor, weights: Tensor, caps: Tensor, most: int) -> int:
    """How many coordinates to look at after these did not suffice: those that would, were the next ones like them."""
    size = weights.shape[1]
    gain = weights[:, -1] * caps.mean(1)
    needed = ((margin - torch.linalg.vecdot(weights, caps)) / gain).nan_to_num(nan=most, posinf=most)
    return min(most, max(4 * size, size + int(needed.clamp(max=most).amax()))) if len(margin) else most


def _fill(margin: Tensor, weights: Tensor, caps: Tensor) -> tuple[Tensor, Tensor]:
    """ℓ1 cost of reaching the margin with items in order of falling weight, and whether they reach it at all."""
    gained = (weights * caps).cumsum(1)
    critical = (gained < margin[:, None]).sum(1, keepdim=True)
    enough = critical[:, 0] < weights.shape[1]
    critical = critical.clamp(max=weights.shape[1] - 1)
    before = torch.arange(weights.shape[1], device=weights.device) < critical
    spent = torch.where(before, caps, 0.0).sum(1)
    missing = margin - torch.where(before, weights * caps, 0.0).sum(1)
    return spent + missing / weights.gather(1, critical)[:, 0].clamp(
        min=torch.finfo(torch.float64).tiny
    ), enough
