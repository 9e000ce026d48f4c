"""The concave bounds behind the feature map (x - mean, |x - mean|), against the function they bound and solvers."""

import math

import numpy as np
import pytest
import torch
from convex_examples import NORMS
from scipy.optimize import linprog, minimize

from fcnn import CenteredAbs
from fcnn.certificates import separable
from fcnn.segments import Segments, decrease_segments, segment_radius


@pytest.fixture(scope="module")
def coordinates():
    """Gradients (u, v), inputs and means of 400 coordinates, the corner cases among them."""
    generator = np.random.default_rng(0)
    u, v = generator.normal(size=(2, 400))
    x, mean = generator.random((2, 400))
    u[:20], v[20:40], v[40:60] = 0.0, 0.0, np.abs(u[40:60])
    x[60:80], x[80:100], x[100:120], mean[120:140] = 0.0, 1.0, mean[100:120], -0.3
    return u, v, x, mean


def segments_of(coordinates, box):
    u, v, x, mean = (torch.tensor(part)[:, None] for part in coordinates)
    feature_map = CenteredAbs(mean)
    pieces = []
    for row in range(len(x)):
        feature_map = CenteredAbs(mean[row])
        gradient = torch.cat([u[row], v[row]])[None]
        pieces.append(decrease_segments(feature_map, gradient, x[row][None], box))
    fields = ("near_weight", "near_room", "far_weight", "far_room")
    return {name: torch.cat([getattr(piece, name) for piece in pieces])[:, 0].numpy() for name in fields}


def best_decrease(coordinates, moves, box):
    """Running maximum over |δ| <= t of -(u δ + v (|c + δ| - |c|)) for t on the grid ``moves``, (count, len(moves))."""
    u, v, x, mean = (part[:, None] for part in coordinates)
    best = np.zeros((len(u), len(moves)))
    for sign in (-1, 1):
        delta = sign * moves[None]
        decrease = -(u * delta + v * (np.abs(x - mean + delta) - np.abs(x - mean)))
        inside = (x + delta >= 0) & (x + delta <= 1)
        best = np.maximum(best, np.where(inside | (not box), decrease, -math.inf))
    return np.maximum.accumulate(best, axis=1)


@pytest.mark.parametrize("box", [False, True])
def test_segments_bound_the_decrease(coordinates, box):
    moves = np.linspace(0, 1 if box else 6, 601)
    bound = segments_of(coordinates, box)
    near, near_room, far, far_room = (
        bound[name][:, None] for name in ("near_weight", "near_room", "far_weight", "far_room")
    )
    beyond = np.minimum(np.maximum(moves - near_room, 0), far_room)
    bounded = near * np.minimum(moves, near_room) + far * beyond
    best = best_decrease(coordinates, moves, box)
    assert (bounded >= best - 1e-12).all()
    assert (near >= far).all() and (far >= 0).all()


def test_segments_are_the_concave_envelope_in_the_box(coordinates):
    """A concave majorant can only be lowered where it does not touch: both of its ends must touch the decrease."""
    u, v, x, mean = coordinates
    bound = segments_of(coordinates, box=True)
    reach = np.where(bound["near_weight"] > 0, bound["near_room"], 0)
    for end in (reach, reach + np.where(bound["far_weight"] > 0, bound["far_room"], 0)):
        promised = bound["near_weight"] * reach + bound["far_weight"] * (end - reach)
        deltas = np.stack([end, -end])
        decrease = -(u * deltas + v * (np.abs(x - mean + deltas) - np.abs(x - mean)))
        inside = (x + deltas >= -1e-12) & (x + deltas <= 1 + 1e-12)
        np.testing.assert_allclose(np.where(inside, decrease, -1).max(0).clip(0), promised, atol=1e-12)


@pytest.mark.parametrize("box", [False, True])
def test_segments_never_exceed_the_separable_weights(coordinates, box):
    u, v, *_ = coordinates
    bound = segments_of(coordinates, box)
    assert (bound["near_weight"] <= np.abs(u) + np.abs(v) + 1e-12).all()
    assert (bound["near_weight"] < np.abs(u) + np.abs(v) - 0.1).mean() > 0.15


