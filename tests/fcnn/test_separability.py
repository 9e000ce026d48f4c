"""Hull distances against known geometry and a quadratic program, and hyperplanes that prove what they claim."""

from fractions import Fraction
from itertools import combinations
from math import comb, nextafter

import numpy as np
import pytest
from scipy.optimize import minimize

from fcnn.separability import Hull, verify
from fcnn.separability_bounds import box_bound, interval_bound, one_sided_bound


def test_distances_to_a_triangle_by_hand():
    hull = Hull(np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]]))
    found = hull.distances(np.array([[-3.0, -4.0], [1.0, -2.0], [2.0, 2.0], [0.5, 0.5]]), tolerance=1e-9)
    assert found.upper == pytest.approx([5.0, 2.0, 2**0.5, 0.0], abs=1e-6)
    assert found.lower[:3] == pytest.approx(found.upper[:3], rel=1e-6)
    assert found.separated.tolist() == [True, True, True, False]


def test_distances_agree_with_a_general_solver():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((12, 5))
    targets = 1.5 * rng.standard_normal((6, 5))
    found = Hull(points).distances(targets, tolerance=1e-8)
    for target, lower, upper in zip(targets, found.lower, found.upper, strict=True):
        solved = minimize(
            lambda w, c=target: ((w @ points - c) ** 2).sum(),
            np.full(12, 1 / 12),
            bounds=[(0, 1)] * 12,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert lower <= np.sqrt(solved.fun) + 1e-6
        assert upper == pytest.approx(np.sqrt(solved.fun), abs=1e-4)


def test_bounds_close_to_the_tolerance_asked_for_in_high_dimension():
    rng = np.random.default_rng(1)
    points, targets = rng.random((300, 200)), rng.random((70, 200))
    found = Hull(points).distances(targets, tolerance=1e-2)
    assert found.separated.all()
    assert (found.upper <= 1.011 * found.lower).all()


def test_hyperplanes_separate_in_exact_arithmetic():
    rng = np.random.default_rng(2)
    points, targets = rng.random((40, 6)), rng.random((10, 6))
    found = Hull(points).distances(targets)
    assert found.separated.any()
    exact_points = [[Fraction(value) for value in point] for point in points]
    for row in np.flatnonzero(found.separated):
        normal = [Fraction(value) for value in found.normals[row]]
        along = [sum(n * p for n, p in zip(normal, point, strict=True)) for point in exact_points]
        own = sum(n * Fraction(t) for n, t in zip(normal, targets[row], strict=True))
        assert min(along) > Fraction(found.offsets[row]) > own
        distance = (min(along) - own) ** 2 / sum(n * n for n in normal)
        assert Fraction(found.lower[row]) ** 2 <= distance


def test_a_point_of_the_hull_is_never_claimed_separated():
    rng = np.random.default_rng(3)
    points = rng.random((30, 4))
    weights = rng.dirichlet(np.ones(30), size=20)
    inside = np.concatenate([weights @ points, points[:5]])
    assert not Hull(points).distances(inside, tolerance=1e-6).separated.any()


def test_rounding_alone_separates_no_point_from_itself():
    """The target is the point that lies farthest against the normal: the exact gap is 0, the computed one is not."""
    rng = np.random.default_rng(4)
    points, normals = 1e6 + rng.random((40, 30)), rng.standard_normal((200, 30))
    targets = points[(normals @ (points - 1e6).T).argmin(axis=1)]
    lower, _, _, _ = verify(normals, targets, points)
    assert (lower == 0).all()


def test_rounding_of_far_points_separates_no_small_target():
    """Targets half way between two points of 1e8, which a hyperplane runs through but for rounding; 0 is beyond it."""
    rng = np.random.default_rng(5)
    for _ in range(100):
        far, sum_of_both = rng.integers(-(10**8), 10**8, 6), 2 * rng.integers(-5, 6, 6)
        points = np.stack([far, sum_of_both - far, np.zeros(6)]).astype(float)
        targets = points[:2].mean(axis=0, keepdims=True)
        along, normal = points[0] - points[1], rng.standard_normal(6)
        normal -= along * (normal @ along) / (along @ along)
        normal *= -np.sign(normal @ targets[0])
        lower, _, _, _ = verify(normal[None], targets, points)
        assert lower[0] == 0


def test_a_wrong_hyperplane_is_refused():
    points, targets = np.eye(3), np.zeros((1, 3))
    lower, _, _, _ = verify(np.array([[-1.0, 0.0, 0.0]]), targets, points)
    assert lower[0] == 0.0


def test_a_hull_needs_points():
    with pytest.raises(ValueError, match="finite points"):
        Hull(np.zeros((0, 3)))


def counted(others: int, inside: int, event) -> Fraction:
    """Probability of an event of one coordinate, by counting all orders of M others and N inside points."""
    ranks = range(others + inside)
    orders = [set(chosen) for chosen in combinations(ranks, inside)]
    return Fraction(sum(event(order) for order in orders), len(orders))


@pytest.mark.parametrize("others", [1, 2, 5])
@pytest.mark.parametrize("inside", [1, 2, 4])
def test_one_coordinate_by_counting(others, inside):
    below = counted(others, inside, lambda order: max(order) == inside - 1)
    apart = counted(others, inside, lambda order: max(order) - min(order) == inside - 1)
    assert one_sided_bound(others, inside, 1) == pytest.approx(float(below), rel=1e-14)
    assert interval_bound(others, inside, 1) == pytest.approx(float(apart), rel=1e-14)
    assert box_bound(others, inside, 1) == pytest.approx(float(apart), rel=1e-14)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 2, 5), (20, 20, 20), (20, 2, 20), (2, 20, 3), (200, 50, 7)])
def test_bounds_are_ordered_probabilities(sizes):
    bounds = [bound(*sizes) for bound in (one_sided_bound, interval_bound, box_bound)]
    assert 0 <= bounds[0] <= bounds[1] <= bounds[2] <= 1


def test_the_box_bound_agrees_with_drawn_boxes():
    rng = np.random.default_rng(4)
    inside, others = rng.random((20_000, 4, 3)), rng.random((20_000, 5, 3))
    low, high = inside.min(axis=1)[:, None], inside.max(axis=1)[:, None]
    empty = ~((others >= low) & (others <= high)).all(axis=2).any(axis=1)
    assert empty.mean() == pytest.approx(box_bound(5, 4, 3), abs=0.015)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_no_bound_is_rounded_up(dimension):
    for others, inside in [(1, 2), (2, 1), (4, 3), (3, 7), (6, 5)]:
        pairs = Fraction(1, comb(others + inside, inside))
        for bound, share in ((one_sided_bound, pairs), (interval_bound, (others + 1) * pairs)):
            exact, found = 1 - (1 - share) ** dimension, bound(others, inside, dimension)
            assert Fraction(found) <= exact < Fraction(nextafter(found, 2.0)), (
                bound.__name__,
                others,
                inside,
            )


def test_bounds_refuse_empty_sets():
    with pytest.raises(ValueError, match="inside = 0"):
        box_bound(3, 0, 2)
