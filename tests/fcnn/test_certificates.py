"""The pure certificates against closed forms, linear programs, brute force and reference radii."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, linprog

from fcnn.certificates import NORMS, closed_form, in_domain, separable


@pytest.fixture(scope="module")
def reference(vectors):
    return np.load(vectors / "icnn_exact_radii.npz")


def knapsack_program(margin, weights, caps, norm):
    """min ‖δ‖_p with w·δ >= m and 0 <= δ <= cap by a general solver (ℓ1, ℓ∞), by enumerating caps (ℓ2)."""
    if (weights * caps).sum() < margin:
        return math.inf
    if norm == "l2":
        return enumerated_l2(margin, weights, caps)
    d = len(weights)
    bounds = [(0, cap if math.isfinite(cap) else None) for cap in caps]
    if norm == "l1":
        return linprog(np.ones(d), A_ub=-weights[None], b_ub=[-margin], bounds=bounds).fun
    rows = np.vstack([np.append(-weights, 0.0), np.hstack([np.eye(d), -np.ones((d, 1))])])
    limits = np.append(-margin, np.zeros(d))
    return linprog(np.eye(d + 1)[-1], A_ub=rows, b_ub=limits, bounds=[*bounds, (0, None)]).fun


def enumerated_l2(margin, weights, caps):
    """The smallest feasible point over all choices of capped coordinates, the others along the weights."""
    best = math.inf
    for capped in itertools.product((False, True), repeat=len(weights)):
        capped = np.array(capped)
        rest = margin - (weights * caps)[capped].sum()
        free = np.where(capped, 0.0, weights)
        if np.isinf(caps[capped]).any() or (rest > 0 and not free.any()):
            continue
        point = np.where(capped, caps, free * max(rest, 0) / max((free**2).sum(), 1e-300))
        if (point <= caps * (1 + 1e-12)).all():
            best = min(best, np.linalg.norm(point))
    return best


def stationary_l2(margin, weights, caps):
    """The point with |δ_i| = min(μ w_i, cap_i), sufficient for optimality, by a general root finder in μ."""

    def missing(level):
        return weights @ np.minimum(level * weights, caps) - margin

    level = brentq(missing, 0, (caps / weights).max(), xtol=1e-15, rtol=1e-15)
    return np.linalg.norm(np.minimum(level * weights, caps))


def random_knapsacks(seed, count=60, d=6):
    """Knapsacks with ties, zero weights, zero and infinite caps, from easily reached to out of reach."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        weights = generator.choice([0.0, 0.5, 1.0, generator.random(), generator.random()], d)
        caps = generator.choice(
            [0.0, 1.0, 0.3, generator.random(), math.inf], d, p=[0.2, 0.2, 0.2, 0.35, 0.05]
        )
        room = np.where(weights > 0, weights * np.where(weights > 0, caps, 0), 0).sum()
        margin = generator.choice([0.2, 0.7, 0.95, 1.2]) * min(room, 3.0) + 1e-3
        yield margin, weights, np.where((weights == 0) & np.isinf(caps), 1.0, caps)


@pytest.mark.parametrize("norm", NORMS)
def test_closed_form_equals_reference(reference, norm):
    radii = closed_form(torch.tensor(reference["margin"]), torch.tensor(reference["gradient"]), 1.0, norm)
    np.testing.assert_allclose(radii, reference[f"closed_{norm}"], rtol=1e-9)
    assert (radii.numpy() <= reference[f"closed_{norm}"]).all()


