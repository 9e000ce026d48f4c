"""Holding a case's radii against what is true: the comparison, and the confirmation of what looks like a violation."""

import math
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

from tools.fuzz.attack import Nearest, nearest_points
from tools.fuzz.case import ORDER, Case, Key
from tools.fuzz.rational import proves

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
    radius / truth. contradicted: answers of solvers below a radius, where no adversarial point is. refuted: those whose
    own point is not adversarial in exact arithmetic; proved: radii among them that exact tangents prove.
    """

    points: int = 0
    exact: int = 0
    worst: float = 0.0
    contradicted: int = 0
    refuted: int = 0
    proved: int = 0
    violations: list[Violation] = field(default_factory=list)


@dataclass(frozen=True)
class Truth:
    """What is known of N inputs in one norm and domain.

    distance (N,), point (N, d): nearest adversarial points found. solved (N,): an oracle's answers, NaN for none, and
    solved_point (N, d), NaN likewise.
    """

    distance: Tensor
    point: Tensor
    solved: Tensor
    solved_point: Tensor


def hold(case: Case) -> dict[Key, Held]:
    """Hold every radius of a case against the nearest adversarial points found and, where there is one, the oracle."""
    rng, held = case.recipe.generator(9), {}
    for norm, domain in sorted({(key.norm, key.domain) for key in case.radii}):
        keys = [key for key in case.radii if (key.norm, key.domain) == (norm, domain)]
        reach = torch.stack([case.radii[key].nan_to_num(posinf=0.0) for key in keys]).amax(0)
        rays = 16 if case.cheap else 4
        rows = torch.stack([case.radii[key] > 0 for key in keys]).any(0).nonzero()[:, 0]
        if not len(rows):
            continue
        hints = [hint[rows] for hint in case.hints.get((norm, domain), [])]
        nearest = nearest_points(case.score, case.x[rows], norm, domain, reach[rows], hints, rng, rays)
        truth = _known(case, norm, domain, nearest, rows)
        for key in keys:
            held[key] = _compare(case, key, truth)
    return held


def _known(case: Case, norm: str, domain: str, nearest: Nearest, rows: Tensor) -> Truth:
    """The points found around some of the inputs and the oracle's answers, whose points are tried as well."""
    count, d = case.x.flatten(1).shape
    solved, solved_point = (
        torch.full_like(nearest.distance, math.nan),
        torch.full_like(nearest.flat, math.nan),
    )
    if case.exact is not None:
        try:
            distances, points = case.exact(norm, domain, rows, nearest.distance)
        except (RuntimeError, ValueError):  # the solver gave up
            distances, points = solved[:0], None
        solved[: len(distances)] = distances
        if points is not None:
            solved_point[: len(points)] = points.flatten(1)
            nearest.offer(solved_point[:, None])
    nothing = torch.full((count,), math.nan, dtype=torch.float64)
    nowhere = torch.full((count, d), math.nan, dtype=torch.float64)
    return Truth(
        torch.full_like(nothing, math.inf).index_copy(0, rows, nearest.distance),
        nowhere.index_copy(0, rows, nearest.point),
        nothing.index_copy(0, rows, solved),
        nowhere.index_copy(0, rows, solved_point),
    )


def _compare(case: Case, key: Key, truth: Truth) -> Held:
    held = Held()
    numbers = zip(case.radii[key].tolist(), truth.distance.tolist(), truth.solved.tolist(), strict=True)
    for row, (radius, found, solved) in enumerate(numbers):
        if not radius > 0:
            continue
        above = radius > found * (1 + TOLERANCE)
        if math.isfinite(found):
            held.points += 1
            if math.isfinite(radius) and found > 0:
                held.worst = max(held.worst, radius / found)
            if above:
                violation = confirm(case, key, row, truth.point[row], radius)
                if violation is not None:
                    held.violations.append(violation)
        if math.isnan(solved):
            continue
        if radius <= solved * (1 + TOLERANCE):
            held.exact += 1
            held.points += not math.isfinite(found)
        elif not above:
            held.contradicted += 1
            held.refuted += _is_refuted(case, truth, row)
            held.proved += _is_proved(case, key, truth, row, radius)
    return held


def _is_refuted(case: Case, truth: Truth, row: int) -> bool:
    """Whether the solver's own point is not adversarial, or not the step from the input that it says."""
    point = truth.solved_point[row]
    if case.rational is None or not bool(point.isfinite().all()):
        return False
    return case.rational([Fraction(value) for value in point.tolist()]) > 0


def _is_proved(case: Case, key: Key, truth: Truth, row: int, radius: float) -> bool:
    """Whether tangents in exact arithmetic prove the radius: at the input and at the points found."""
    if case.tangent is None:
        return False
    x = [Fraction(value) for value in case.x[row].flatten().tolist()]
    points = [p for p in (truth.solved_point[row], truth.point[row]) if bool(p.isfinite().all())]
    places = [x, *[[Fraction(value) for value in p.tolist()] for p in points]]
    return proves([case.tangent(place, x) for place in places], x, radius, key.norm, key.domain)


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
