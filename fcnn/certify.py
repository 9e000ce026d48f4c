"""Certified radii of a feature-convex classifier, for batches of any size.

``certify_batch`` returns the radii, ``certify_with_bounds`` also the norm of the nearest adversarial point found and,
on request, that point. Everything is computed in float64 on the function that ``predict`` uses.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from fcnn.certificates import CACHED_FLOATS, NORMS, check_norm
from fcnn.refine import RadiusBounds, RefineSettings, refine
from fcnn.restricted import restricted
from fcnn.score import BYTES_PER_FLOAT64, MEMORY_BUDGET, CertifiedScore, FeatureConvexScore, check_inputs
from fcnn.tangent_radii import lipschitz_radii, separable_radius, tangent_radius

# The domains each certificate exists in, its own first.
CERTIFICATES = {
    "closed_form": ("free",),
    "separable": ("free",),
    "in_domain": ("box",),
    "refined": ("box", "free"),
}
# Numbers per feature that a certificate holds at once besides the network's own.
FLOATS_PER_FEATURE = 12
WALKED_FLOATS = 2**18  # a walk takes many small steps, whose overhead a larger batch shares
SMALLEST_BATCH = 2


def certify_batch(
    classifier: FeatureConvexScore,
    x: Tensor,
    norms: Sequence[str] = NORMS,
    certificate: str = "refined",
    *,
    domain: str | None = None,
    settings: RefineSettings | None = None,
    memory: int = MEMORY_BUDGET,
    mutable: Tensor | None = None,
) -> dict[str, Tensor]:
    """Certified radii, norm -> (N,) float64, in the units of x; 0 where x is not predicted sensitive.

    Every x' with ‖x' - x‖_p < radius, and in [0, 1]^d for domain "box", is predicted sensitive. For one input and norm
    closed_form <= separable <= in_domain <= refined in the box, and separable <= refined in the free domain.

    Args:
        classifier: its feature map decides how tight the certificates are; see ``docs/certificates.md``.
        x: inputs (N, *shape); in [0, 1] where the domain is the box.
        norms: of "l1", "l2", "linf".
        certificate: "closed_form", "separable", "in_domain" or "refined".
        domain: "free" (all of R^d) or "box" ([0, 1]^d). closed_form and separable are free, in_domain is box, refined
            exists in both and is box unless told otherwise.
        settings: of the refinement.
        memory: bytes to stay within, roughly.
        mutable: (*shape) bool, the coordinates in which x' may differ from x; None: all.

    Raises:
        ValueError: a network that is not convex, naming the layer; inputs that are not finite, of the wrong shape or
            outside the box; an unknown norm, certificate or domain.
    """
    bounds = certify_with_bounds(
        classifier, x, norms, certificate, domain=domain, settings=settings, memory=memory, mutable=mutable
    )
    return {norm: bound.radius for norm, bound in bounds.items()}


def certify_with_bounds(
    classifier: FeatureConvexScore,
    x: Tensor,
    norms: Sequence[str] = NORMS,
    certificate: str = "refined",
    *,
    domain: str | None = None,
    settings: RefineSettings | None = None,
    memory: int = MEMORY_BUDGET,
    points: bool = False,
    mutable: Tensor | None = None,
) -> dict[str, RadiusBounds]:
    """Certified radii and upper bounds, norm -> RadiusBounds; arguments and errors as ``certify_batch``.

    Only "refined" looks for adversarial points: elsewhere radius_upper is inf where x is predicted sensitive, and 0
    where it is not. ``points`` asks for the nearest adversarial points found, (N, *shape) for each norm.
    """
    for norm in norms:
        check_norm(norm)
    domain = _domain(certificate, domain)
    _check_domain(x, domain)
    settings = settings or RefineSettings()
    if mutable is not None:
        classifier = restricted(classifier, mutable, x)
    certified = classifier.certified(x)
    pieces: dict[str, list[RadiusBounds]] = {norm: [] for norm in norms}
    # The same batches for every certificate: rounding depends on them, and the certificates' order must not.
    for batch in _batches(certified, x, memory):
        tangents = Tangent.of(certified, batch, memory)
        radii = _tangent_radii(certified, batch, tangents, norms, certificate, domain)
        for norm, radius in radii.items():
            if certificate == "refined":
                size = min(_fitting(certified, x, settings.cuts, memory), _cached(x, WALKED_FLOATS))
                sensitive = (tangents.score > 0).split(size)
                parts = zip(batch.split(size), radius.split(size), sensitive, strict=True)
                found = [refine(certified, *part, norm, domain, settings, mutable) for part in parts]
            else:
                found = [RadiusBounds.of_radius(radius, tangents.score > 0, batch if points else None)]
            pieces[norm] += (
                found if points else [RadiusBounds(bounds.radius, bounds.radius_upper) for bounds in found]
            )
    return {norm: _join(parts) for norm, parts in pieces.items()}


def certify_at_thresholds(
    classifier: FeatureConvexScore,
    x: Tensor,
    thresholds: Sequence[float],
    norms: Sequence[str] = NORMS,
    certificate: str = "closed_form",
    *,
    memory: int = MEMORY_BUDGET,
    mutable: Tensor | None = None,
) -> list[dict[str, Tensor]]:
    """Certified radii as ``certify_batch``'s for each of the thresholds, at the price of one backward pass for all.

    A threshold only moves the margin, and tangents do not depend on it. Not for "refined", whose walk does. Raises
    ValueError like ``certify_batch``.
    """
    if certificate == "refined":
        raise ValueError(
            "the walk of certificate 'refined' depends on the threshold: certify at one at a time"
        )
    for norm in norms:
        check_norm(norm)
    domain = _domain(certificate, None)
    _check_domain(x, domain)
    if mutable is not None:
        classifier = restricted(classifier, mutable, x)
    certified = classifier.certified(x)
    pieces: list[dict[str, list[Tensor]]] = [{norm: [] for norm in norms} for _ in thresholds]
    for batch in _batches(certified, x, memory):
        tangents = Tangent.of(certified, batch, memory)
        for piece, threshold in zip(pieces, thresholds, strict=True):
            moved = tangents.at_threshold(certified, threshold)
            radii = _tangent_radii(certified, batch, moved, norms, certificate, domain)
            for norm, radius in radii.items():
                piece[norm].append(radius)
    return [{norm: torch.cat(parts) for norm, parts in piece.items()} for piece in pieces]


@dataclass(frozen=True)
class Tangent:
    """The tangents at N inputs: scores (N,) and gradients (N, *feature shape).

    lowered: the scores less what rounding may have added to them, here and wherever else the score is computed;
    margin: the same, 0 where that is not positive.
    """

    score: Tensor
    gradient: Tensor
    lowered: Tensor
    margin: Tensor

    @classmethod
    def of(cls, certified: CertifiedScore, x: Tensor, memory: int) -> Self:
        """At x (N, *shape), as many at once as memory allows."""
        pieces = []
        for batch in certified.frozen.batches(x, memory):
            features = certified.features(batch)
            score, gradient = certified.tangent(features)
            lowered = score - 2 * certified.error_at_input(features)
            pieces.append((score, gradient, lowered, lowered.clamp(min=0)))
        return cls(*pieces[0]) if len(pieces) == 1 else cls(*map(torch.cat, zip(*pieces, strict=True)))

    def at_threshold(self, certified: CertifiedScore, threshold: float) -> Self:
        """The tangents of the same network compared with another threshold."""
        own = float(certified.frozen.threshold)
        score = self.score + own - threshold
        # The way there and back rounds as well.
        error = 4 * certified.rounding.unit * (self.score.abs() + abs(own) + abs(threshold))
        return replace(self, score=score, margin=(self.lowered + own - threshold - error).clamp(min=0))


def _tangent_radii(
    certified: CertifiedScore,
    x: Tensor,
    tangents: Tangent,
    norms: Sequence[str],
    certificate: str,
    domain: str,
) -> dict[str, Tensor]:
    """Radii (N,) in each norm from the tangents at x (N, *shape) float64."""
    radii = lipschitz_radii(certified, tangents.margin, tangents.gradient, norms)
    _certify_flat(certified, x, tangents, radii)
    if certificate == "closed_form":
        return radii
    size = _cached(x, CACHED_FLOATS)
    parts = zip(x.split(size), tangents.margin.split(size), tangents.gradient.split(size), strict=True)
    found = [_by_coordinates(certified, *part, norms, certificate, domain) for part in parts]
    # The maxima keep the order of the certificates against rounding.
    return {norm: torch.maximum(radii[norm], torch.cat([by[norm] for by in found])) for norm in norms}


def _certify_flat(certified: CertifiedScore, x: Tensor, tangents: Tangent, radii: dict[str, Tensor]) -> None:
    """Put inf where the tangent is flat, and not by rounding alone: the score is positive everywhere."""
    norm = next(iter(radii), None)
    # Without a slope the errors of the slope alone make the radius: only then is it this large.
    suspects = radii[norm] * certified.slope_error(norm) > 0.99 * tangents.margin if norm else torch.zeros(0)
    if not bool(suspects.any()):
        return
    rows = (suspects & (tangents.gradient.flatten(1) == 0).all(1)).nonzero()[:, 0]
    rows = rows[certified.is_flat(x[rows])]
    for radius in radii.values():
        radius[rows] = math.inf


def _by_coordinates(
    certified: CertifiedScore,
    x: Tensor,
    margin: Tensor,
    gradient: Tensor,
    norms: Sequence[str],
    certificate: str,
    domain: str,
) -> dict[str, Tensor]:
    """Radii (N,) in each norm from what each coordinate can take from the tangents; 0 where the map mixes them."""
    radii = {}
    for norm in norms:
        radius = separable_radius(certified, margin, gradient, norm)
        if radius is None:
            return {norm: torch.zeros_like(margin) for norm in norms}
        if certificate != "separable":
            radius = torch.maximum(radius, tangent_radius(certified, margin, gradient, x, norm, domain))
        radii[norm] = radius
    return radii


def _domain(certificate: str, domain: str | None) -> str:
    """The domain to certify in: the one asked for, or the certificate's own."""
    if certificate not in CERTIFICATES:
        raise ValueError(f"unknown certificate {certificate!r}: choose from {', '.join(CERTIFICATES)}")
    allowed = CERTIFICATES[certificate]
    if domain is not None and domain not in allowed:
        raise ValueError(
            f"domain {domain!r} does not go with certificate {certificate!r}: choose from {', '.join(allowed)}"
        )
    return domain or allowed[0]