@pytest.mark.parametrize("norm", NORMS)
def test_in_domain_between_separable_and_exact(reference, norm):
    margin, gradient, x = (torch.tensor(reference[key]) for key in ("margin", "gradient", "x"))
    caps = torch.where(gradient > 0, x, 1 - x)
    boxed = in_domain(margin, gradient.abs(), caps, norm)
    assert (boxed >= separable(margin, gradient.abs(), norm)).all()
    assert (boxed.numpy() <= reference[f"exact_box_{norm}"] * (1 + 1e-6)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_in_domain_solves_the_knapsack(norm):
    problems = list(random_knapsacks(seed=1))
    margin, weights, caps = (torch.tensor(np.array(part)) for part in zip(*problems, strict=True))
    expected = [knapsack_program(*problem, norm) for problem in problems]
    radii = in_domain(margin, weights, caps, norm).numpy()
    assert np.isinf(expected).any() and np.isfinite(expected).any()
    np.testing.assert_allclose(radii, expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_in_domain_solves_the_knapsack_of_many_coordinates(norm):
    """Wide rows exercise the growing selection in ℓ1."""
    generator = np.random.default_rng(2)
    weights, caps = generator.random((6, 300)), generator.random((6, 300))
    margin = np.array([0.01, 0.1, 0.3, 0.6, 0.9, 0.999]) * (weights * caps).sum(1)
    radii = in_domain(*map(torch.tensor, (margin, weights, caps)), norm).numpy()
    for row, problem in enumerate(zip(margin, weights, caps, strict=True)):
        expected = stationary_l2(*problem) if norm == "l2" else knapsack_program(*problem, norm)
        assert radii[row] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_infinite_caps_give_the_separable_radius(norm):
    generator = torch.Generator().manual_seed(3)
    weights = torch.rand(20, 9, generator=generator)
    weights[:, :2] = 0.0
    margin = torch.rand(20, generator=generator)
    boxed = in_domain(margin, weights, torch.full_like(weights, math.inf), norm)
    torch.testing.assert_close(boxed, separable(margin, weights, norm), rtol=1e-9, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_zero_margin_and_zero_gradient(norm):
    margin = torch.tensor([0.0, -1.0, 1.0, 0.0])
    slope = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    expected = [0.0, 0.0, math.inf, 0.0]
    assert closed_form(margin, slope, 1.0, norm).tolist() == expected
    assert separable(margin, slope, norm).tolist() == expected
    assert in_domain(margin, slope, torch.ones(4, 2), norm).tolist() == expected


@pytest.mark.parametrize("norm", NORMS)
def test_tiny_and_huge_slopes_neither_vanish_nor_overflow(norm):
    margin = torch.tensor([1e-200, 1e200], dtype=torch.float64)
    slope = margin[:, None].expand(2, 4)
    exact = 1 / torch.linalg.vector_norm(torch.ones(4), ord={"l1": math.inf, "l2": 2, "linf": 1}[norm])
    for radii in (closed_form(margin, slope, 1.0, norm), in_domain(margin, slope, torch.ones(2, 4), norm)):
        assert radii.tolist() == pytest.approx([float(exact)] * 2, rel=1e-8)


@pytest.mark.parametrize("norm", NORMS)
def test_radii_are_shaved_below_the_exact_value(norm):
    """Thirds cannot be represented: without the shave some of these would round upwards."""
    count = torch.arange(1, 400, dtype=torch.float64)
    margin, weights = count / 3, (count / 7)[:, None]
    exact = margin / weights[:, 0]
    for radii in (
        closed_form(margin, weights, 1.0, norm),
        in_domain(margin, weights, exact[:, None] * 2, norm),
    ):
        assert (radii < exact).all() and (radii > exact * (1 - 2e-9)).all()


def test_lipschitz_constant_divides_the_radius():
    margin, gradient = torch.tensor([2.0]), torch.tensor([[3.0, 4.0]])
    assert closed_form(margin, gradient, 2.0, "l2").item() == pytest.approx(0.2, rel=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, w: closed_form(m, w, 1.0, "l3"), "l3.*choose from l1, l2, linf"),
        (lambda m, w: closed_form(m, w, -1.0, "l2"), "lipschitz.*-1.0"),
        (lambda m, w: closed_form(m, w, math.inf, "l2"), "lipschitz.*inf"),
        (lambda m, w: closed_form(m, w * math.nan, 1.0, "l2"), "finite"),
        (lambda m, w: closed_form(m[:1], w, 1.0, "l2"), r"\(1,\)"),
        (lambda m, w: separable(m, -w, "l1"), "weights must be >= 0"),
        (lambda m, w: in_domain(m, w, -w, "linf"), "caps must be >= 0"),
        (lambda m, w: in_domain(m, w, w * math.nan, "linf"), "caps must be >= 0"),
        (lambda m, w: in_domain(m, w, w[:, :1], "linf"), "shape of weights"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.ones(2), torch.ones(2, 3))
