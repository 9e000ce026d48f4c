"""Exact arithmetic, which has the last word on what looks like a violation or a solver's disagreement."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from fcnn import FeatureConvexClassifier

MIXTURES = 20


@dataclass(frozen=True)
class Affine:
    """A function below a convex score: its value at the input x, and its slope."""

    at_x: Fraction
    slope: tuple[Fraction, ...]


def rational_score(classifier: FeatureConvexClassifier, point: Sequence[Fraction]) -> Fraction:
    """The score of a ConvexMLP behind Identity at one input, in exact arithmetic on its float64 weights."""
    return _units(classifier, point)[-1][0] - Fraction(float(classifier.threshold))


def rational_tangent(
    classifier: FeatureConvexClassifier, point: Sequence[Fraction], x: Sequence[Fraction]
) -> Affine:
    """The tangent at a point, below the score everywhere, where the score is a ConvexMLP's behind Identity."""
    free, _, hidden = _layers(classifier)
    units = _units(classifier, point)
    slope = [Fraction(0)] * len(point)
    pull = [Fraction(1)]
    for k in range(len(free) - 1, -1, -1):
        slope = [
            total + _dot(column, pull)
            for total, column in zip(slope, zip(*free[k], strict=True), strict=True)
        ]
        if k:
            below = [_dot(column, pull) for column in zip(*hidden[k - 1], strict=True)]
            pull = [
                value if unit > 0 else Fraction(0) for value, unit in zip(below, units[k - 1], strict=True)
            ]
    value = units[-1][0] - Fraction(float(classifier.threshold))
    steps = [a - b for a, b in zip(x, point, strict=True)]
    return Affine(value + sum(a * step for a, step in zip(slope, steps, strict=True)), tuple(slope))


def proves(tangents: list[Affine], x: Sequence[Fraction], radius: float, norm: str, domain: str) -> bool:
    """Whether one of the functions, or a mixture of two, is positive wherever the step is shorter than the radius."""
    room = [(value, 1 - value) if domain == "box" else None for value in x]
    if any(_is_positive(one, room, radius, norm) for one in tangents):
        return True
    shares = [Fraction(k, MIXTURES) for k in range(1, MIXTURES)]
    return any(
        _is_positive(_mixed(one, other, share), room, radius, norm)
        for one, other in itertools.combinations(tangents, 2)
        for share in shares
    )


def _mixed(one: Affine, other: Affine, share: Fraction) -> Affine:
    slope = tuple(share * a + (1 - share) * b for a, b in zip(one.slope, other.slope, strict=True))
    return Affine(share * one.at_x + (1 - share) * other.at_x, slope)


def _is_positive(
    bound: Affine, room: Sequence[tuple[Fraction, Fraction] | None], radius: float, norm: str
) -> bool:
    steep = [abs(a) for a in bound.slope]
    # How far each coordinate can move the way that hurts; None for as far as the radius.
    caps = [
        None if walls is None else walls[0] if a > 0 else walls[1]
        for walls, a in zip(room, bound.slope, strict=True)
    ]
    if math.isinf(radius):
        if None in caps:
            return bound.at_x > 0 and not any(steep)
        return bound.at_x > sum(a * cap for a, cap in zip(steep, caps, strict=True))
    size = Fraction(radius)
    caps = [size if cap is None else min(cap, size) for cap in caps]
    if norm == "linf":
        return bound.at_x >= sum(a * cap for a, cap in zip(steep, caps, strict=True))
    order = sorted(range(len(steep)), key=lambda i: -steep[i])
    if norm == "l1":
        taken, left = Fraction(0), size
        for i in order:
            step = min(caps[i], left)
            taken, left = taken + steep[i] * step, left - step
        return bound.at_x >= taken
    # Coordinates at their walls take what they can, the others at most what a ball allows.
    for stopped in range(len(order) + 1):
        walled, others = order[:stopped], order[stopped:]
        rest = bound.at_x - sum(steep[i] * caps[i] for i in walled)
        if rest >= 0 and rest * rest >= size * size * sum(steep[i] * steep[i] for i in others):
            return True
    return False


def _layers(classifier: FeatureConvexClassifier) -> tuple[list, list, list]:
    free, offsets, hidden = (
        [tensor.tolist() for tensor in group] for group in classifier.network.to_arrays()
    )
    return free, offsets, hidden


def _units(classifier: FeatureConvexClassifier, point: Sequence[Fraction]) -> list[list[Fraction]]:
    """Every layer's units before their ReLU."""
    mean = classifier.feature_map.mean
    if mean is not None:
        mean = mean.expand(len(point)).tolist()
        point = [value - Fraction(shift) for value, shift in zip(point, mean, strict=True)]
    free, offsets, hidden = _layers(classifier)
    layers: list[list[Fraction]] = []
    for k, (weight, offset) in enumerate(zip(free, offsets, strict=True)):
        units = [_dot(row, point) + Fraction(shift) for row, shift in zip(weight, offset, strict=True)]
        if k:
            before = [max(unit, Fraction(0)) for unit in layers[-1]]
            units = [unit + _dot(row, before) for unit, row in zip(units, hidden[k - 1], strict=True)]
        layers.append(units)
    return layers


def rational_chain(layers: list[tuple[np.ndarray, np.ndarray]], point: Sequence[Fraction]) -> Fraction:
    """The score of dense layers (weights, offsets) with ReLUs between them, in exact arithmetic."""
    values = point
    for place, (weight, offset) in enumerate(layers):
        before = [max(value, Fraction(0)) for value in values] if place else values
        values = [
            _dot(row, before) + Fraction(shift)
            for row, shift in zip(weight.tolist(), offset.tolist(), strict=True)
        ]
    return values[0]


def _dot(row: Sequence[float], values: Sequence[Fraction]) -> Fraction:
    return sum((Fraction(weight) * value for weight, value in zip(row, values, strict=True)), Fraction(0))
