"""The exact oracle against independent reference radii and the network itself."""

import math
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from convex_examples import ORDER, centered_abs, random_classifier, reference_classifier

from fcnn import ConvexMLP, FeatureConvexClassifier, Identity
from fcnn.exact import exact_radius

each_norm = pytest.mark.parametrize(
    "norm",
    [
        "l1",
        pytest.param("l2", marks=pytest.mark.skipif(not find_spec("clarabel"), reason="no clarabel")),
        "linf",
    ],
)


@pytest.fixture(scope="module")
def reference(vectors):
    return np.load(vectors / "icnn_exact_radii.npz")


@each_norm
@pytest.mark.parametrize("domain", ["free", "box"])
def test_exact_radii_equal_the_reference(reference, norm, domain):
    classifier, x = reference_classifier(reference), torch.tensor(reference["x"])
    radii, points = exact_radius(classifier, x, norm, domain)
    expected = reference[f"exact_{norm}" if domain == "free" else f"exact_box_{norm}"]
    np.testing.assert_allclose(radii, expected, rtol=1e-5)
    with torch.no_grad():
        scores = classifier.frozen().score(points)
    np.testing.assert_allclose(scores, 0, atol=1e-6)
    np.testing.assert_allclose(torch.linalg.vector_norm(points - x, ord=ORDER[norm], dim=1), radii, rtol=1e-5)
    if domain == "box":
        assert points.min() >= -1e-7 and points.max() <= 1 + 1e-7


@each_norm
def test_exact_radius_of_a_linear_score(norm):
    network = ConvexMLP.from_arrays([np.array([[3.0, -4.0]])], [np.array([0.0])], [])
    radii, _ = exact_radius(FeatureConvexClassifier(network), torch.tensor([[0.5, 0.0]]), norm)
    assert radii.item() == pytest.approx({"l1": 1.5 / 4, "l2": 1.5 / 5, "linf": 1.5 / 7}[norm], rel=1e-6)


def test_images_with_a_mean_of_their_own_shape_have_the_radii_of_the_flat_inputs():
    flat, x = random_classifier(seed=0, d=4)
    mean = torch.full((4,), 0.4, dtype=torch.float64)
    flat = FeatureConvexClassifier(flat.network, Identity(mean), threshold=-1.0)
    images = FeatureConvexClassifier(flat.network, Identity(mean.reshape(1, 2, 2)), threshold=-1.0)
    radii, points = exact_radius(images, x[:3].reshape(3, 1, 2, 2), "linf")
    expected, flat_points = exact_radius(flat, x[:3], "linf")
    assert torch.allclose(radii, expected)
    assert torch.allclose(points.flatten(1), flat_points, equal_nan=True)


@each_norm
def test_zero_and_infinite_radii(norm):
    """A threshold far above every score, and one below every score in the box."""
    classifier, x = random_classifier(seed=0, d=4)
    classifier.threshold += 1e3
    assert exact_radius(classifier, x[:2], norm, "box")[0].tolist() == [0.0, 0.0]
    classifier.threshold -= 2e3
    radii, points = exact_radius(classifier, x[:2], norm, "box")
    assert radii.tolist() == [math.inf, math.inf] and points.isnan().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("l3", "free"), "l3.*choose from l1, l2, linf"),
        (("l1", "ball"), "ball.*choose from free, box"),
    ],
)
def test_unknown_names_are_refused(arguments, message):
    classifier, x = random_classifier(seed=0, d=4)
    with pytest.raises(ValueError, match=message):
        exact_radius(classifier, x, *arguments)


def test_what_is_no_linear_program_is_refused():
    classifier, x = random_classifier(seed=0, d=4, feature_map=centered_abs(4))
    with pytest.raises(ValueError, match=r"CenteredAbs.*refined"):
        exact_radius(classifier, x, "l1")
    classifier, x = random_classifier(seed=0, d=4)
    with pytest.raises(ValueError, match=r"inputs in \[0, 1\]"):
        exact_radius(classifier, x + 1, "l1", "box")


def test_the_missing_solver_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "clarabel", None)
    classifier, x = random_classifier(seed=0, d=4)
    with pytest.raises(ImportError, match="extra 'exact'"):
        exact_radius(classifier, x, "l2")
