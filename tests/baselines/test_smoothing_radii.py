"""Radii of smoothed classifiers: reference numbers, exact rational integrals, limits, monotony, validation."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.smoothing import NOISES, radii, radius

NORMS = ("l1", "l2", "linf")
ABOVE_HALF = [0.5 + 1e-9, 0.5001, 0.6, 0.75, 0.9, 0.999, 1 - 1e-8, 1 - 1e-15]


def test_radii_match_reference_numbers(vectors):
    table = pd.read_csv(vectors / "smoothing_radii.csv")
    assert set(table.noise) == set(NOISES)
    for norm in NORMS:
        found = [radius(row.noise, row.sigma, row.p_lower, row.dim, norm) for row in table.itertuples()]
        np.testing.assert_allclose(found, table[norm], rtol=1e-6)


def exact_laplace_linf(p: float, dim: int) -> float:
    """Integral of dq / Psi(q) from 1 - p to 1/2 with all tails as exact fractions; the oracle for the fast table."""
    start, end = 1 - Fraction(p), Fraction(1, 2)
    total, tail, mean = 0.0, Fraction(0), Fraction(0)
    for k in range(dim + 1):
        mass = Fraction(math.comb(dim, k), 2**dim)
        low, high, slope = max(start, tail), min(end, tail + mass), dim - 2 * k
        if low < high:
            at_low, at_high = mean + slope * (low - tail), mean + slope * (high - tail)
            total += math.log(at_high / at_low) / slope if slope else float((high - low) / at_low)
        tail, mean = tail + mass, mean + slope * mass
    return total


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 7, 10, 51, 100, 785])
@pytest.mark.parametrize("p", ABOVE_HALF)
def test_laplace_linf_is_exact_and_never_rounded_up(dim, p):
    exact = exact_laplace_linf(p, dim)
    found = radius("laplace", math.sqrt(2), p, dim, "linf")
    assert found <= exact
    # Beside 1/2 a lower bound has to give up some relative accuracy: p itself is only known to 1e-16.
    assert found >= exact * (1 - 1e-9 - 2e-12 / (p - 0.5))


def test_laplace_linf_stays_finite_and_ordered_in_image_dimensions():
    dim = 3 * 224 * 224
    found = radii("laplace", 1.0, np.array([0.5 + 1e-6, 0.6, 0.9, 0.999, 1 - 1e-12]), dim, "linf")
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    # The usual high-dimensional formula b Phi^-1(p) / sqrt(d) is close here, though no certificate.
    assert found[2] == pytest.approx(1.2815515655446 / math.sqrt(2 * dim), rel=1e-3)


@pytest.mark.parametrize("noise", NOISES)
def test_one_dimension_has_one_norm(noise):
    for p in ABOVE_HALF:
        found = [radius(noise, 0.7, p, 1, norm) for norm in NORMS]
        np.testing.assert_allclose(found, found[0], rtol=1e-2 if p < 0.5 + 1e-8 else 1e-6)


@pytest.mark.parametrize("noise", NOISES)
def test_exact_in_one_dimension_against_the_distribution(noise):
    """The worst base classifier with probability p is a half line; the radius is how far it moves to 1/2."""
    sigma, p = 0.7, 0.9
    quantile = {
        "gaussian": 1.2815515655446004 * sigma,
        "laplace": -sigma / math.sqrt(2) * math.log(2 * (1 - p)),
        "uniform": math.sqrt(3) * sigma * (2 * p - 1),
    }
    assert radius(noise, sigma, p, 1, "l1") == pytest.approx(quantile[noise], rel=1e-9)


@given(
    noise=st.sampled_from(NOISES),
    norm=st.sampled_from(NORMS),
    dim=st.integers(1, 5000),
    p=st.floats(0, 1),
    higher=st.floats(0, 1),
    sigma=st.floats(0.01, 10),
)
def test_radius_rises_with_p_and_scales_with_sigma(noise, norm, dim, p, higher, sigma):
    p, higher = sorted((p, higher))
    low, high = radii(noise, sigma, np.array([p, higher]), dim, norm)
    assert 0 <= low <= high
    assert (low == 0) if p <= 0.5 else True
    if math.isfinite(high):
        assert radius(noise, 2 * sigma, higher, dim, norm) == pytest.approx(2 * high, rel=1e-12)


@given(noise=st.sampled_from(NOISES), dim=st.integers(1, 5000), p=st.floats(0.5, 1, exclude_max=True))
def test_norms_are_ordered(noise, dim, p):
    """A ball of radius r in l1 lies in that of l2, which lies in that of linf; radii shrink the other way."""
    l1, l2, linf = (radius(noise, 1.0, p, dim, norm) for norm in NORMS)
    assert l1 * (1 + 1e-9) + 1e-11 >= l2 >= linf


def test_uniform_noise_certifies_at_most_its_own_width():
    assert radius("uniform", 1.0, 1.0, 10, "l1") <= math.sqrt(3)
    assert radius("gaussian", 1.0, 1.0, 10, "l2") == math.inf


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cauchy", 1.0, 0.9, 3, "l2"), "gaussian, laplace, uniform"),
        (("gaussian", 1.0, 0.9, 3, "l3"), "l1, l2, linf"),
        (("gaussian", 0.0, 0.9, 3, "l2"), "sigma = 0.0"),
        (("gaussian", 1.0, 1.1, 3, "l2"), r"\[0, 1\]"),
        (("gaussian", 1.0, math.nan, 3, "l2"), r"\[0, 1\]"),
        (("gaussian", 1.0, 0.9, 0, "l2"), "dim = 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        radius(*arguments)