def _check_domain(x: Tensor, domain: str) -> None:
    check_inputs(x)
    if domain == "box" and x.numel() and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(
            f"a box certificate needs inputs in [0, 1], got values in [{x.min().item()}, {x.max().item()}]: "
            "scale them, or ask for a free certificate"
        )


def _batches(certified: CertifiedScore, x: Tensor, memory: int) -> Iterator[Tensor]:
    """x (N, *shape) in float64, in batches that certificates are computed for at once."""
    size = _batch_size(certified, x, memory)
    for batch in (x,) if len(x) <= size else x.split(size):
        yield batch.detach().double()


def _batch_size(certified: CertifiedScore, x: Tensor, memory: int) -> int:
    """How many inputs to certify at once: whole cached batches, as many as one pass through the network takes."""
    if len(x) <= SMALLEST_BATCH:
        return SMALLEST_BATCH
    cached = _cached(x, CACHED_FLOATS)
    passed = certified.frozen.pass_size(x, memory)
    return min(_fitting(certified, x, 0, memory), max(1, passed // cached) * cached)


def _fitting(certified: CertifiedScore, x: Tensor, cuts: int, memory: int) -> int:
    """How many inputs, with so many cuts each, fit into memory."""
    inputs, features = math.prod(x.shape[1:]), math.prod(certified.feature_shape)
    network = certified.frozen.network
    floats = network.floats_per_input(certified.feature_shape) + FLOATS_PER_FEATURE * features
    # The walk keeps the cuts in feature and input space, and works on a copy.
    floats += 2 * cuts * (features + inputs)
    return max(1, memory // (BYTES_PER_FLOAT64 * floats))


def _cached(x: Tensor, floats: int) -> int:
    """How many inputs of so many numbers in all make a batch that stays in the caches."""
    return max(SMALLEST_BATCH, floats // math.prod(x.shape[1:]))


def _join(parts: list[RadiusBounds]) -> RadiusBounds:
    if len(parts) == 1:
        return parts[0]
    points = [part.point for part in parts if part.point is not None]
    point = torch.cat(points) if len(points) == len(parts) else None
    return RadiusBounds(
        torch.cat([part.radius for part in parts]), torch.cat([part.radius_upper for part in parts]), point
    )
