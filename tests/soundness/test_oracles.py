"""The oracles that certificates are held against, held against each other and against sums done by hand."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from fcnn import ConvexMLP, FeatureConvexClassifier
from tools.fuzz.noise import splitting
from tools.fuzz.oracles import hyperplane_distance, mixed_integer_distance
from tools.fuzz.rational import proves, rational_tangent
from tools.fuzz.recipes import Recipe


@pytest.mark.parametrize(("norm", "distance"), [("l1", 1.0), ("l2", 0.8), ("linf", 4 / 7)])
def test_distances_to_a_hyperplane(norm, distance):
    weight, x = torch.tensor([4.0, 3.0, 0.0]).double(), torch.tensor([[0.75, 0.9, 0.5]]).double()
    margin = torch.tensor([4.0]).double()
    assert float(hyperplane_distance(weight, margin, x, norm, "free")) == pytest.approx(distance, rel=1e-12)


def test_a_wall_that_is_hit_makes_the_way_longer():
    weight, x = torch.tensor([4.0, 3.0]).double(), torch.tensor([[0.5, 1.0]]).double()
    margin = torch.tensor([4.0]).double()
    # x takes 2 at its wall; y has to take the other 2.
    expected = {"l1": 0.5 + 2 / 3, "l2": np.hypot(0.5, 2 / 3), "linf": 2 / 3}
    for norm, distance in expected.items():
        assert float(hyperplane_distance(weight, margin, x, norm, "box")) == pytest.approx(
            distance, rel=1e-12
        )
    assert float(hyperplane_distance(weight, torch.tensor([5.1]).double(), x, "l1", "box")) == np.inf


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_mixed_integer_distances_are_those_of_a_grid(norm):
    rng = np.random.default_rng(3)
    layers = [
        (rng.integers(-2, 3, (4, 2)) * 1.0, rng.integers(-1, 2, 4) * 1.0),
        (rng.normal(size=(1, 4)), np.ones(1)),
    ]
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 2, 601)] * 2), -1).reshape(-1, 2)
    score = np.maximum(grid @ layers[0][0].T + layers[0][1], 0) @ layers[1][0][0]
    layers[1][1][0] = -np.quantile(score, 0.3)
    adversarial = grid[score + layers[1][1][0] <= 0]
    order = {"l1": 1, "linf": np.inf}[norm]
    for x in rng.random((4, 2)):
        nearest = np.linalg.norm(adversarial - x, order, axis=1).min()
        distance, point = mixed_integer_distance(layers, x, norm, "free", nearest)
        assert nearest - 0.011 < distance <= nearest + 1e-9
        assert np.linalg.norm(point - x, order) == pytest.approx(distance)


def test_exact_tangents_prove_what_is_true_and_no_more():
    network = ConvexMLP.from_arrays([[[1.0, 2.0]], [[-0.0, 0.0]]], [[-1.0], [0.25]], [[[1.0]]])
    classifier = FeatureConvexClassifier(network.double(), threshold=0.5).frozen()
    x = [Fraction(1), Fraction(1, 2)]
    # max(0, x + 2 y - 1) - 1/4 = 3/4 here, slope (1, 2).
    tangent = [rational_tangent(classifier, x, x)]
    for norm, radius in (("l1", 0.375), ("l2", 0.3354), ("linf", 0.25)):
        assert proves(tangent, x, radius, norm, "free")
        assert not proves(tangent, x, radius + 1e-4, norm, "free")
    assert proves(tangent, x, 0.2501, "linf", "box") is False
    assert (
        proves([rational_tangent(classifier, [Fraction(0), Fraction(0)], x)], x, 0.1, "l1", "free") is False
    )


def test_the_table_of_votes_counts_as_the_classifier_does():
    case = splitting(Recipe("splitting", kind=1, seed=11, count=8))
    points = torch.rand(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    points[::2] = (points[::2] * 255).round() / 255
    alone = torch.cat([case.score(point[None]) for point in points])
    assert torch.allclose(case.score(points), alone, rtol=0, atol=1e-12)
