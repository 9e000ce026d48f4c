"""Certified radii of smoothed classifiers as a function of the probability of the sensitive class.

Sources: Cohen, Rosenfeld, Kolter 2019, Theorem 1 (Gaussian, l2); Teng, Lee, Yuan 2020 (Laplace, l1); Yang et al.
2020, *Randomized Smoothing of All Shapes and Sizes*, differential method (Laplace and uniform, l1 and linf).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtri

NOISES = ("gaussian", "laplace", "uniform")
# Norms in which the bound is proved for that noise directly; the others follow by inequalities between norms.
NATIVE_NORMS = {"gaussian": ("l2",), "laplace": ("l1", "linf"), "uniform": ("l1", "linf")}

# Everything below is accurate to a few 1e-13 relative; shaving more than that keeps every radius a lower bound.
RADIUS_SHAVE = 1e-11
TAIL_SHAVE = 1e-12
# 1 - p of a float64 p < 1 is at least 1.1e-16, so smaller tails are never looked up.
SMALLEST_TAIL = 1e-17


def noise_scale(noise: str, sigma: float) -> float:
    """Return the distribution's own parameter for a standard deviation ``sigma`` per coordinate.

    Gaussian: sigma; Laplace: b = sigma / sqrt(2); uniform: half-width lambda = sqrt(3) sigma.
    """
    _check_choice("noise", noise, NOISES)
    if not 0 < sigma < np.inf:
        raise ValueError(f"sigma = {sigma}: give a positive finite standard deviation")
    return {"gaussian": sigma, "laplace": sigma / np.sqrt(2.0), "uniform": np.sqrt(3.0) * sigma}[noise]


def radius(noise: str, sigma: float, p_lower: float, dim: int, norm: str) -> float:
    """Return the certified radius for one lower bound ``p_lower``; see :func:`radii`."""
    return float(radii(noise, sigma, p_lower, dim, norm))


def radii(noise: str, sigma: float, p_lower: np.ndarray | float, dim: int, norm: str) -> np.ndarray:
    """Return certified radii (same shape as ``p_lower``, float64), 0 where ``p_lower`` <= 1/2.

    noise: gaussian, laplace or uniform, with standard deviation ``sigma`` per coordinate in the units of the input;
    p_lower: lower bounds on P(base classifier says sensitive); dim: number of input coordinates; norm: l1, l2, linf.
    A radius is never rounded up; it is ``inf`` only for Gaussian and Laplace noise at p_lower = 1.
    Raises ValueError for unknown names and values out of range.
    """
    scale = noise_scale(noise, sigma)
    _check_choice("norm", norm, ("l1", "l2", "linf"))
    if dim < 1:
        raise ValueError(f"dim = {dim}: give the number of input coordinates, at least 1")
    p_lower = np.asarray(p_lower, dtype=np.float64)
    if not np.all((p_lower >= 0) & (p_lower <= 1)):
        raise ValueError(f"p_lower = {p_lower}: probabilities must lie in [0, 1]")
    formula = {"gaussian": _gaussian, "laplace": _laplace, "uniform": _uniform}[noise]
    proved = formula(scale, np.maximum(p_lower, 0.5), int(dim), norm) * (1 - RADIUS_SHAVE)
    return np.where(p_lower > 0.5, np.maximum(proved, 0.0), 0.0)


def _gaussian(sigma: float, p: np.ndarray, dim: int, norm: str) -> np.ndarray:
    """l2: sigma Phi^-1(p); the l1 ball lies inside the l2 ball, the linf ball inside one sqrt(d) larger."""
    euclidean = -sigma * ndtri(1 - p)
    return euclidean / np.sqrt(dim) if norm == "linf" else euclidean


def _laplace(scale: float, p: np.ndarray, dim: int, norm: str) -> np.ndarray:
    """l1: -b ln(2 (1 - p)); linf: differential method; l2: the better of the two conversions."""
    if norm == "linf":
        return scale * _laplace_linf(p, dim)
    with np.errstate(divide="ignore"):
        taxicab = -scale * np.log1p(-(2 * p - 1))
    return taxicab if norm == "l1" else np.maximum(taxicab / np.sqrt(dim), scale * _laplace_linf(p, dim))


def _uniform(half_width: float, p: np.ndarray, dim: int, norm: str) -> np.ndarray:
    """l1: 2 lambda (p - 1/2); linf: 2 lambda (1 - (3/2 - p)^(1/d)); l2: the better of the two conversions."""
    taxicab = 2 * half_width * (p - 0.5)
    if norm == "l1":
        return taxicab
    maximum = -2 * half_width * np.expm1(np.log1p(-(p - 0.5)) / dim)
    return maximum if norm == "linf" else np.maximum(taxicab / np.sqrt(dim), maximum)


@dataclass(frozen=True)
class _SignSumTails:
    """Upper tails of a sum of d random signs, S = d - 2K with K ~ Binomial(d, 1/2), for counts k <= d/2.

    tail[j] = P(K <= count[j]), increasing; tail_mean[j] = E[S; K <= count[j]]; to_half[j] = integral of
    dq / Psi(q) from tail[j] to 1/2, where Psi(q) is the expectation of S over its upper q-tail.
    """

    count: np.ndarray
    tail: np.ndarray
    tail_mean: np.ndarray
    to_half: np.ndarray


@lru_cache(maxsize=64)
def _sign_sum_tails(dim: int) -> _SignSumTails:
    """Build the table from the centre outwards by the ratio of neighbouring binomial probabilities.

    Normalising by symmetry (both halves have mass 1/2) avoids factorials, so it is stable for any dimension.
    """
    centre = dim // 2
    enough = min(centre + 1, int(6 * np.sqrt(dim)) + 40)
    count = np.arange(centre - enough + 1, centre + 1)
    ratio = count[1:] / (dim - count[1:] + 1)  # P(K = k-1) / P(K = k)
    weight = np.concatenate((np.cumprod(ratio[::-1])[::-1], [1.0]))
    even = dim % 2 == 0
    share_of_centre = 0.5 if even else 1.0  # P(K = d/2) straddles 1/2 when d is even
    half = weight[:-1].sum() + share_of_centre * weight[-1]
    weight = weight / (2 * half)
    tail = np.cumsum(weight)
    tail[-1] = 0.5
    tail_mean = (dim - count) * weight  # E[S; K <= k] = (d - k) P(K = k), a telescoping sum
    signs = dim - 2 * count
    with np.errstate(divide="ignore", invalid="ignore"):
        segment = 2 * np.arctanh(signs / dim) / signs
    if even:
        segment[-1] = 1.0 / dim
    to_half = np.concatenate((np.cumsum(segment[:0:-1])[::-1], [0.0]))
    keep = tail >= SMALLEST_TAIL
    return _SignSumTails(count[keep], tail[keep], tail_mean[keep], to_half[keep])


def _laplace_linf(p: np.ndarray, dim: int) -> np.ndarray:
    """Return the integral of dq / Psi(q) from 1 - p to 1/2, exactly (Yang et al. 2020, differential method).

    Psi is piecewise linear with slope d - 2k between the tails P(K <= k-1) and P(K <= k), so each piece gives a
    logarithm; whole pieces give ln((d - k) / k) / (d - 2k).
    """
    table = _sign_sum_tails(dim)
    q = (1 - p) * (1 + TAIL_SHAVE)
    below_table = (q < table.tail[0]) & (table.count[0] > 0)
    q = np.where(below_table, table.tail[0], np.minimum(q, 0.5))
    piece = np.searchsorted(table.tail, q)
    slope = dim - 2 * table.count[piece]
    rest = table.tail[piece] - q
    end_mean = table.tail_mean[piece]
    with np.errstate(divide="ignore", invalid="ignore"):
        sloped = -np.log1p(-slope * rest / end_mean) / slope
    partial = np.where(slope > 0, sloped, rest / end_mean)
    return np.where(p < 1, table.to_half[piece] + partial, np.inf)


def _check_choice(what: str, name: str, choices: tuple[str, ...]) -> None:
    if name not in choices:
        raise ValueError(f"unknown {what} {name!r}: choose from {', '.join(choices)}")
