"""torchattacks, each input within a ball of its own: never outside it, and as strong for small balls as large ones."""

import pytest
import torch

from bench.attacking.attacks import ORDERS
from bench.attacking.library_attacks import library_attacks
from bench.basics.errors import UsageError
from bench.contract import DUAL_NORM_ORDER

NORMS = ["l2", "linf"]


def linear(side: int):
    """A linear score, twelve inputs far from the box's bounds, the weight, and margins of 0.01 to 0.5."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(side * side, generator=generator)
    x = 0.5 + 0.02 * torch.rand((12, 1, side, side), generator=generator)
    margins = torch.linspace(0.01, 0.5, len(x))
    offset = margins - x.flatten(1) @ weight
    return lambda points: points.flatten(1) @ weight + offset, x, weight, margins


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("side", [2, 8])
def test_a_linear_model_breaks_beyond_its_distance_and_not_within(norm, side):
    score, x, weight, margins = linear(side)
    distance = margins / torch.linalg.vector_norm(weight, ord=DUAL_NORM_ORDER[norm])
    for reach in (0.99, 1.1):
        found = library_attacks(score, x, reach * distance, norm)
        assert len(found) == (3 if side >= 5 else 2)
        for points in found:
            moved = torch.linalg.vector_norm((points - x).flatten(1), ord=ORDERS[norm], dim=1)
            assert (moved <= reach * distance * (1 + 1e-6)).all()
            assert (score(points) < margins).all()
        for points in found[:2]:  # PGD and APGD follow the gradient, Square does not
            assert ((score(points) <= 0) == (reach > 1)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_points_stay_in_the_unit_box_and_reach_its_corners(norm):
    """With radii beyond the box the lowest score lies in a corner."""
    x = torch.zeros(3, 1, 6, 6)
    x[1] = 0.3
    score = lambda points: 40 - points.flatten(1).sum(dim=1)  # noqa: E731
    found = library_attacks(score, x, torch.tensor([7.0, 20.0, 100.0]), norm)
    for points in found:
        assert points.min() >= 0 and points.max() <= 1
        assert (score(points) < score(x)).all()
    assert torch.allclose(found[0], torch.ones_like(x))


def test_l1_is_refused():
    score, x, _, margins = linear(2)
    with pytest.raises(UsageError, match="l1"):
        library_attacks(score, x, margins, "l1")


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_an_input_on_the_edge_stays_in_the_batch_when_it_is_misread_by_far(norm):
    """Its own score is a millionth of a millionth of those around it."""

    def score(x):
        return x.flatten(1).sum(1) - 32.0 + 1e-12

    x = torch.full((3, 1, 8, 8), 0.5, dtype=torch.float64)
    x[1:] += 0.1
    found = library_attacks(score, x, torch.full((3,), 0.5, dtype=torch.float64), norm)
    scores = torch.stack([score(points) for points in found])
    assert (scores <= score(x)).all() and (scores[:, 1:] < score(x)[1:]).all()
    assert scores[:, 0].min() < 0
