"""Certified radii by bound propagation, for any network of the supported layers."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from baselines.bounds.geometry import DOMAINS, DUAL_ORDER, NORMS, Balls
from baselines.bounds.propagation import BoundedScore, SlopeSettings
from baselines.bounds.search import largest_radius

CERTIFY_METHODS = ("ibp", "crown_ibp", "crown", "alpha_crown", "alpha_beta_crown")
LOOSER = {"crown_ibp": "ibp", "crown": "crown_ibp", "alpha_crown": "crown"}
DEFAULT_TOLERANCE = 1e-4
# Rounding in float64 is far below these: the bound must clear the first, the radius gives up the second.
RELATIVE_SLACK, ABSOLUTE_SLACK = 1e-9, 1e-11
# The bound is computed much as the score is: by as many products again for each end of each interval.
ROUNDINGS = 4
SHAVE = 1e-9
# The first radius tried, as a share of the distance to the boundary of the linearised score.
FIRST_SHARE = 0.1
BATCH_ELEMENTS = 1 << 25


@dataclass(frozen=True)
class CertifiedRadii:
    """Radii (N,) float64 (0: nothing certified; inf: the whole unit box is), and where the search hit its limit.

    Where ``reached_limit`` is true the radius is a valid lower bound, but a larger one might be certified.
    """

    radius: Tensor
    reached_limit: Tensor


@dataclass
class RadiusSearch:
    """Radii of one batch of inputs in one norm, for several methods and domains; keeps what it has computed.

    A search starts from the radii of the next looser method, and in the box from those of the free domain. They hold
    for it too, so the radii are ordered ibp <= crown_ibp <= crown <= alpha_crown and free <= box for every input.

    max_radius: largest radius tried; by default the diameter of the unit box in that norm. mutable: (d,) bool, the only
    coordinates that are perturbed; None: all. until: moment of time.monotonic() after which a search ends with what it
    has.
    """

    score: BoundedScore
    x: Tensor
    norm: str
    max_radius: float | None = None
    tolerance: float = DEFAULT_TOLERANCE
    slopes: SlopeSettings = field(default_factory=SlopeSettings)
    batch_size: int | None = None
    mutable: Tensor | None = None
    until: float | None = None
    _known: dict[tuple[str, str], CertifiedRadii] = field(default_factory=dict, repr=False)

    def radii(self, method: str, domain: str = "free") -> CertifiedRadii:
        """Search the radii, or return them if they are known."""
        if (method, domain) not in self._known:
            start = torch.zeros(len(self.x), dtype=torch.float64, device=self.score.device)
            if method in LOOSER:
                start = torch.maximum(start, self.radii(LOOSER[method], domain).radius)
            if domain == "box":
                start = torch.maximum(start, self.radii(method, "free").radius)
            self._known[method, domain] = self._search(method, domain, start)
        return self._known[method, domain]

    def _search(self, method: str, domain: str, start: Tensor) -> CertifiedRadii:
        size = self.batch_size or max(1, BATCH_ELEMENTS // max(1, self.score.widest_layer * self.score.dim))
        points = self.score.flatten(self.x)
        parts = [
            self._search_batch(method, domain, batch, begin)
            for batch, begin in zip(points.split(size), start.split(size), strict=True)
        ]
        empty = torch.zeros(0, dtype=torch.float64, device=self.score.device)
        return CertifiedRadii(
            torch.cat([part.radius for part in parts] or [empty]),
            torch.cat([part.reached_limit for part in parts] or [empty.bool()]),
        )

    def _search_batch(self, method: str, domain: str, x: Tensor, start: Tensor) -> CertifiedRadii:
        if self.until is not None and time.monotonic() > self.until:
            return CertifiedRadii(start, torch.zeros_like(start, dtype=torch.bool))
        images = x.reshape(-1, *self.score.input_shape)
        score = self.score.score(images)
        slack = RELATIVE_SLACK * score.abs() + ABSOLUTE_SLACK + ROUNDINGS * self.score.rounding(images)

        everything = self.score.balls(images, self.norm, domain, self.mutable)

        def margin(index: Tensor, radius: Tensor) -> Tensor:
            balls = everything.select(index).with_radius(radius)
            return self.score.lower(balls, method, self.slopes, slack[index], self.until) - slack[index]

        limit, covers = self._limits(x, domain)
        # A search that may be cut begins at the scale of the answer, so that it has one when it is.
        first = None if self.until is None else FIRST_SHARE * self._to_linear_boundary(x, score)
        found = largest_radius(margin, start, score - slack, limit, self.tolerance, self.until, first)
        radius = torch.maximum(found.radius * (1 - SHAVE), start)
        radius = torch.where(found.reached_limit & covers, torch.inf, radius)
        return CertifiedRadii(radius, found.reached_limit)

    def _to_linear_boundary(self, x: Tensor, score: Tensor) -> Tensor:
        """Distance (N,) at which the score linearised at x (N, d) is 0; inf where it is flat."""
        gradient = self.score.gradient(x)
        if self.mutable is not None:
            gradient = gradient * self.mutable.to(gradient)
        size = torch.linalg.vector_norm(gradient, ord=DUAL_ORDER[self.norm], dim=1)
        return torch.where((size > 0) & size.isfinite(), score / size, torch.inf)

    def _limits(self, x: Tensor, domain: str) -> tuple[Tensor, Tensor]:
        """Largest radius to try (N,), and whether (N,) that ball covers all of the domain."""
        most = box_diameter(self.norm, self.score.dim) if self.max_radius is None else self.max_radius
        limit = torch.full((len(x),), most, dtype=torch.float64, device=x.device)
        if domain == "free":
            return limit, torch.zeros_like(limit, dtype=torch.bool)
        order = {"l1": 1.0, "l2": 2.0, "linf": math.inf}[self.norm]
        farthest = torch.maximum(x, 1 - x)
        if self.mutable is not None:
            farthest = farthest * self.mutable.to(farthest)
        corner = torch.linalg.vector_norm(farthest, ord=order, dim=1) * (1 + SHAVE)
        return torch.minimum(limit, corner), corner <= limit if self.max_radius is not None else corner > 0


def box_diameter(norm: str, dim: int) -> float:
    """Largest distance between two points of [0, 1]^dim."""
    return {"l1": float(dim), "l2": math.sqrt(dim), "linf": 1.0}[norm]


def certified_radii(
    model: nn.Module | BoundedScore,
    x: Tensor,
    norm: str,
    method: str,
    domain: str = "free",
    max_radius: float | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    **options: Any,
) -> CertifiedRadii:
    """Certified radii of x (N, *shape) with positive score: no x' within the radius (and in [0, 1]^d where domain is
    ``box``) has a score <= 0.

    norm: l1, l2 or linf. method: ibp, crown_ibp, crown, alpha_crown or alpha_beta_crown (branch and bound;
    ``options`` are those of ``baselines.branch_and_bound.certify``, otherwise of ``RadiusSearch``). Raises ValueError
    for unknown names or inputs outside the box, UnsupportedLayer for a network with a layer that cannot be bounded.
    """
    check_request(x, norm, method, domain, max_radius)
    if method == "alpha_beta_crown":
        return _by_branch_and_bound(model, x, norm, domain, max_radius, tolerance, **options)
    score = model if isinstance(model, BoundedScore) else BoundedScore(model, tuple(x.shape[1:]), x.device)
    search = RadiusSearch(score, x, norm, max_radius, tolerance, **options)
    return search.radii(method, domain)


def _by_branch_and_bound(
    model: nn.Module | BoundedScore,
    x: Tensor,
    norm: str,
    domain: str,
    max_radius: float | None,
    tolerance: float,
    **options: Any,
) -> CertifiedRadii:
    """Start from the radii of alpha-CROWN, so that branch and bound only has to enlarge them."""
    # Imported here because only this method needs it, and it may come to import this package.
    from baselines.branch_and_bound import certify as branch

    network = model.model if isinstance(model, BoundedScore) else model
    bounded = certified_radii(model, x, norm, "alpha_crown", domain, max_radius, tolerance)
    start = bounded.radius
    found = branch(
        network, x, norm, domain, tolerance=tolerance, start=start, max_radius=max_radius, **options
    )
    # Where bounds have come to the limit there is nothing left to branch for.
    return CertifiedRadii(torch.maximum(found.radius, start), found.reached_limit | bounded.reached_limit)


def certify(
    model: nn.Module | BoundedScore,
    x: Tensor,
    norm: str,
    method: str,
    domain: str = "free",
    max_radius: float | None = None,
    **options: Any,
) -> Tensor:
    """Certified radii (N,) float64, see :func:`certified_radii`."""
    return certified_radii(model, x, norm, method, domain, max_radius, **options).radius


def lower_bounds(
    model: nn.Module | BoundedScore,
    x: Tensor,
    radius: Tensor | float,
    norm: str,
    method: str,
    domain: str = "free",
) -> Tensor:
    """Lower bounds (N,) float64 of the score over balls with a radius (N,) for each input x (N, *shape)."""
    check_request(x, norm, method, domain, None)
    score = model if isinstance(model, BoundedScore) else BoundedScore(model, tuple(x.shape[1:]), x.device)
    radius = torch.as_tensor(radius, dtype=torch.float64, device=score.device).expand(len(x))
    return score.lower(Balls(score.flatten(x), radius, norm, domain), method)


def check_request(x: Tensor, norm: str, method: str, domain: str, max_radius: float | None) -> None:
    """Raise ValueError, naming the value and what is allowed, for a request that makes no sense."""
    for what, value, allowed in (
        ("norm", norm, NORMS),
        ("method", method, CERTIFY_METHODS),
        ("domain", domain, DOMAINS),
    ):
        if value not in allowed:
            raise ValueError(f"unknown {what} {value!r}: choose one of {', '.join(allowed)}")
    if max_radius is not None and not max_radius > 0:
        raise ValueError(f"max_radius is {max_radius}, it must be positive")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x has values that are not finite: remove those inputs")
    if domain == "box" and len(x) and (float(x.min()) < 0 or float(x.max()) > 1):
        raise ValueError(
            f"domain 'box' needs inputs in [0, 1], found {float(x.min()):.3g} to {float(x.max()):.3g}: "
            "scale the inputs or use domain 'free'"
        )
