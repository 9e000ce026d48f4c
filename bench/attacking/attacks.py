"""Attacks that look for a counterexample inside a certified radius.

``norm_exact`` never leaves the ball, in any norm, so a success is a proof that a certificate is wrong.
``bench.attacking.library_attacks`` runs torchattacks beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.basics.errors import unknown
from bench.contract import NORMS

Score = Callable[[Tensor], Tensor]
ORDERS = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}


@dataclass(frozen=True)
class AttackSettings:
    """steps per restart; restarts from random points of the ball, the first from the input itself; both at least 1."""

    steps: int = 40
    restarts: int = 3
    step_share: float = 2.5


@dataclass(frozen=True)
class Attacked:
    """points (N, *shape) with the lowest scores (N,) found; an input is broken where the score is <= 0."""

    points: Tensor
    scores: Tensor

    @property
    def broken(self) -> Tensor:
        return self.scores <= 0


def norm_exact(
    score: Score,
    x: Tensor,
    radius: Tensor,
    norm: str,
    domain: str,
    settings: AttackSettings | None = None,
    seed: int = 0,
    mutable: Tensor | None = None,
) -> Attacked:
    """Lower the score of x (N, *shape) within its own radius (N,) by projected steepest descent.

    radius may be inf only in the box, where it is the box's diameter. The step is the steepest one of the norm: a few
    coordinates for l1, the gradient's direction for l2, its sign for linf. mutable: (*shape) bool, the only features
    that move; None: all. Raises UsageError for an unknown norm.
    """
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    settings = settings or AttackSettings()
    generator = torch.Generator().manual_seed(seed)
    radius = radius.to(x).clamp(max=float(torch.linalg.vector_norm(torch.ones(x[0].numel()), ORDERS[norm])))
    best = Attacked(x, score(x).detach())
    for attempt in range(settings.restarts):
        start = torch.zeros_like(x.flatten(1))
        if attempt:
            start = _moving(torch.randn(start.shape, generator=generator).to(start), mutable)
            start = project(start * radius[:, None], radius, norm)
        best = better(best, _descend(score, x, start, radius, norm, domain, settings, mutable))
    return best


def _moving(delta: Tensor, mutable: Tensor | None) -> Tensor:
    """Return delta (N, d) without what moves features that are not mutable."""
    return delta if mutable is None else delta * mutable.flatten().to(delta)


def project(delta: Tensor, radius: Tensor, norm: str) -> Tensor:
    """Return the point of each ball of radius (N,) nearest to delta (N, d) (l1, linf: nearest in l2)."""
    if norm == "linf":
        return delta.clamp(-radius[:, None], radius[:, None])
    if norm == "l2":
        size = torch.linalg.vector_norm(delta, dim=1)
        return delta * (radius / size.clamp(min=1e-30)).clamp(max=1)[:, None]
    return _project_l1(delta, radius)


def _project_l1(delta: Tensor, radius: Tensor) -> Tensor:
    """Soft-threshold each row so that its l1 norm is the radius. Source: Duchi et al., ICML 2008, figure 1."""
    size = delta.abs()
    ordered = size.sort(dim=1, descending=True).values
    count = torch.arange(1, delta.shape[1] + 1, device=delta.device, dtype=delta.dtype)
    excess = (ordered.cumsum(dim=1) - radius[:, None]) / count
    last = (ordered > excess).sum(dim=1, keepdim=True).clamp(min=1) - 1
    threshold = excess.gather(1, last).clamp(min=0)
    shrunk = delta.sign() * (size - threshold).clamp(min=0)
    return torch.where((size.sum(dim=1) <= radius)[:, None], delta, shrunk)


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """Return the directions (N, d) of unit norm that lower a linear score most; for l1 spread over the top 1 %."""
    if norm == "linf":
        return -gradient.sign()
    if norm == "l2":
        return -gradient / torch.linalg.vector_norm(gradient, dim=1, keepdim=True).clamp(min=1e-30)
    count = max(1, gradient.shape[1] // 100)
    top = gradient.abs().topk(count, dim=1).indices
    direction = torch.zeros_like(gradient).scatter(1, top, -gradient.gather(1, top).sign())
    return direction / count


def _descend(
    score: Score,
    x: Tensor,
    delta: Tensor,
    radius: Tensor,
    norm: str,
    domain: str,
    settings: AttackSettings,
    mutable: Tensor | None,
) -> Attacked:
    best = Attacked(x, torch.full_like(radius, torch.inf))
    for step in range(settings.steps + 1):
        points = inside(x, delta, radius, norm, domain).requires_grad_()
        with torch.enable_grad():
            value = score(points)
            (gradient,) = torch.autograd.grad(value.sum(), points)
        best = better(best, Attacked(points.detach(), value.detach()))
        # Long steps first, short ones to settle.
        length = settings.step_share * radius * (1 - step / (settings.steps + 1)) / settings.steps**0.5
        if domain == "box":  # a coordinate at its bound must not use up the step
            gradient = gradient.masked_fill(
                (points <= 0) & (gradient > 0) | (points >= 1) & (gradient < 0), 0.0
            )
        move = length[:, None] * _moving(steepest(_moving(gradient.flatten(1), mutable), norm), mutable)
        delta = project((points.detach() - x).flatten(1) + move, radius, norm)
    return best


def inside(x: Tensor, delta: Tensor, radius: Tensor, norm: str, domain: str) -> Tensor:
    """Return points of the ball (and box); clipping to the box shrinks every |delta_i|, so it stays in the ball.

    Adding delta to x rounds each coordinate by at most half of eps (|x_i| + |delta_i|). Twice as much is kept free, or
    a point at the very edge, where wrong certificates break, would lie outside and count for nothing.
    """
    flat = x.flatten(1)
    rounding = torch.finfo(x.dtype).eps * torch.linalg.vector_norm(
        flat.abs() + delta.abs(), ord=ORDERS[norm], dim=1
    )
    size = torch.linalg.vector_norm(delta, ord=ORDERS[norm], dim=1)
    delta = delta * ((radius - rounding).clamp(min=0) / size.clamp(min=1e-30)).clamp(max=1)[:, None]
    points = x + delta.view_as(x)
    return points.clamp(0, 1) if domain == "box" else points


def better(one: Attacked, other: Attacked) -> Attacked:
    lower = other.scores < one.scores
    shape = (-1,) + (1,) * (one.points.dim() - 1)
    return Attacked(
        torch.where(lower.view(shape), other.points, one.points), torch.where(lower, other.scores, one.scores)
    )
