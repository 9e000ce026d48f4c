"""The classifier against reference margins and gradients; predict, tangent and certify speak of one function."""

import numpy as np
import pytest
import torch

from fcnn import CenteredAbs, ConvexConvNet, ConvexMLP, FeatureConvexClassifier, FeatureMap, Identity


@pytest.fixture(scope="module")
def reference(vectors):
    return np.load(vectors / "icnn_exact_radii.npz")


@pytest.fixture(scope="module")
def reference_classifier(reference):
    network = ConvexMLP.from_arrays(
        [reference[name] for name in ("W0", "W1", "W2")],
        [reference[name] for name in ("b0", "b1", "b2")],
        [reference[name] for name in ("Z0", "Z1")],
    )
    return FeatureConvexClassifier(network, Identity(reference["mu"]))


def conv_classifier(threshold=0.0):
    torch.manual_seed(0)
    classifier = FeatureConvexClassifier(
        ConvexConvNet(6, 4, 3, first_kernel=5, linear_grid=4),
        CenteredAbs(torch.full((3, 1, 1), 0.4)),
        threshold,
    )
    classifier.train()(torch.rand(16, 3, 8, 8))
    return classifier


class Halving(FeatureMap):
    """A map with a parameter and no structure: 1/2-Lipschitz in every norm."""

    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return self.factor * x

    def lipschitz(self, norm):
        return 0.5

    def feature_shape(self, input_shape):
        return tuple(input_shape)


def test_margin_and_gradient_equal_the_reference(reference, reference_classifier):
    margin, gradient = reference_classifier.tangent(torch.tensor(reference["x"]))
    np.testing.assert_allclose(margin, reference["margin"], rtol=1e-12)
    np.testing.assert_allclose(gradient, reference["gradient"], rtol=1e-12, atol=1e-14)


def test_score_subtracts_the_threshold(reference, reference_classifier):
    x = torch.tensor(reference["x"])
    shifted = FeatureConvexClassifier(reference_classifier.network, reference_classifier.feature_map, 0.25)
    torch.testing.assert_close(shifted(x), reference_classifier.score(x) - 0.25, rtol=1e-12, atol=1e-14)
    assert torch.equal(shifted.predict(x), torch.tensor(reference["margin"] > 0.25))
    assert torch.equal(shifted.tangent(x)[0] > 0, shifted.predict(x))


@pytest.mark.parametrize(
    "build", [conv_classifier, lambda: FeatureConvexClassifier(ConvexMLP(192), Halving())]
)
def test_the_score_lies_above_its_tangents(build):
    classifier = build()
    classifier.project()
    exact = classifier.frozen()
    x, y = torch.rand(2, 40, 3, 8, 8, dtype=torch.float64)
    margin, gradient = classifier.tangent(x)
    moved = (gradient * (exact.feature_map(y) - exact.feature_map(x))).flatten(1).sum(1)
    assert margin.dtype == gradient.dtype == torch.float64
    assert gradient.shape == (40, *classifier.feature_map.feature_shape((3, 8, 8)))
    assert (exact.score(y) >= margin + moved - 1e-12).all()
    assert not torch.allclose(exact.score(y), margin)


def test_gradient_agrees_with_finite_differences():
    exact = conv_classifier().frozen()
    features = exact.feature_map(torch.rand(3, 3, 8, 8, dtype=torch.float64))
    step = torch.randn(features.shape, dtype=torch.float64) * 1e-6
    _, gradient = exact.feature_tangent(features)
    ahead, behind = (exact.network(features + sign * step) for sign in (1, -1))
    torch.testing.assert_close(
        (ahead - behind) / 2, (gradient * step).flatten(1).sum(1), rtol=1e-5, atol=1e-12
    )


def test_certified_function_is_float64_and_in_evaluation_mode():
    """Whatever mode the classifier is in, predicting neither depends on batch statistics nor changes them."""
    classifier = conv_classifier()
    x = torch.rand(12, 3, 8, 8)
    state = {name: value.clone() for name, value in classifier.state_dict().items()}
    in_training_mode = classifier.tangent(x), classifier.predict(x)
    assert classifier.training
    assert all(torch.equal(value, state[name]) for name, value in classifier.state_dict().items())
    classifier.eval()
    for before, after in zip(in_training_mode[0], classifier.tangent(x), strict=True):
        assert torch.equal(before, after)
    torch.testing.assert_close(classifier.score(x).double(), in_training_mode[0][0], rtol=1e-4, atol=1e-5)
    assert in_training_mode[0][0].dtype == torch.float64
    assert not any(parameter.requires_grad for parameter in classifier.frozen().parameters())
    assert all(parameter.requires_grad for parameter in classifier.parameters())


def test_small_batches_give_the_same_numbers():
    classifier = conv_classifier()
    x = torch.rand(7, 3, 8, 8)
    pieces = list(classifier.batches(x, memory=2**18))
    assert len(pieces) > 1 and torch.equal(torch.cat(pieces), x.double())
    exact = classifier.frozen()
    margins = torch.cat([exact.feature_tangent(exact.feature_map(piece))[0] for piece in pieces])
    torch.testing.assert_close(margins, classifier.tangent(x)[0], rtol=1e-12, atol=1e-14)


def test_an_empty_batch_gives_empty_answers():
    classifier = conv_classifier()
    margin, gradient = classifier.tangent(torch.zeros(0, 3, 8, 8))
    assert margin.shape == (0,) and gradient.shape == (0, 6, 8, 8)
    assert classifier.predict(torch.zeros(0, 3, 8, 8)).shape == (0,)


def test_score_takes_any_floating_dtype_and_trains_the_feature_map():
    classifier = FeatureConvexClassifier(ConvexMLP(4, (3,)), Halving())
    score = classifier.score(torch.rand(5, 4, dtype=torch.float64))
    assert score.dtype == torch.float32
    score.sum().backward()
    assert classifier.feature_map.factor.grad is not None


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((2, 3, 8, 8), float("nan")), "input 0 holds NaN"),
        (torch.tensor([0.0, float("inf")]).repeat(96).reshape(1, 3, 8, 8), "input 0 holds NaN or infinity"),
        (torch.rand(3, 8), r"shape \(3, 8\)|shape \(16,\)"),
        (torch.rand(8), "add the batch dimension"),
        (torch.rand(2, 1, 8, 8), r"expected \(6, H, W\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "torch.uint8"),
    ],
)
def test_bad_inputs_are_refused(x, message):
    classifier = conv_classifier()
    for question in (classifier.predict, classifier.tangent):
        with pytest.raises(ValueError, match=message):
            question(x)


def test_networks_that_are_not_convex_get_no_tangent():
    classifier = conv_classifier()
    with torch.no_grad():
        classifier.network.blocks[1].norm.weight[0] = -1.0
    with pytest.raises(ValueError, match=r"blocks\.1\.norm\.weight"):
        classifier.tangent(torch.rand(1, 3, 8, 8))
    classifier.project()
    classifier.tangent(torch.rand(1, 3, 8, 8))


def test_a_threshold_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="threshold = nan"):
        FeatureConvexClassifier(ConvexMLP(2), threshold=float("nan"))
