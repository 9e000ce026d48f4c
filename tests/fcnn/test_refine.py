"""Refined radii against exact ones, and what must hold for any network: order, soundness, bounds that are met."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from convex_examples import NORMS, ORDER, Rotated, centered_abs, random_classifier, reference_classifier

from fcnn import ConvexMLP, FeatureConvexClassifier, master
from fcnn.certify import certify_batch, certify_with_bounds
from fcnn.exact import exact_radius
from fcnn.refine import RefineSettings, Walk
from fcnn.tangent_radii import box_loss

DOMAINS = ("free", "box")


@pytest.fixture(scope="module")
def reference(vectors):
    return np.load(vectors / "icnn_exact_radii.npz")


def exact_of(reference, norm, domain):
    return torch.tensor(reference[f"exact_{norm}" if domain == "free" else f"exact_box_{norm}"])


def assert_points_are_adversarial(classifier, x, bounds, norm, domain):
    """Every known point is misclassified, lies in the domain and has the promised distance."""
    known = torch.isfinite(bounds.radius_upper) & (bounds.radius_upper > 0)
    points = bounds.point[known]
    with torch.no_grad():
        assert (classifier.frozen().score(points) <= 0).all()
    distance = torch.linalg.vector_norm((points - x[known]).flatten(1), ord=ORDER[norm], dim=1)
    torch.testing.assert_close(distance, bounds.radius_upper[known], rtol=1e-12, atol=0)
    if domain == "box":
        assert points.min() >= 0 and points.max() <= 1
    return known


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("domain", DOMAINS)
def test_refined_reaches_the_exact_radius(reference, norm, domain):
    classifier, x = reference_classifier(reference), torch.tensor(reference["x"])
    bounds = certify_with_bounds(classifier, x, (norm,), domain=domain, points=True)[norm]
    exact = exact_of(reference, norm, domain)
    assert (bounds.radius <= exact * (1 + 1e-6)).all()
    error = 1 - bounds.radius / exact
    assert error.max() < 0.01 and error.median() < 0.001
    assert (bounds.radius_upper >= exact * (1 - 1e-6)).all()
    assert (bounds.radius_upper / bounds.radius - 1).median() < 0.002
    assert assert_points_are_adversarial(classifier, x, bounds, norm, domain).all()


@pytest.mark.parametrize("norm", ["l1", "linf"])
@pytest.mark.parametrize("domain", DOMAINS)
def test_refined_reaches_the_exact_radius_of_random_networks(norm, domain):
    for seed in range(3):
        classifier, x = random_classifier(seed, d=10)
        radii = certify_batch(classifier, x[:12], (norm,), domain=domain)[norm]
        exact, _ = exact_radius(classifier, x[:12], norm, domain)
        assert (radii <= exact * (1 + 1e-6)).all()
        certified = torch.isfinite(exact) & (exact > 0)
        assert certified.sum() >= 5
        assert (radii[certified] >= 0.99 * exact[certified]).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("domain", DOMAINS)
def test_any_weights_give_a_valid_radius(reference, norm, domain, monkeypatch):
    """The certificate trusts the small programs with nothing: replace their solution by noise."""
    generator = torch.Generator().manual_seed(0)

    def noise(cuts, weights, norm, dtype):
        step = torch.randn(cuts.lower.shape, generator=generator, dtype=torch.float64)
        return torch.rand(weights.shape, generator=generator, dtype=torch.float64) ** 4 + 1e-9, step

    monkeypatch.setattr(master, "solve", noise)
    classifier, x = reference_classifier(reference), torch.tensor(reference["x"])
    radii = certify_batch(classifier, x, (norm,), domain=domain)[norm]
    assert (radii <= exact_of(reference, norm, domain) * (1 + 1e-6)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_more_steps_never_lose_and_none_is_in_domain(reference, norm):
    classifier, x = reference_classifier(reference), torch.tensor(reference["x"])
    by_steps = [
        certify_batch(classifier, x, (norm,), settings=RefineSettings(steps=steps))[norm]
        for steps in (0, 2, 8)
    ]
    assert torch.equal(by_steps[0], certify_batch(classifier, x, (norm,), "in_domain")[norm])
    assert (by_steps[0] <= by_steps[1]).all() and (by_steps[1] <= by_steps[2]).all()
    assert by_steps[2].sum() > by_steps[0].sum() * 1.001


@pytest.mark.parametrize("norm", NORMS)
def test_few_cuts_are_sound_and_still_improve(reference, norm):
    classifier, x = reference_classifier(reference), torch.tensor(reference["x"])
    radii = certify_batch(classifier, x, (norm,), settings=RefineSettings(cuts=3))[norm]
    exact = exact_of(reference, norm, "box")
    assert (radii <= exact * (1 + 1e-6)).all()
    assert (1 - radii / exact).median() < 0.01


@pytest.mark.parametrize("norm", NORMS)
def test_a_box_without_adversarial_points_is_certified_for_ever(norm):
    """The score relu(x1 + x2 - 3) + 0.1 x1 + 0.05 is positive on the whole box, and vanishes outside at x1 = -0.5."""
    network = ConvexMLP.from_arrays(
        [np.array([[1.0, 1.0]]), np.array([[0.1, 0.0]])],
        [np.array([-3.0]), np.array([0.05])],
        [np.ones((1, 1))],
    )
    classifier, x = FeatureConvexClassifier(network), torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    box = certify_with_bounds(classifier, x, (norm,))[norm]
    assert box.radius.tolist() == box.radius_upper.tolist() == [math.inf, math.inf]
    free = certify_with_bounds(classifier, x, (norm,), domain="free")[norm]
    torch.testing.assert_close(free.radius, torch.tensor([1.0, 0.5], dtype=torch.float64), rtol=2e-3, atol=0)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize(("floor", "expected"), [(0.1, math.inf), (-0.1, 0.6)])
def test_a_flat_tangent_counts_where_it_is_positive(domain, floor, expected):
    """relu(x1 - 0.2) + floor from x1 = 0.9: its flat side shows that nothing is adversarial, or that all of it is."""
    network = ConvexMLP.from_arrays(
        [np.array([[1.0, 0.0]]), np.zeros((1, 2))], [np.array([-0.2]), np.array([floor])], [np.ones((1, 1))]
    )
    radii = certify_batch(FeatureConvexClassifier(network), torch.tensor([[0.9, 0.5]]), domain=domain)
    assert [radius.item() for radius in radii.values()] == pytest.approx([expected] * 3, rel=1e-6)


def grid_radius(classifier, x, norm, domain, reach=2.0, size=241):
    """Norm of the nearest adversarial point on a fine grid of the plane: an upper bound on any valid radius."""
    low, high = (0.0, 1.0) if domain == "box" else (-reach, 1 + reach)
    axis = torch.linspace(low, high, size, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        adversarial = grid[classifier.frozen().score(grid) <= 0]
    if not len(adversarial):
        return torch.full((len(x),), math.inf)
    return torch.cdist(x, adversarial, p=ORDER[norm]).amin(1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("domain", DOMAINS)
def test_centered_abs_radii_hold_and_are_not_far_off(norm, domain):
    ratios = []
    for seed in range(4):
        classifier, x = random_classifier(seed, d=2, feature_map=centered_abs(2, seed))
        bounds = certify_with_bounds(classifier, x, (norm,), domain=domain, points=True)[norm]
        nearest = grid_radius(classifier, x, norm, domain)
        sensitive = bounds.radius > 0
        assert (bounds.radius[sensitive] <= nearest[sensitive]).all()
        assert (bounds.radius <= bounds.radius_upper).all()
        assert_points_are_adversarial(classifier, x, bounds, norm, domain)
        finite = sensitive & torch.isfinite(nearest) & torch.isfinite(bounds.radius)
        ratios.append(bounds.radius[finite] / nearest[finite])
    assert torch.cat(ratios).median() > 0.6


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_map_that_mixes_coordinates_gets_sound_radii(domain):
    for seed in range(3):
        classifier, x = random_classifier(seed, d=2, feature_map=Rotated(2, seed))
        closed = certify_batch(classifier, x, ("l2",), "closed_form")["l2"]
        refined = certify_batch(classifier, x, ("l2",), domain=domain)["l2"]
        nearest = grid_radius(classifier, x, "l2", domain)
        assert (closed <= refined).all() and (refined[closed > 0] <= nearest[closed > 0]).all()
        assert refined.sum() > closed.sum() * 1.01


@pytest.mark.parametrize("settings", [{"steps": -1}, {"cuts": 1}, {"gap": -0.1}, {"gap": math.nan}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="steps must be >= 0, cuts >= 2 and gap >= 0"):
        RefineSettings(**settings)


@pytest.mark.parametrize("norm", NORMS)
def test_a_flat_tangent_counts_in_the_box_only_above_what_rounding_of_its_slope_may_take(norm):
    classifier, x = random_classifier(4, 5)
    x = x[:4]
    certified = classifier.certified(x)
    loss = box_loss(certified, x, norm)
    diameter = torch.linalg.vector_norm(torch.ones(5), ord=ORDER[norm]).item()
    assert loss >= certified.slope_error(norm) * diameter * (1 - 1e-6) > 0
    offsets = loss * torch.tensor([-0.5, 0.0, 0.9, 1.1], dtype=torch.float64)
    tangents = SimpleNamespace(feature_slope=torch.zeros(4, 5), feature_offset=offsets)
    walk = SimpleNamespace(domain="box", certified=certified, x=x, norm=norm)
    assert Walk._flat(walk, tangents, x).tolist() == [False, False, False, True]
