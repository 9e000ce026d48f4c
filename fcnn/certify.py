"""Certified radii of a feature-convex classifier, for batches of any size.

``certify_batch`` returns the radii, ``certify_with_bounds`` also the norm of the nearest adversarial point found and,
on request, that point. Everything is computed in float64 on the function that ``predict`` uses.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fcnn.certificates import CACHED_FLOATS, NORMS, check_norm, closed_forms, separable
from fcnn.classifier import BYTES_PER_FLOAT64, MEMORY_BUDGET, FeatureConvexClassifier, check_inputs
from fcnn.feature_maps import FeatureMap
from fcnn.refine import RadiusBounds, RefineSettings, refine
from fcnn.segments import decrease_segments, segment_radius

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
    classifier: FeatureConvexClassifier,
    x: Tensor,
    norms: Sequence[str] = NORMS,
    certificate: str = "refined",
    *,
    domain: str | None = None,
    settings: RefineSettings | None = None,
    memory: int = MEMORY_BUDGET,
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

    Raises:
        ValueError: a network that is not convex, naming the layer; inputs that are not finite, of the wrong shape or
            outside the box; an unknown norm, certificate or domain.
    """
    bounds = certify_with_bounds(
        classifier, x, norms, certificate, domain=domain, settings=settings, memory=memory
    )
    return {norm: bound.radius for norm, bound in bounds.items()}


def certify_with_bounds(
    classifier: FeatureConvexClassifier,
    x: Tensor,
    norms: Sequence[str] = NORMS,
    certificate: str = "refined",
    *,
    domain: str | None = None,
    settings: RefineSettings | None = None,
    memory: int = MEMORY_BUDGET,
    points: bool = False,
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
    frozen = classifier.frozen()
    pieces: dict[str, list[RadiusBounds]] = {norm: [] for norm in norms}
    # The same batches for every certificate: rounding depends on them, and the certificates' order must not.
    for batch in x.split(_batch_size(frozen, x, memory)):
        batch = batch.detach().double()
        radii = _tangent_radii(frozen, batch, norms, certificate, domain, memory)
        for norm, radius in radii.items():
            if certificate == "refined":
                size = min(_fitting(frozen, x, settings.cuts, memory), _cached(x, WALKED_FLOATS))
                parts = zip(batch.split(size), radius.split(size), strict=True)
                found = [refine(frozen, inputs, known, norm, domain, settings) for inputs, known in parts]
            else:
                found = [RadiusBounds.of_radius(radius, batch if points else None)]
            pieces[norm] += [bounds if points else replace(bounds, point=None) for bounds in found]
    return {norm: _join(parts) for norm, parts in pieces.items()}


def certify_at_thresholds(
    classifier: FeatureConvexClassifier,
    x: Tensor,
    thresholds: Sequence[float],
    norms: Sequence[str] = NORMS,
    certificate: str = "closed_form",
    *,
    memory: int = MEMORY_BUDGET,
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
    frozen = classifier.frozen()
    frozen.threshold.zero_()
    pieces: list[dict[str, list[Tensor]]] = [{norm: [] for norm in norms} for _ in thresholds]
    for batch in x.split(_batch_size(frozen, x, memory)):
        batch = batch.detach().double()
        score, gradient = frozen.tangent_in_batches(batch, memory)
        for piece, threshold in zip(pieces, thresholds, strict=True):
            radii = _radii_of(frozen, batch, score - threshold, gradient, norms, certificate, domain)
            for norm, radius in radii.items():
                piece[norm].append(radius)
    return [{norm: torch.cat(parts) for norm, parts in piece.items()} for piece in pieces]


def _tangent_radii(
    frozen: FeatureConvexClassifier,
    x: Tensor,
    norms: Sequence[str],
    certificate: str,
    domain: str,
    memory: int,
) -> dict[str, Tensor]:
    """Radii (N,) in each norm from the tangents at x (N, *shape) float64."""
    margin, gradient = frozen.tangent_in_batches(x, memory)
    return _radii_of(frozen, x, margin, gradient, norms, certificate, domain)


def _radii_of(
    frozen: FeatureConvexClassifier,
    x: Tensor,
    margin: Tensor,
    gradient: Tensor,
    norms: Sequence[str],
    certificate: str,
    domain: str,
) -> dict[str, Tensor]:
    """Radii (N,) in each norm from given tangents at x (N, *shape) float64."""
    feature_map = frozen.feature_map
    radii = closed_forms(margin, gradient, {norm: feature_map.lipschitz(norm) for norm in norms})
    if certificate == "closed_form":
        return radii
    size = _cached(x, CACHED_FLOATS)
    parts = zip(*(values.split(size) for values in (x, margin, gradient)), strict=True)
    found = [_by_coordinates(feature_map, *part, norms, certificate, domain) for part in parts]
    # The maxima keep the order of the certificates against rounding.
    return {norm: torch.maximum(radii[norm], torch.cat([by[norm] for by in found])) for norm in norms}


def _by_coordinates(
    feature_map: FeatureMap,
    x: Tensor,
    margin: Tensor,
    gradient: Tensor,
    norms: Sequence[str],
    certificate: str,
    domain: str,
) -> dict[str, Tensor]:
    """Radii (N,) in each norm from what each coordinate can take from the tangents; 0 where the map mixes them."""
    weights = feature_map.tangent_decrease_weights(gradient)
    if weights is None:
        return {norm: torch.zeros_like(margin) for norm in norms}
    radii = {norm: separable(margin, weights, norm) for norm in norms}
    if certificate != "separable":
        segments = decrease_segments(feature_map, gradient, x, domain == "box")
        for norm in radii:
            radii[norm] = torch.maximum(radii[norm], segment_radius(margin, segments, norm))
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


def _batch_size(classifier: FeatureConvexClassifier, x: Tensor, memory: int) -> int:
    """How many inputs to certify at once: whole cached batches, as many as one pass through the network takes."""
    cached = _cached(x, CACHED_FLOATS)
    return min(_fitting(classifier, x, 0, memory), max(1, classifier.pass_size(x, memory) // cached) * cached)


def _fitting(classifier: FeatureConvexClassifier, x: Tensor, cuts: int, memory: int) -> int:
    """How many inputs, with so many cuts each, fit into memory."""
    feature_shape = classifier.feature_map.feature_shape(x.shape[1:])
    inputs, features = math.prod(x.shape[1:]), math.prod(feature_shape)
    floats = classifier.network.floats_per_input(feature_shape) + FLOATS_PER_FEATURE * features
    # The walk keeps the cuts in feature and input space, and works on a copy.
    floats += 2 * cuts * (features + inputs)
    return max(1, memory // (BYTES_PER_FLOAT64 * floats))


def _cached(x: Tensor, floats: int) -> int:
    """How many inputs of so many numbers in all make a batch that stays in the caches."""
    return max(SMALLEST_BATCH, floats // math.prod(x.shape[1:]))


def _join(parts: list[RadiusBounds]) -> RadiusBounds:
    point = None if parts[0].point is None else torch.cat([part.point for part in parts])
    return RadiusBounds(
        torch.cat([part.radius for part in parts]), torch.cat([part.radius_upper for part in parts]), point
    )
