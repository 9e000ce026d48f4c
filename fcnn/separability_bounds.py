"""How likely is uniform random data convexly separable? Three lower bounds, evaluated exactly.

M points and N points are drawn independently and uniformly from the cube [0, 1]^d. They are convexly separable if none
of the M lies in the convex hull of the N, so that a convex set holds the N and none of the M. The bounds hold for any
distribution with independent coordinates that has no atoms; they are proved in docs/separability.md.
"""

import math
from fractions import Fraction


def one_sided_bound(others: int, inside: int, dimension: int) -> float:
    """1 - (1 - M! N! / (M + N)!)^d: in some coordinate all N = ``inside`` points lie below all M = ``others``.

    Source: Pfrommer, Anderson, Piet, Sojoudi (NeurIPS 2023), the lower bound for uniform data.
    """
    _check(others, inside, dimension)
    return _below(1 - (1 - Fraction(1, math.comb(others + inside, inside))) ** dimension)


def interval_bound(others: int, inside: int, dimension: int) -> float:
    """1 - (1 - (M + 1) M! N! / (M + N)!)^d: in some coordinate no other lies between two of the N points."""
    _check(others, inside, dimension)
    share = Fraction(others + 1, math.comb(others + inside, inside))
    return _below(1 - (1 - share) ** dimension)


def box_bound(others: int, inside: int, dimension: int) -> float:
    """sum_k (-1)^k C(M, k) [N (N - 1) / ((N + k) (N + k - 1))]^d: the N points' bounding box holds no other.

    The sum alternates and its terms grow huge before they cancel, so it is taken in whole fractions.
    """
    _check(others, inside, dimension)
    total = Fraction(1)
    for k in range(1, others + 1):
        within = Fraction(inside * (inside - 1), (inside + k) * (inside + k - 1))
        total += (-1) ** k * math.comb(others, k) * within**dimension
    return _below(total)


def _check(others: int, inside: int, dimension: int) -> None:
    for name, value in (("others", others), ("inside", inside), ("dimension", dimension)):
        if value < 1:
            raise ValueError(f"{name} = {value}: must be a whole number >= 1")


def _below(exact: Fraction) -> float:
    """Return the largest float that is not above the exact value."""
    value = float(exact)
    return value if Fraction(value) <= exact else math.nextafter(value, -math.inf)
