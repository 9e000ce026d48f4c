"""The range of linear functions over balls in the box, against brute force and an independent solver."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from baselines.bounds import Balls
from baselines.bounds.tables import l1_table, l2_table, without_zeros

ORDER = {"l1": 1, "l2": 2, "linf": float("inf")}
NORMS = tuple(ORDER)


def instance(seed: int, inputs: int = 4, rows: int = 6, dim: int = 10) -> tuple[Tensor, Tensor]:
    """Rows and centers with ties, zeros, and pixels that lie on the sides of the box."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    a[0], a[1, ::2], a[2] = 0.0, 0.0, 1.0
    x = torch.rand(inputs, dim, generator=generator, dtype=torch.float64)
    return a, (1.6 * x - 0.3).clamp(0, 1)


def points_in(balls: Balls, count: int, generator: torch.Generator) -> Tensor:
    """(count, N, d) points of each ball: random directions pushed to the ball's surface, then clipped to the box."""
    shape = (count, *balls.center.shape)
    step = torch.randn(shape, generator=generator, dtype=torch.float64)
    step *= torch.rand(shape, generator=generator, dtype=torch.float64) < torch.rand(
        count, 1, 1, generator=generator
    )
    size = torch.linalg.vector_norm(step, ord=ORDER[balls.norm], dim=-1, keepdim=True).clamp(min=1e-12)
    points = balls.center + step / size * balls.radius[:, None]
    return points.clamp(0, 1) if balls.domain == "box" else points


@pytest.mark.parametrize("domain", ["free", "box"])
@pytest.mark.parametrize("norm", NORMS)
def test_no_point_of_the_ball_goes_below_the_bound(norm, domain):
    generator = torch.Generator().manual_seed(3)
    for seed in range(5):
        rows, center = instance(seed)
        balls = Balls(
            center, torch.rand(len(center), generator=generator, dtype=torch.float64) * 2, norm, domain
        )
        found = torch.einsum("cnd,sd->cns", balls.center - points_in(balls, 500, generator), rows).amax(dim=0)
        one_by_one = [balls.largest_decrease(row[None, None]) for row in rows]
        for bound in (balls.largest_decrease(rows[None]), torch.cat(one_by_one, dim=1)):
            assert (found <= bound + 1e-12).all()
        prepared = balls.with_tables({"layer": rows})
        down, up = prepared.range_of("layer", rows)
        assert (found <= down + 1e-12).all()
        rising = torch.einsum("cnd,sd->cns", points_in(balls, 500, generator) - balls.center, rows).amax(
            dim=0
        )
        assert (rising <= up + 1e-12).all()


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_single_rows_in_the_box_are_exact(norm):
    rows, center = instance(7)
    radius = torch.tensor([0.0, 0.3, 1.5, 4.0], dtype=torch.float64)
    balls = Balls(center, radius, norm, "box")
    for row in rows:
        bound = balls.largest_decrease(row[None, None]).squeeze(1)
        exact = [by_linear_program(row, x, float(r), norm) for x, r in zip(center, radius, strict=True)]
        np.testing.assert_allclose(bound.numpy(), exact, rtol=1e-7, atol=1e-9)


def by_linear_program(row: Tensor, x: Tensor, radius: float, norm: str) -> float:
    """max row . (x - x') with x' = x - minus + plus, minus and plus >= 0, solved by HiGHS."""
    cap = radius if norm == "linf" else np.inf
    limits = [(0.0, min(float(v), cap)) for v in x] + [(0.0, min(1 - float(v), cap)) for v in x]
    cost = np.concatenate([-row.numpy(), row.numpy()])
    budget = {"A_ub": np.ones((1, len(cost))), "b_ub": [radius]} if norm == "l1" else {}
    return -linprog(cost, bounds=limits, **budget).fun


def test_single_rows_in_the_box_are_exact_in_l2():
    """At the optimum every coordinate moves by min(price-scaled weight, cap), and the budget is spent."""
    rows, center = instance(11)
    for radius in (0.2, 0.7, 1.4):
        balls = Balls(center, torch.full((len(center),), radius, dtype=torch.float64), "l2", "box")
        for row in rows[1:]:
            bound = balls.largest_decrease(row[None, None]).squeeze(1)
            caps = torch.where(row > 0, center, 1 - center)
            # Independent of the code under test: bisection on the scale of the moves.
            low, high = torch.zeros(len(center), 1).double(), torch.full((len(center), 1), 1e6).double()
            for _ in range(200):
                middle = (low + high) / 2
                short = (torch.minimum(middle * row.abs(), caps).norm(dim=1, keepdim=True)) <= radius
                low, high = torch.where(short, middle, low), torch.where(short, high, middle)
            exact = (row.abs() * torch.minimum(low * row.abs(), caps)).sum(dim=1)
            torch.testing.assert_close(bound, exact, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("norm", "build"), [("l1", l1_table), ("l2", l2_table)])
def test_tables_are_close_to_exact(norm, build):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(20, 300, generator=generator, dtype=torch.float64)
    center = torch.rand(5, 300, generator=generator, dtype=torch.float64)
    for radius in (0.3, 1.0, 3.0):
        balls = Balls(center, torch.full((5,), radius, dtype=torch.float64), norm, "box")
        exact = torch.cat([balls.largest_decrease(row[None, None]) for row in rows], dim=1)
        ratio = build(rows, center).at(balls.radius) / exact
        assert ratio.min() > 1 - 1e-7 and ratio.mean() < 1.05
        assert (ratio <= 1.25).all()


def test_a_ball_that_covers_the_box_gives_the_box():
    rows, center = instance(2)
    whole = (rows.clamp(min=0) @ center.T + (-rows).clamp(min=0) @ (1 - center).T).T
    for norm in NORMS:
        balls = Balls(center, torch.full((len(center),), 100.0, dtype=torch.float64), norm, "box")
        torch.testing.assert_close(balls.largest_decrease(rows[None]), whole)
        torch.testing.assert_close(balls.with_tables({"layer": rows}).range_of("layer", rows)[0], whole)


@pytest.mark.parametrize("build", [l1_table, l2_table])
def test_rows_of_few_entries_have_the_same_lines_by_their_entries_alone(build):
    generator = torch.Generator().manual_seed(11)
    rows, center = instance(11, inputs=3, rows=8, dim=40)
    for row in rows:
        row[torch.randperm(40, generator=generator)[7:]] = 0.0
    few, around = without_zeros(rows, center)
    assert few.shape == (8, 7) and around.shape == (3, 8, 7)
    radius = torch.tensor([0.1, 0.7, 3.0], dtype=torch.float64)
    short, long = build(few, around).at(radius), build(rows, center).at(radius)
    exact = torch.cat(
        [
            Balls(center, radius, "l1" if build is l1_table else "l2", "box").largest_decrease(
                row[None, None]
            )
            for row in rows
        ],
        dim=1,
    )
    assert (short >= exact - 1e-12).all()
    torch.testing.assert_close(short, long)


def test_rows_of_many_entries_stay_as_they_are():
    rows, center = instance(2)
    few, around = without_zeros(rows, center)
    assert few is rows and around is center
