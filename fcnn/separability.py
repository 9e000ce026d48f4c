"""Is data convexly separable? Distances to a convex hull, each with a hyperplane that anyone can check.

Some convex set holds a set of points and excludes another point if and only if that point is outside their convex
hull, and then a hyperplane separates them. Hence a score that is convex in its input can fit two classes perfectly if
and only if no input of the sensitive class lies in the hull of the other. The nearest point of a hull is found with
Wolfe's active-set method on the Gram matrix, which many targets share: P. Wolfe, "Finding the nearest point in a
polytope", Mathematical Programming 11 (1976).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

MAX_STEPS = 3000
# Unit roundoff of float64: |computed dot product - exact| <= n u / (1 - n u) times that of the absolute values.
UNIT_ROUNDOFF = 2.0**-53
CHUNK = 64


@dataclass(frozen=True)
class Distances:
    """Distances of targets to a hull: bounds in l2, lower (T,) and upper (T,), and what proves them.

    lower: positive only where a separation was verified. normals: (T, d) from each target towards the hull. offsets:
    (T,) such that <normal, point> > offset > <normal, target> for every point of the hull, where ``lower`` > 0. steps:
    (T,) how many steps the search took.
    """

    lower: np.ndarray
    upper: np.ndarray
    normals: np.ndarray
    offsets: np.ndarray
    steps: np.ndarray

    @property
    def separated(self) -> np.ndarray:
        """Which targets (T,) are proved to lie outside the hull."""
        return self.lower > 0


class Hull:
    """Convex hull of points (P, d), prepared for many distances: the Gram matrix takes P^2 x 8 bytes."""

    def __init__(self, points: np.ndarray) -> None:
        if points.ndim != 2 or not len(points) or not np.isfinite(points).all():
            raise ValueError(f"a hull needs finite points (P, d) with P >= 1, got shape {points.shape}")
        self.points = np.asarray(points, dtype=np.float64)
        self.centre = self.points.mean(axis=0)
        # Products of centred points are smaller, and lose less to cancellation.
        self._centred = self.points - self.centre
        self._gram = self._centred @ self._centred.T

    def distances(self, targets: np.ndarray, tolerance: float = 1e-2) -> Distances:
        """Return the distances of targets (T, d), upper <= (1 + tolerance) lower where the search ended in time."""
        parts = [self._chunk(chunk, tolerance) for chunk in _chunks(np.asarray(targets, dtype=np.float64))]
        joined = [
            np.concatenate([getattr(part, name) for part in parts]) for name in Distances.__annotations__
        ]
        return Distances(*joined)

    def _chunk(self, targets: np.ndarray, tolerance: float) -> Distances:
        centred = targets - self.centre
        products = centred @ self._centred.T
        weights = np.zeros((len(targets), len(self.points)))
        steps = np.zeros(len(targets), dtype=np.int64)
        for row, target in enumerate(centred):
            search = _NearestPoint(self._gram, products[row], float(target @ target), tolerance)
            steps[row] = search.run()
            weights[row, search.support] = search.weights
        normals = weights @ self.points - targets
        return Distances(*verify(normals, targets, self.points), steps=steps)


class _NearestPoint:
    """Wolfe's method for one target c: minimise |sum_j w_j p_j - c|^2 over weights w >= 0 that sum to 1.

    gram: (P, P) products of the points; products: (P,) of the points with c; square: c . c.
    """

    def __init__(self, gram: np.ndarray, products: np.ndarray, square: float, tolerance: float) -> None:
        self.gram, self.products, self.square, self.tolerance = gram, products, square, tolerance
        nearest = int(np.argmin(np.diagonal(gram) - 2 * products))
        self.support, self.weights = [nearest], np.ones(1)
        self._rows = np.empty((64, len(gram)))
        self._rows[0] = gram[nearest]

    def run(self) -> int:
        """Search until the bounds are close, the target is in the hull, or MAX_STEPS; return the steps."""
        for step in range(1, MAX_STEPS + 1):
            # <p_j - c, x> for every j, where x = sum_j w_j p_j - c is the current vector from c to the hull.
            along = self.weights @ self._rows[: len(self.support)] - self.products
            along -= self.products[self.support] @ self.weights - self.square
            length = float(along[self.support] @ self.weights)
            entering = int(np.argmin(along))
            inside = length <= 1e-12 * self.square
            if inside or length - along[entering] <= self.tolerance * length or entering in self.support:
                return step
            self._enter(entering)
            self._move_to_minimum()
        return MAX_STEPS

    def _enter(self, index: int) -> None:
        count = len(self.support)
        if count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[count] = self.gram[index]
        self.support.append(index)
        self.weights = np.append(self.weights, 0.0)

    def _move_to_minimum(self) -> None:
        """Go to the nearest point of the support's affine hull; drop points whose weight would turn negative."""
        while True:
            minimum = self._affine_minimum()
            if (minimum > 0).all():
                self.weights = minimum
                return
            falling = np.flatnonzero(minimum <= 0)
            shares = self.weights[falling] / (self.weights[falling] - minimum[falling])
            first = int(np.argmin(shares))
            self.weights += shares[first] * (minimum - self.weights)
            self._drop(int(falling[first]))

    def _affine_minimum(self) -> np.ndarray:
        products = self.products[self.support]
        shifted = self._rows[: len(products), self.support] - products - products[:, None] + self.square
        # A trace of ridge keeps nearly dependent points solvable; the bounds are verified whatever comes out.
        shifted[np.diag_indices(len(products))] += 1e-10 * np.trace(shifted) / len(products)
        solution = cho_solve(cho_factor(shifted, lower=True, check_finite=False), np.ones(len(products)))
        return solution / solution.sum()

    def _drop(self, place: int) -> None:
        count = len(self.support)
        self._rows[place : count - 1] = self._rows[place + 1 : count].copy()
        del self.support[place]
        self.weights = np.delete(np.maximum(self.weights, 0.0), place)
        self.weights /= self.weights.sum()


def verify(
    normals: np.ndarray, targets: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Check hyperplanes in float64; return (lower (T,), upper (T,), normals (T, d), offsets (T,)).

    normals, targets: (T, d); points: (P, d). ``lower`` is the proved distance, (min_j <normal, p_j> - <normal, target>)
    / |normal| less a bound on all that rounding can do, and 0 where that is not positive; ``upper`` is |normal|, the
    distance to the hull's point that the normal leads to. Nothing of the search is trusted.
    """
    dimension = points.shape[1]
    growth = (dimension + 2) * UNIT_ROUNDOFF / (1 - (dimension + 2) * UNIT_ROUNDOFF)
    to_points = (normals @ points.T).min(axis=1)
    to_target = np.einsum("td,td->t", normals, targets)
    sizes = np.abs(normals)
    slack = growth * (sizes @ np.abs(points).max(axis=0) + np.einsum("td,td->t", sizes, np.abs(targets)))
    gap = to_points - to_target - 2 * slack
    length = np.linalg.norm(normals, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        lower = np.where(gap > 0, gap / length * (1 - 1e-12), 0.0)
    return lower, length, normals, (to_points + to_target) / 2


def _chunks(targets: np.ndarray) -> Iterator[np.ndarray]:
    if targets.ndim != 2:
        raise ValueError(f"targets must have shape (T, d), got {targets.shape}")
    for start in range(0, len(targets), CHUNK):
        yield targets[start : start + CHUNK]