def random_segments(seed, count=25, d=4):
    generator = np.random.default_rng(seed)
    near = generator.random((count, d)) * generator.choice([1.0, 0.0], (count, d), p=[0.85, 0.15])
    far = near * generator.choice([0.0, 0.5, 1.0], (count, d))
    near_room, far_room = generator.choice([0.0, 0.3, 0.7], (2, count, d))
    room = (near * near_room + far * far_room).sum(1)
    margin = generator.choice([0.2, 0.6, 0.95, 1.3], count) * room + 1e-3 * (room == 0)
    return margin, near, near_room, far, far_room


def two_slope_program(margin, near, near_room, far, far_room, norm):
    """min ‖p + q‖ with near·p + far·q >= margin, 0 <= p <= near_room, 0 <= q <= far_room."""
    if near @ near_room + far @ far_room < margin:
        return math.inf
    d, weights = len(near), np.append(near, far)
    bounds = [(0, room) for room in np.append(near_room, far_room)]
    if norm == "l1":
        return linprog(np.ones(2 * d), A_ub=-weights[None], b_ub=[-margin], bounds=bounds).fun
    if norm == "linf":
        rows = np.vstack([np.append(-weights, 0.0), np.hstack([np.eye(d), np.eye(d), -np.ones((d, 1))])])
        limits = np.append(-margin, np.zeros(d))
        return linprog(np.eye(2 * d + 1)[-1], A_ub=rows, b_ub=limits, bounds=[*bounds, (0, None)]).fun
    constraint = {"type": "ineq", "fun": lambda z: weights @ z - margin, "jac": lambda z: weights}
    result = minimize(
        lambda z: ((z[:d] + z[d:]) ** 2).sum(),
        np.append(near_room, far_room),
        jac=lambda z: np.tile(2 * (z[:d] + z[d:]), 2),
        bounds=bounds,
        constraints=constraint,
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return math.sqrt(result.fun)


@pytest.mark.parametrize("norm", NORMS)
def test_segment_radius_solves_the_program(norm):
    problems = random_segments(seed=3)
    margin, *parts = (torch.tensor(part) for part in problems)
    radii = segment_radius(margin, Segments(*parts), norm).numpy()
    expected = np.array([two_slope_program(*problem, norm) for problem in zip(*problems, strict=True)])
    assert np.isinf(expected).any()
    np.testing.assert_allclose(radii, expected, rtol=1e-5, atol=1e-9)
    assert (radii <= expected * (1 + 1e-6)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_segment_radius_of_one_coordinate(norm):
    """0.3 at slope 1 and the rest at a smaller slope; in l2 the level rises without any gain in between."""
    far = torch.tensor([[0.25], [0.5], [0.01], [0.3]], dtype=torch.float64)
    missing = torch.tensor([0.1, 0.1, 0.1, 1e-4], dtype=torch.float64)
    near_room, far_room = torch.full_like(far, 0.3), torch.full_like(far, 20.0)
    exact = 0.3 + missing / far[:, 0]
    radii = segment_radius(0.3 + missing, Segments(torch.ones_like(far), near_room, far, far_room), norm)
    torch.testing.assert_close(radii, exact, rtol=1e-6, atol=0)
    assert (radii <= exact).all()


@pytest.mark.parametrize("norm", NORMS)
def test_kinks_enlarge_the_free_radius(norm):
    """Moving away from the mean of a coordinate with v > |u| > 0 can only raise the score."""
    feature_map, x = CenteredAbs(torch.zeros(2)), torch.full((1, 2), 0.5, dtype=torch.float64)
    gradient = torch.tensor([[0.4, 0.4, 1.0, 1.0]], dtype=torch.float64)
    margin = torch.ones(1, dtype=torch.float64)
    segments = decrease_segments(feature_map, gradient, x, box=False)
    # Towards the mean the score falls by 1.4 for 0.5, and rises again beyond: 2 * 1.4 * 0.5 >= 1 is just reached.
    expected = {"l1": 1 / 1.4, "l2": 1 / 1.4 / math.sqrt(2), "linf": 0.5 / 1.4}[norm]
    assert segment_radius(margin, segments, norm).item() == pytest.approx(expected, rel=1e-8)
    assert segment_radius(1.5 * margin, segments, norm).item() == math.inf
    assert separable(1.5 * margin, gradient[:, :2] + gradient[:, 2:], norm).item() < math.inf
