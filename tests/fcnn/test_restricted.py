"""Certificates over mutable coordinates: those of the network in which the others have become constants."""

import math

import pytest
import torch

from fcnn import CenteredAbs, ConvexMLP, FeatureConvexClassifier, FeatureMap, Identity, certify_batch
from fcnn.certify import certify_with_bounds

NORMS = ("l1", "l2", "linf")
ORDERS = {"l1": 1.0, "l2": 2.0, "linf": math.inf}
MUTABLE = torch.tensor([True, False, True, True, False, True])


def network(seed: int) -> ConvexMLP:
    torch.manual_seed(seed)
    made = ConvexMLP(6, (8, 5)).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_()
    made.project()
    return made


def without_fixed(made: ConvexMLP, x: torch.Tensor) -> ConvexMLP:
    """The network of the mutable coordinates, those of one input x (6,) that are fixed folded into its biases."""
    inputs, biases, hidden = made.to_arrays()
    biases = [bias + weight[:, ~MUTABLE] @ x[~MUTABLE] for weight, bias in zip(inputs, biases, strict=True)]
    return ConvexMLP.from_arrays([weight[:, MUTABLE] for weight in inputs], biases, hidden)


@pytest.mark.parametrize("certificate", ["closed_form", "separable", "in_domain", "refined"])
def test_radii_are_those_of_the_network_of_the_mutable_coordinates(certificate):
    made = network(0)
    torch.manual_seed(1)
    x = torch.rand(12, 6, dtype=torch.float64)
    classifier = FeatureConvexClassifier(made, threshold=float(made(x).detach().quantile(0.3)))
    found = certify_batch(classifier, x, NORMS, certificate, mutable=MUTABLE)
    for row in range(len(x)):
        alone = FeatureConvexClassifier(without_fixed(made, x[row]), threshold=float(classifier.threshold))
        expected = certify_batch(alone, x[row : row + 1, MUTABLE], NORMS, certificate)
        for norm in NORMS:
            # The walks differ by rounding; both stop within the same gap of the exact radius.
            assert found[norm][row].item() == pytest.approx(
                expected[norm].item(), rel=5e-3 if certificate == "refined" else 1e-6, abs=1e-12
            )


@pytest.mark.parametrize("feature_map", [Identity(0.4), CenteredAbs(torch.full((6,), 0.4))])
@pytest.mark.parametrize("domain", ["free", "box"])
def test_no_change_of_mutable_coordinates_within_the_radius_is_adversarial(feature_map, domain):
    width = feature_map.feature_shape((6,))[0]
    torch.manual_seed(3)
    made = ConvexMLP(width, (8,)).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_()
    made.project()
    x = torch.rand(20, 6, dtype=torch.float64)
    scores = FeatureConvexClassifier(made, feature_map).score(x).detach()
    classifier = FeatureConvexClassifier(made, feature_map, float(scores.quantile(0.3)))
    bounds = certify_with_bounds(classifier, x, NORMS, domain=domain, mutable=MUTABLE, points=True)
    for norm, found in bounds.items():
        known = torch.isfinite(found.radius_upper) & (found.radius_upper > 0)
        assert known.any()
        # The adversarial points found move mutable coordinates only, and are adversarial.
        assert torch.equal(found.point[known][:, ~MUTABLE], x[known][:, ~MUTABLE])
        assert (classifier.score(found.point[known]) <= 0).all()
        assert (found.radius <= found.radius_upper * (1 + 1e-9)).all()
        generator = torch.Generator().manual_seed(0)
        for _ in range(200):
            step = torch.randn(20, 6, generator=generator, dtype=torch.float64) * MUTABLE
            size = torch.linalg.vector_norm(step, ORDERS[norm], dim=1)
            moved = x + 0.999 * step * (found.radius.clamp(max=10) / size)[:, None]
            moved = moved.clamp(0, 1) if domain == "box" else moved
            assert (classifier.score(moved)[found.radius > 0] > 0).all()


def test_fewer_changes_never_make_a_tangents_radius_smaller():
    torch.manual_seed(3)
    classifier = FeatureConvexClassifier(ConvexMLP(12, (8,)), CenteredAbs(torch.full((6,), 0.4)), -0.5)
    x = torch.rand(20, 6)
    for certificate in ("closed_form", "separable", "in_domain"):
        whole = certify_batch(classifier, x, NORMS, certificate)
        for norm, radius in certify_batch(classifier, x, NORMS, certificate, mutable=MUTABLE).items():
            # The sums of a plain network are taken in another order than those of one that is wrapped.
            assert (radius >= whole[norm] * (1 - 1e-12)).all() and (
                norm == "l1" or (radius > whole[norm]).any()
            )


def test_a_map_that_may_mix_coordinates_keeps_its_radii_for_any_change():
    class Turned(FeatureMap):
        def forward(self, x):
            return x.flip(1)

        def lipschitz(self, norm):
            return 1.0

        def feature_shape(self, input_shape):
            return tuple(input_shape)

    classifier = FeatureConvexClassifier(network(0), Turned(), -3.0)
    x = torch.rand(5, 6, dtype=torch.float64)
    for norm, radius in certify_batch(classifier, x, NORMS, "closed_form", mutable=MUTABLE).items():
        torch.testing.assert_close(radius, certify_batch(classifier, x, NORMS, "closed_form")[norm])


@pytest.mark.parametrize("mutable", [torch.zeros(6, dtype=torch.bool), torch.ones(6), torch.ones(5) > 0])
def test_masks_that_make_no_sense_are_refused(mutable):
    with pytest.raises(ValueError, match="mutable"):
        certify_batch(FeatureConvexClassifier(network(0)), torch.rand(2, 6), mutable=mutable)
