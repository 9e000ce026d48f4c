"""The attacks never leave the ball, and find the nearest boundary point of models where it is known."""

import pytest
import torch

from bench.attacking.attacks import ORDERS, AttackSettings, norm_exact, project, steepest
from bench.contract import DUAL_NORM_ORDER, NORMS

SETTINGS = AttackSettings(steps=100, restarts=2)


def linear(dimension: int):
    weight = torch.randn(dimension, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return weight, lambda x: x.flatten(1) @ weight - 0.2


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(6,), (1, 2, 3)])
def test_a_linear_model_breaks_just_beyond_its_distance_and_not_before(norm, shape):
    weight, score = linear(6)
    x = torch.rand((40, *shape), dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.5 * (
        weight.sign().view(shape)
    )
    x = x[score(x) > 0]
    distance = score(x) / torch.linalg.vector_norm(weight, ord=DUAL_NORM_ORDER[norm])
    assert not norm_exact(score, x, 0.999 * distance, norm, "free", SETTINGS).broken.any()
    found = norm_exact(score, x, 1.02 * distance, norm, "free", SETTINGS)
    assert found.broken.all()
    moved = torch.linalg.vector_norm((found.points - x).flatten(1), ord=ORDERS[norm], dim=1)
    assert (moved <= 1.02 * distance).all()


@pytest.mark.parametrize("norm", NORMS)
def test_float32_points_at_the_edge_are_inside_to_the_last_bit(norm):
    weight, _ = linear(50)

    def score(x):
        return x @ weight.float() - 0.2

    x = torch.rand((60, 50), generator=torch.Generator().manual_seed(6)) + 0.3 * weight.float().sign()
    radius = torch.linspace(1e-4, 3, 60, dtype=torch.float64)
    points = norm_exact(score, x, radius, norm, "free", AttackSettings(10, 2)).points
    moved = torch.linalg.vector_norm(points.double() - x.double(), ord=ORDERS[norm], dim=1)
    assert (moved <= radius).all()
    assert (moved >= 0.9 * radius.clamp(max=1)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_box_attacks_stay_in_the_box_and_the_ball(norm):
    _, score = linear(8)
    x = torch.rand((30, 8), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    radius = torch.linspace(0.1, 2.0, 30, dtype=torch.float64)
    found = norm_exact(score, x, radius, norm, "box", SETTINGS)
    assert found.points.min() >= 0 and found.points.max() <= 1
    assert (torch.linalg.vector_norm(found.points - x, ord=ORDERS[norm], dim=1) <= radius).all()
    assert (found.scores < score(x)).all()
    assert torch.allclose(found.scores, score(found.points))


def test_an_infinite_radius_searches_the_whole_box():
    x = torch.full((2, 3), 0.9, dtype=torch.float64)
    found = norm_exact(lambda z: z.sum(dim=1) - 0.3, x, torch.full((2,), torch.inf), "l1", "box", SETTINGS)
    assert found.broken.all()


@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_idempotent_and_nearest(norm):
    generator = torch.Generator().manual_seed(4)
    delta = torch.randn((50, 7), generator=generator, dtype=torch.float64)
    radius = torch.rand(50, generator=generator, dtype=torch.float64) + 0.1
    projected = project(delta, radius, norm)
    size = torch.linalg.vector_norm(projected, ord=ORDERS[norm], dim=1)
    assert (size <= radius * (1 + 1e-12)).all()
    assert torch.allclose(project(projected, radius, norm), projected)
    inside = project(torch.randn((50, 7), generator=generator, dtype=torch.float64), radius, norm)
    distance = (delta - projected).square().sum(dim=1)
    assert (distance <= (delta - inside).square().sum(dim=1) + 1e-12).all()


@pytest.mark.parametrize("norm", NORMS)
def test_steepest_directions_have_unit_norm_and_descend(norm):
    gradient = torch.randn((20, 9), generator=torch.Generator().manual_seed(5))
    direction = steepest(gradient, norm)
    assert torch.allclose(torch.linalg.vector_norm(direction, ord=ORDERS[norm], dim=1), torch.ones(20))
    assert torch.allclose(
        -(direction * gradient).sum(dim=1),
        torch.linalg.vector_norm(gradient, ord=DUAL_NORM_ORDER[norm], dim=1),
    )


def test_a_curved_model_breaks_at_its_true_distance():
    """score = 1 - |x|: from x = 0 the boundary is the unit sphere, in each norm its own."""
    for norm in NORMS:
        x = torch.zeros((5, 3), dtype=torch.float64)

        def score(z, norm=norm):
            return 1 - torch.linalg.vector_norm(z + 1e-9, ord=ORDERS[norm], dim=1)

        assert not norm_exact(score, x, torch.full((5,), 0.99), norm, "free", SETTINGS).broken.any()
        assert norm_exact(score, x, torch.full((5,), 1.01), norm, "free", SETTINGS).broken.all()
