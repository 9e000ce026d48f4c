"""The refined certificate: walk towards the nearest boundary point and combine the tangents met on the way.

Each step solves a small convex program over the tangents found so far, which gives weights λ and a point. The
λ-combination of the tangents is itself a bound on the score, so its radius is certified whatever the λ; the tangent
at the point cuts the program down. A point with score <= 0 bounds the radius from above. For the identity map both
ends converge to the exact radius. Derivation and proof: ``docs/certificates.md``.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from fcnn import master
from fcnn.bundle import Bundle, Tangents, tangents_at
from fcnn.certificates import UnsoundCertificate, row_norms
from fcnn.rays import Crossings
from fcnn.score import CertifiedScore
from fcnn.tangent_radii import box_loss, tangent_radius

ORDER = {"l1": 1.0, "l2": 2.0, "linf": math.inf}
INWARDS = 0.4
EVALUATIONS = 4
CARE = 0.1
COARSEST = 0.05
REACH = 100.0
CROWDED = 0.9
SINGLE_STEPS = 10


@dataclass(frozen=True)
class RefineSettings:
    """When the walk ends, and what it remembers.

    steps: most steps for each input; gap: stop once upper <= (1 + gap) * radius; cuts: tangents kept for each input.
    """

    steps: int = 30
    gap: float = 2e-3
    cuts: int = 20

    def __post_init__(self) -> None:
        if self.steps < 0 or self.cuts < 2 or not self.gap >= 0:
            raise ValueError(f"steps must be >= 0, cuts >= 2 and gap >= 0, got {self}")


@dataclass(frozen=True)
class RadiusBounds:
    """What is known of the distance to the nearest adversarial point.

    radius (N,): certified lower bound. radius_upper (N,): norm of an adversarial perturbation found, inf where none
    is known, 0 where the input is not predicted sensitive. point (N, *shape): x plus that perturbation, NaN where none
    is known; None unless asked for. All float64.
    """

    radius: Tensor
    radius_upper: Tensor
    point: Tensor | None = None

    @classmethod
    def of_radius(cls, radius: Tensor, sensitive: Tensor, x: Tensor | None = None) -> Self:
        """Certified radii (N,) of inputs, some sensitive, with no adversarial point known of x (N, *shape)."""
        upper = torch.where(sensitive, torch.full_like(radius, math.inf), 0.0)
        return cls(radius.clone(), upper, None if x is None else torch.full_like(x, math.nan))


def refine(
    certified: CertifiedScore,
    x: Tensor,
    radius: Tensor,
    sensitive: Tensor,
    norm: str,
    domain: str,
    settings: RefineSettings,
    mutable: Tensor | None = None,
) -> RadiusBounds:
    """Improve certified radii, with the norms of the nearest adversarial perturbations found and those points.

    x: (N, *shape) in float64, in [0, 1] for the box; radius (N,): certified already in this norm and domain ("free" or
    "box"); sensitive (N,): whether the score is positive. Inputs with radius 0 or inf (nothing left to find) stay as
    they are. mutable: (*shape) bool, the only coordinates that move; None: all.

    Raises UnsoundCertificate where a radius reaches beyond an adversarial point: one of the two must be wrong.
    """
    bounds, points = RadiusBounds.of_radius(radius, sensitive), torch.full_like(x, math.nan)
    walk = Walk(certified, x, bounds, points, norm, domain, settings, mutable)
    for _ in range(settings.steps):
        if not walk.drop_finished():
            break
        walk.advance()
    beyond = bounds.radius > bounds.radius_upper
    if bool(beyond.any()):
        row = int(beyond.nonzero()[0])
        raise UnsoundCertificate(
            f"{int(beyond.sum())} of {len(x)} refined {norm} radii ({domain}) reach beyond an adversarial point, the "
            f"first {float(bounds.radius[row])!r} where one lies at {float(bounds.radius_upper[row])!r}: no radius of "
            "this network is to be trusted; please report it with the network and the input"
        )
    return replace(bounds, point=points)


class Walk:
    """The walk of a batch of inputs in one norm; ``bounds`` and the adversarial ``points`` improve in place."""

    def __init__(
        self,
        certified: CertifiedScore,
        x: Tensor,
        bounds: RadiusBounds,
        points: Tensor,
        norm: str,
        domain: str,
        settings: RefineSettings,
        mutable: Tensor | None = None,
    ) -> None:
        self.certified, self.bounds, self.points, self.settings = certified, bounds, points, settings
        self.norm, self.domain, self.mutable = norm, domain, mutable
        self.rows = (torch.isfinite(bounds.radius) & (bounds.radius > 0)).nonzero()[:, 0]
        self.x = x[self.rows]
        self.steps = 0
        self.error_at_x = certified.error_at_input(certified.features(self.x))
        first = tangents_at(certified, self.x, self.x, self.error_at_x)
        self.bundle = Bundle(first, bounds.radius[self.rows], settings.cuts)

    def drop_finished(self) -> bool:
        """Forget inputs that are done, once they are many; False when none is left."""
        radius, upper = self.bounds.radius[self.rows], self.bounds.radius_upper[self.rows]
        keep = ((upper > radius * (1 + self.settings.gap)) & torch.isfinite(radius)).nonzero()[:, 0]
        if len(keep) <= CROWDED * len(self.rows):
            self.rows, self.x, self.error_at_x = self.rows[keep], self.x[keep], self.error_at_x[keep]
            self.bundle.keep(keep)
        return len(keep) > 0

    def advance(self) -> None:
        """Solve over the cuts, certify their combination, look beyond the point found and cut near it."""
        radius = self.bounds.radius[self.rows]
        cuts = self.bundle.cuts(radius, *self._room())
        # The first solutions only show the way; those that are to close the gap need the digits.
        dtype = torch.float32 if self.steps < SINGLE_STEPS else torch.float64
        self.bundle.weights, step = master.solve(cuts, self.bundle.weights, self.norm, dtype)
        self.bounds.radius[self.rows] = torch.maximum(radius, self._certified())
        step = (step * self.bundle.unit[:, None]).reshape(self.x.shape)
        if self.mutable is not None:
            step = step * self.mutable
        relaxed = self._within(self.x + step)
        self._look_beyond(relaxed)
        point = self._inwards(relaxed)
        tangents = tangents_at(self.certified, point, self.x, self.error_at_x)
        self.bounds.radius[self.rows[self._flat(tangents, point)]] = math.inf
        self._confirm((tangents.score <= 0).nonzero()[:, 0], point)
        self.bundle.add(tangents)
        self.steps += 1

    def _certified(self) -> Tensor:
        """Radius of the weighted combination of the tangents, (N,)."""
        margin, gradient = self.bundle.combination()
        gradient = gradient.reshape(len(gradient), *self.certified.feature_shape)
        return tangent_radius(self.certified, margin, gradient, self.x, self.norm, self.domain)

    def _flat(self, tangents: Tangents, point: Tensor) -> Tensor:
        """Where a flat tangent above 0 says it all, (N,): combinations would only come close to it."""
        flat = (tangents.feature_slope == 0).all(1)
        if not bool(flat.any()):
            return flat
        if self.domain == "box":
            return flat & (tangents.feature_offset > box_loss(self.certified, self.x, self.norm))
        flat &= tangents.feature_offset > 0
        rows = flat.nonzero()[:, 0]
        flat[rows] = self.certified.is_flat(point[rows])
        return flat

    def _look_beyond(self, relaxed: Tensor) -> None:
        """Look for the boundary on the rays from x through the relaxation's solution, and record what is adversarial.

        No way out of the ball around x is shorter than the ray, and in ℓ∞ the solution tends to be a corner of that
        ball, where the tangents fall as fast as they can.
        """
        gap = self.bounds.radius_upper[self.rows] / self.bounds.radius[self.rows] - 1
        tolerance = (CARE * gap).clamp(self.settings.gap / 4, COARSEST)
        ray = relaxed - self.x
        crossings = Crossings(self.bundle.margin, tolerance, self._farthest() / self._length(ray))
        for _ in range(EVALUATIONS):
            open_rays = crossings.open()
            if len(open_rays) == 0:
                break
            x, level = self.x[open_rays], crossings.level[open_rays]
            point = self._within(x + level.reshape(-1, *[1] * (x.dim() - 1)) * ray[open_rays])
            with torch.no_grad():
                score = self.certified.frozen.score(point)
            self._record(self.rows[open_rays], x, point, score)
            crossings.update(open_rays, score)

    def _inwards(self, relaxed: Tensor) -> Tensor:
        """The point to cut at.

        The relaxation's own solution lies outside the adversarial set. Once an adversarial point is known, a point
        some way towards it gives deeper cuts, or is adversarial and nearer.
        """
        target = self.points[self.rows]
        return torch.where(target.isnan(), relaxed, relaxed + INWARDS * (target - relaxed))

    def _confirm(self, found: Tensor, point: Tensor) -> None:
        """Record what the tangents call adversarial if the network itself does: its sums may be rounded otherwise."""
        if len(found):
            with torch.no_grad():
                score = self.certified.frozen.score(point[found])
            self._record(self.rows[found], self.x[found], point[found], score)

    def _record(self, rows: Tensor, x: Tensor, point: Tensor, score: Tensor) -> None:
        """Keep the points with score <= 0 that are nearer than any known."""
        distance = self._length(point - x)
        nearer = (score <= 0) & (distance < self.bounds.radius_upper[rows])
        self.bounds.radius_upper[rows[nearer]] = distance[nearer]
        self.points[rows[nearer]] = point[nearer]

    def _length(self, step: Tensor) -> Tensor:
        (length,) = row_norms(step.flatten(1), [ORDER[self.norm]])
        return length

    def _farthest(self) -> Tensor:
        """How far from x (N,) a point can still be of use: adversarial and nearer than any known, or near enough for
        its tangent to count.
        """
        return torch.minimum(self.bounds.radius_upper[self.rows], REACH * self.bounds.radius[self.rows])

    def _room(self) -> tuple[Tensor, Tensor]:
        """How far each coordinate may go down and up, (N, d)."""
        x = self.x.flatten(1)
        if self.domain == "box":
            return -x, 1 - x
        return torch.full_like(x, -math.inf), torch.full_like(x, math.inf)

    def _within(self, point: Tensor) -> Tensor:
        return point.clamp(0.0, 1.0) if self.domain == "box" else point
