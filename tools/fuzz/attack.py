"""The nearest adversarial points that a batched search finds: scans along rays, bisection, and steps that polish.

Nothing here knows how a radius was certified. A point counts when the score, evaluated there, is not positive; its
distance is computed from the point itself.
"""

import math

import numpy as np
import torch
from torch import Tensor

from tools.fuzz.case import ORDER, Score

# Shares of the radius to look at, some of them just inside.
LEVELS = (0.3, 0.7, 0.95, 1 - 1e-5, 1 + 1e-7, 1 + 1e-4, 1.01, 1.06, 1.2, 1.5, 2.2, 4, 10, 60, 1e3, 1e5)
# Each round looks at so many points at once, and leaves one of the intervals between them.
ROUNDS = 11
INTERVALS = 16
POLISHES = 3
VARIANTS = 8
EVALUATED = 2**16


class Nearest:
    """The nearest adversarial points known of inputs x (N, *shape): ``distance`` (N,), inf, and ``point``, NaN."""

    def __init__(self, score: Score, x: Tensor, norm: str, domain: str) -> None:
        self.score, self.x, self.norm, self.domain = score, x, norm, domain
        self.flat = x.flatten(1)
        self.distance = torch.full((len(x),), math.inf, dtype=torch.float64)
        self.point = torch.full_like(self.flat, math.nan)

    def offer(self, points: Tensor) -> None:
        """Take points (N, K, d) that are adversarial, in the domain and nearer than those known."""
        points = self._within(points)
        scores = self._scores(points)
        distance = self._length(points - self.flat[:, None])
        distance = torch.where((scores <= 0) & points.isfinite().all(2), distance, math.inf)
        least, index = distance.min(1)
        nearer = least < self.distance
        self.distance[nearer] = least[nearer]
        self.point[nearer] = points[torch.arange(len(points)), index][nearer]

    def scan(self, directions: Tensor, reach: Tensor) -> None:
        """Look along directions (N, R, d) of length 1 at multiples of reach (N,), then bisect to the boundary."""
        levels = reach[:, None] * torch.tensor(LEVELS, dtype=torch.float64)
        points = self.flat[:, None, None] + levels[:, None, :, None] * directions[:, :, None]
        self.offer(points.flatten(1, 2))
        self.bisect()

    def bisect(self) -> None:
        """Move each point towards x for as long as it stays adversarial."""
        rows = self.distance.isfinite().nonzero()[:, 0]
        if not len(rows):
            return
        x, far = self.flat[rows][:, None], self.point[rows][:, None]
        near, width = torch.zeros(len(rows), 1), torch.ones(len(rows), 1)
        near, width = near.double(), width.double()
        best = far[:, 0].clone()
        shares = torch.arange(1, INTERVALS, dtype=torch.float64)[None] / INTERVALS
        every = torch.arange(len(rows))
        for _ in range(ROUNDS):
            points = x + (near + width * shares)[..., None] * (far - x)
            wrong = self._scores(points) <= 0
            first = torch.where(wrong.any(1), wrong.int().argmax(1), INTERVALS - 1)
            hit = first < INTERVALS - 1
            best = torch.where(hit[:, None], points[every, first.clamp(max=INTERVALS - 2)], best)
            width = width / INTERVALS
            near = near + first[:, None] * width
        distance = self._length(best - x[:, 0])
        nearer = distance < self.distance[rows]
        self.distance[rows[nearer]], self.point[rows[nearer]] = distance[nearer], best[nearer]

    def polish(self, rng: np.random.Generator) -> None:
        """Follow the steepest way at the points known, and jiggle them."""
        for _ in range(POLISHES):
            known = self.distance.isfinite()
            if not bool(known.any()):
                return
            point = torch.where(known[:, None], self.point, self.flat)
            steep = self.steepest(point)
            size = torch.where(known, self.distance, 0.0)[:, None, None]
            levels = torch.tensor([0.9, 0.99, 1 - 1e-4, 1 - 1e-7], dtype=torch.float64)[None, :, None]
            along = self.flat[:, None] + size * levels * steep[:, None]
            step = (point - self.flat)[:, None]
            noise = torch.tensor(rng.normal(size=(len(step), VARIANTS, step.shape[2])))
            kept = torch.tensor(rng.random((1, VARIANTS, 1)) < 0.5)
            jiggled = step * torch.where(kept, noise.sign().clamp(min=0), 1 + 0.2 * noise)
            mixed = step + 0.1 * size * noise / self._length(noise)[..., None]
            shrunk = torch.cat([jiggled, mixed], 1)
            length = self._length(shrunk).clamp(min=1e-300)[..., None]
            shrunk = shrunk * torch.minimum(size * (1 - 1e-5) / length, torch.ones(()))
            self.offer(torch.cat([along, self.flat[:, None] + shrunk], 1))
            self.bisect()

    def steepest(self, point: Tensor) -> Tensor:
        """The direction (N, d) of length 1 in which the score falls fastest at a point (N, d)."""
        point = point.clone().requires_grad_()
        with torch.enable_grad():
            score = self.score(point.reshape(self.x.shape))
            if not score.requires_grad:
                return torch.zeros_like(point)
            (gradient,) = torch.autograd.grad(score.sum(), point)
        if self.domain == "box":
            blocked = ((gradient > 0) & (self.flat <= 0)) | ((gradient < 0) & (self.flat >= 1))
            gradient = torch.where(blocked, 0.0, gradient)
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        gradient = gradient / gradient.abs().amax(1, keepdim=True).clamp(min=1e-300)
        if self.norm == "linf":
            return -gradient.sign()
        if self.norm == "l2":
            return -gradient / torch.linalg.vector_norm(gradient, dim=1, keepdim=True).clamp(min=1e-300)
        place = gradient.abs().argmax(1, keepdim=True)
        return torch.zeros_like(gradient).scatter(1, place, -gradient.gather(1, place).sign())

    def _within(self, points: Tensor) -> Tensor:
        return points.clamp(0.0, 1.0) if self.domain == "box" else points

    def _length(self, step: Tensor) -> Tensor:
        return torch.linalg.vector_norm(step, ord=ORDER[self.norm], dim=-1)

    def _scores(self, points: Tensor) -> Tensor:
        """Scores (N, K) of points (N, K, d), (N,) of (N, 1, d) bisected; NaN counts as positive."""
        flat = points.reshape(-1, *self.x.shape[1:])
        with torch.no_grad():
            scores = torch.cat(
                [self.score(part) for part in flat.split(max(1, EVALUATED // flat[0].numel()))]
            )
        return scores.reshape(points.shape[:2])


def directions(nearest: Nearest, rng: np.random.Generator, rays: int) -> Tensor:
    """Directions (N, R, d) of length 1: the steepest, the axes, corners and random ones; all angles where d = 2."""
    count, d = nearest.flat.shape
    shared = [torch.eye(d, dtype=torch.float64)[:16], -torch.eye(d, dtype=torch.float64)[:16]]
    if d == 2:
        angle = torch.linspace(0, 2 * math.pi, 8 * rays + 1, dtype=torch.float64)[:-1]
        shared += [torch.stack([angle.cos(), angle.sin()], 1)]
    else:
        normal = torch.tensor(rng.normal(size=(rays, d)))
        shared += [normal, normal.sign()[: rays // 2], normal * torch.tensor(rng.random((rays, d)) < 0.5)]
    spread = torch.cat(shared)
    length = nearest._length(spread)
    spread = (spread / length[:, None])[length > 0]
    own = nearest.steepest(nearest.flat)[:, None]
    return torch.cat([own, spread.expand(count, -1, -1)], 1)


def nearest_points(
    score: Score,
    x: Tensor,
    norm: str,
    domain: str,
    reach: Tensor,
    hints: list[Tensor],
    rng: np.random.Generator,
    rays: int = 16,
) -> Nearest:
    """Search around x (N, *shape), whose largest certified radius is reach (N,), from points (N, *shape) given."""
    nearest = Nearest(score, x, norm, domain)
    nearest.scan(directions(nearest, rng, rays), torch.where(reach.isfinite() & (reach > 0), reach, 0.1))
    if hints:
        nearest.offer(torch.stack([hint.flatten(1) for hint in hints], 1))
        nearest.bisect()
    nearest.polish(rng)
    return nearest
