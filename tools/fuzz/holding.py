"""Holding a case's radii against what is true: the comparison, and the confirmation of what looks like a violation."""

import math
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

from tools.fuzz.attack import nearest_points
from tools.fuzz.case import ORDER, Case, Key

TOLERANCE = 1e-6


@dataclass
class Violation:
    """A radius beyond an adversarial point. exact_score: the score there in exact arithmetic, None where not known."""

    key: Key
    radius: float
    distance: float
    x: list[float]
    point: list[float]
    exact_score: float | None


@dataclass
class Held:
    """What became of the radii of one key.

    points, exact: radii held against an adversarial point, or an exact answer besides. worst: the largest ratio
    radius / truth. contradicted: exact answers below a radius that no evaluation of the network supports.
    """

    points: int = 0
    exact: int = 0
    worst: float = 0.0
    contradicted: int = 0
    violations: list[Violation] = field(default_factory=list)


def hold(case: Case) -> dict[Key, Held]:
    """Hold every radius of a case against the nearest adversarial points found and, where there is one, the oracle."""
    rng, held = case.recipe.generator(9), {}
    for norm, domain in sorted({(key.norm, key.domain) for key in case.radii}):
        keys = [key for key in case.radii if (key.norm, key.domain) == (norm, domain)]
        reach = torch.stack([case.radii[key].nan_to_num(posinf=0.0) for key in keys]).amax(0)
        hints = case.hints.get((norm, domain), [])
        rays = 16 if case.cheap else 4
        nearest = nearest_points(case.score, case.x, norm, domain, reach, hints, rng, rays)
        known = _exact(case, norm, domain)
        for key in keys:
            held[key] = _compare(case, key, nearest.distance, nearest.point, known)
    return held


def _exact(case: Case, norm: str, domain: str) -> Tensor | None:
    """Distances of the first inputs by the case's oracle; None without one, or where its solver gave up."""
    if case.exact is None:
        return None
    try:
        answer = case.exact(norm, domain)
    except (RuntimeError, ValueError):
        return None
    return None if answer is None else answer[0]


def _compare(case: Case, key: Key, distance: Tensor, point: Tensor, known: Tensor | None) -> Held:
    held = Held()
    radii = case.radii[key].tolist()
    for row, (radius, found) in enumerate(zip(radii, distance.tolist(), strict=True)):
        if not radius > 0:
            continue
        exact = known[row].item() if known is not None and row < len(known) else None
        if math.isfinite(found):
            held.points += 1
            held.worst = max(held.worst, radius / found if math.isfinite(radius) else 0.0)
            if radius > found * (1 + TOLERANCE):
                violation = confirm(case, key, row, point[row], radius)
                if violation is not None:
                    held.violations.append(violation)
        if exact is None:
            continue
        if radius <= exact * (1 + TOLERANCE):
            held.exact += 1
            held.points += not math.isfinite(found)
        elif not radius > found * (1 + TOLERANCE):
            held.contradicted += 1
    return held


def confirm(case: Case, key: Key, row: int, point: Tensor, radius: float) -> Violation | None:
    """The violation, where the point lies strictly inside in exact arithmetic and the network by itself agrees."""
    x = case.x[row].flatten()
    steps = [abs(Fraction(a) - Fraction(b)) for a, b in zip(point.tolist(), x.tolist(), strict=True)]
    if math.isfinite(radius):
        limit = Fraction(radius)
        inside = {
            1.0: sum(steps) < limit,
            2.0: sum(step * step for step in steps) < limit * limit,
            math.inf: max(steps) < limit,
        }[ORDER[key.norm]]
        if not inside:
            return None
    if key.domain == "box" and not (bool((point >= 0).all()) and bool((point <= 1).all())):
        return None
    with torch.no_grad():
        score = float(case.score(point.reshape(1, *case.x.shape[1:])))
    exact = None
    if case.rational is not None:
        value = case.rational([Fraction(number) for number in point.tolist()])
        exact = float(value) if abs(value) < Fraction(10) ** 300 else math.copysign(1e300, value)
        score = 1.0 if value > 0 else score
    if score > 0:
        return None
    length = float(torch.linalg.vector_norm(point - x, ord=ORDER[key.norm]))
    return Violation(key, radius, length, x.tolist(), point.tolist(), exact)
