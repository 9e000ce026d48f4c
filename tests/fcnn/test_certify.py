"""Certifying classifiers: the order of the certificates, what they refuse, and soundness on a trained network."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from convex_examples import NORMS, ORDER, Rotated, centered_abs, random_classifier
from sklearn.datasets import load_digits

from fcnn import CenteredAbs, ConvexMLP, FeatureConvexClassifier, FeatureMap, Identity
from fcnn.certify import certify_at_thresholds, certify_batch, certify_with_bounds
from fcnn.exact import exact_radius
from fcnn.refine import RefineSettings

CHAIN = (("closed_form", None), ("separable", None), ("in_domain", None), ("refined", "box"))
MAPS = {
    "identity": lambda seed: Identity(),
    "centred": lambda seed: Identity(torch.full((7,), 0.3)),
    "absolute": lambda seed: centered_abs(7, seed),
    "no_mean_in_the_box": lambda seed: type(centered_abs(7))(torch.linspace(-0.5, 1.5, 7)),
}


@pytest.mark.parametrize("kind", MAPS)
def test_certificates_are_in_order(kind):
    brief = RefineSettings(steps=6)
    for seed in range(2):
        classifier, x = random_classifier(seed, d=7, feature_map=MAPS[kind](seed))
        radii = [
            certify_batch(classifier, x, NORMS, name, domain=domain, settings=brief) for name, domain in CHAIN
        ]
        free = certify_batch(classifier, x, domain="free", settings=brief)
        for norm in NORMS:
            assert all((a[norm] <= b[norm]).all() for a, b in pairwise(radii))
            assert (radii[1][norm] <= free[norm]).all()
            assert radii[3][norm].sum() > radii[2][norm][torch.isfinite(radii[3][norm])].sum()


def test_inputs_that_are_not_sensitive_get_radius_zero():
    classifier, x = random_classifier(seed=1, d=7)
    sensitive = classifier.predict(x)
    assert 0 < sensitive.sum() < len(x)
    for name, _ in CHAIN:
        for bounds in certify_with_bounds(classifier, x, NORMS, name, points=True).values():
            assert torch.equal(bounds.radius > 0, sensitive)
            assert torch.equal(bounds.radius_upper > 0, sensitive)
            assert bounds.radius.dtype == bounds.radius_upper.dtype == torch.float64
            assert bounds.point.shape == x.shape and bounds.point[~sensitive].isnan().all()


@pytest.mark.parametrize("name", ["closed_form", "in_domain", "refined"])
def test_small_batches_give_the_same_radii(name):
    classifier, x = random_classifier(seed=2, d=7)
    whole = certify_batch(classifier, x, NORMS, name)
    parts = certify_batch(classifier, x, NORMS, name, memory=1)
    for norm in NORMS:
        torch.testing.assert_close(whole[norm], parts[norm], rtol=1e-9 if name != "refined" else 3e-3, atol=0)


def test_an_empty_batch_gives_empty_radii():
    classifier, x = random_classifier(seed=2, d=7)
    for name, _ in CHAIN:
        assert all(len(radii) == 0 for radii in certify_batch(classifier, x[:0], NORMS, name).values())


def test_images_and_float32_networks_are_certified_in_float64():
    torch.manual_seed(0)
    network = ConvexMLP(12, (5,))
    classifier = FeatureConvexClassifier(network, threshold=-1.0)
    radii = classifier.certify(torch.rand(3, 3, 2, 2), ("l2",), "closed_form")["l2"]
    margin, gradient = classifier.tangent(torch.rand(1, 3, 2, 2))
    assert radii.shape == (3,) and radii.dtype == margin.dtype == gradient.dtype == torch.float64


def test_a_map_that_mixes_coordinates_falls_back_to_the_closed_form():
    classifier, x = random_classifier(seed=0, d=7, feature_map=Rotated(7))
    closed, *others = (
        certify_batch(classifier, x, ("l2",), name)["l2"]
        for name in ("closed_form", "separable", "in_domain")
    )
    assert all(torch.equal(closed, other) for other in others)
    with pytest.raises(ValueError, match="choose l2"):
        certify_batch(classifier, x, ("l1",), "closed_form")


def test_a_subclass_of_identity_is_not_taken_for_identity():
    """It may stretch the input: only what it promises itself may be used."""

    class Stretched(Identity):
        def forward(self, x):
            return 3 * x

        def lipschitz(self, norm):
            return 3.0

        def tangent_decrease_weights(self, gradient):
            return 3 * gradient.abs()

    network = ConvexMLP.from_arrays([np.array([[2.0, 1.0]])], [np.array([0.0])], [])
    classifier = FeatureConvexClassifier(network, Stretched())
    x = torch.tensor([[0.3, 0.6]], dtype=torch.float64)
    # score = 6 x1 + 3 x2 = 3.6. The exact free radius is 0.6; in the box x1 can only fall by 0.3 and x2 by 0.6, but the
    # map says nothing of directions, so x1 counts as free to move by 0.7.
    for domain in ("free", "box"):
        bounds = certify_with_bounds(classifier, x, ("l1",), domain=domain)["l1"]
        assert bounds.radius.item() == pytest.approx(0.6, rel=1e-6)


class Standardised(Identity):
    """Inherits weights that do not speak of its forward."""

    def __init__(self, spread):
        super().__init__()
        self.register_buffer("spread", torch.as_tensor(spread, dtype=torch.float64))

    def forward(self, x):
        return super().forward(x) / self.spread

    def lipschitz(self, norm):
        return float((1 / self.spread).max())


class FiveTimesAbsolute(CenteredAbs):
    def forward(self, x):
        return 5 * super().forward(x)

    def lipschitz(self, norm):
        return 5 * super().lipschitz(norm)


class Doubling:
    """A mixin that comes before the map it changes."""

    def forward(self, x):
        return 2 * super().forward(x)

    def lipschitz(self, norm):
        return 2 * super().lipschitz(norm)


class DoubledIdentity(Doubling, Identity):
    pass


class DoubledTwice(Doubling, Standardised):
    pass


OWN_MAPS = {
    "standardised": lambda: Standardised([0.1, 0.5]),
    "five times": lambda: FiveTimesAbsolute(torch.tensor([0.3, 0.6], dtype=torch.float64)),
    "mixin": DoubledIdentity,
    "two levels": lambda: DoubledTwice([0.2, 0.9]),
}


@pytest.mark.parametrize("kind", OWN_MAPS)
@pytest.mark.parametrize("norm", NORMS)
def test_maps_by_the_documented_recipe_keep_no_weights_of_the_class_they_come_from(kind, norm):
    """Only lipschitz is their own: all certificates come down to what it proves, and hold against a scan."""
    feature_map = OWN_MAPS[kind]()
    classifier, x = random_classifier(seed=4, d=2, feature_map=feature_map, sensitive=0.6)
    scan = torch.cartesian_prod(*2 * [torch.linspace(0, 1, 161, dtype=torch.float64)])
    with torch.no_grad():
        adversarial = scan[classifier.score(scan) <= 0]
    nearest = torch.cdist(x, adversarial, p=ORDER[norm]).amin(1)
    closed = certify_batch(classifier, x, (norm,), "closed_form")[norm]
    for name, domain in (*CHAIN[1:], ("refined", "free")):
        radii = certify_batch(classifier, x, (norm,), name, domain=domain)[norm]
        assert (radii <= nearest)[radii > 0].all() and (radii >= closed).all()
        assert name == "refined" or torch.equal(radii, closed)


@pytest.mark.parametrize("name", ["closed_form", "separable", "in_domain", "refined"])
def test_a_forward_without_a_lipschitz_constant_of_its_own_is_refused(name):
    class OnlyForward(CenteredAbs):
        def forward(self, x):
            return 3 * super().forward(x)

    classifier, x = random_classifier(seed=0, d=7, feature_map=OnlyForward(torch.zeros(7)))
    with pytest.raises(
        ValueError, match="OnlyForward changes forward but takes lipschitz from another class"
    ):
        classifier.certify(x, ("l2",), name)
    patched, x = random_classifier(seed=0, d=7, feature_map=Identity())
    patched.feature_map.forward = lambda x: 3 * x
    with pytest.raises(ValueError, match="Identity changes forward"):
        patched.certify(x, ("l2",), name)


@pytest.mark.parametrize("norm", NORMS)
def test_claims_that_a_map_does_not_keep_are_refused(norm):
    class TooSmall(FeatureMap):
        def __init__(self):
            super().__init__()
            matrix = torch.randn(7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            self.register_buffer("matrix", matrix)

        def forward(self, x):
            return x @ self.matrix.T

        def lipschitz(self, norm):
            exact = {"l1": self.matrix.abs().sum(0).max(), "linf": self.matrix.abs().sum(1).max()}
            return 0.95 * float(exact.get(norm, torch.linalg.matrix_norm(self.matrix, 2)))

        def feature_shape(self, input_shape):
            return tuple(input_shape)

    class WrongWeights(Identity):
        def forward(self, x):
            return 2 * x

        def lipschitz(self, norm):
            return 2.0

        def tangent_decrease_weights(self, gradient):
            return 1.9 * gradient.abs()

    classifier, x = random_classifier(seed=0, d=7, feature_map=TooSmall())
    with pytest.raises(ValueError, match=rf"TooSmall stretches a step by .* in {norm}"):
        classifier.certify(x, (norm,), "closed_form")
    classifier, x = random_classifier(seed=0, d=7, feature_map=WrongWeights())
    with pytest.raises(ValueError, match=r"WrongWeights\.tangent_decrease_weights allow"):
        classifier.certify(x, (norm,), "separable")


def with_negative_weight(classifier):
    name, weight = next(iter(classifier.network.nonnegative_parameters()))
    with torch.no_grad():
        weight[0, 0] = -0.5
    return name


@pytest.mark.parametrize("name", ["closed_form", "separable", "in_domain", "refined"])
def test_a_network_that_is_not_convex_is_refused(name):
    classifier, x = random_classifier(seed=0, d=7)
    layer = with_negative_weight(classifier)
    with pytest.raises(ValueError, match=layer):
        classifier.certify(x, NORMS, name)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda x: x, {"norms": ("l1", "l7")}, "'l7'.*l1, l2, linf"),
        (lambda x: x, {"certificate": "tight"}, "'tight'.*closed_form, separable, in_domain, refined"),
        (lambda x: x, {"domain": "ball"}, "'ball'.*box, free"),
        (lambda x: x, {"certificate": "in_domain", "domain": "free"}, "'free'.*'in_domain'.*choose from box"),
        (lambda x: x * math.nan, {}, "NaN"),
        (lambda x: x[:, :3], {}, "7 values"),
        (lambda x: x[0], {}, "batch"),
        (lambda x: x + 0.7, {}, r"inputs in \[0, 1\].*free"),
        (lambda x: x - 0.7, {"certificate": "in_domain"}, r"inputs in \[0, 1\]"),
    ],
)
def test_bad_input_is_refused_by_name(change, options, message):
    classifier, x = random_classifier(seed=0, d=7)
    with pytest.raises(ValueError, match=message):
        certify_batch(classifier, change(x), **options)


def test_several_thresholds_refuse_what_one_does():
    classifier, x = random_classifier(seed=0, d=7)
    for change, certificate, norms, message in (
        (-0.7, "in_domain", NORMS, r"inputs in \[0, 1\]"),
        (0.0, "refined", NORMS, "one at a time"),
        (0.0, "closed_form", ("l7",), "'l7'"),
    ):
        with pytest.raises(ValueError, match=message):
            certify_at_thresholds(classifier, x + change, [0.0, 0.1], norms, certificate)


def test_free_certificates_take_inputs_outside_the_box():
    classifier, x = random_classifier(seed=0, d=7)
    classifier.threshold -= 1e3
    assert (certify_batch(classifier, x + 5, domain="free")["l2"] > 0).all()


@pytest.fixture(scope="module")
def trained():
    """A network after 150 real training steps on the digits 3 (sensitive) and 8, and the threes it gets right."""
    images, labels = load_digits(return_X_y=True)
    chosen = (labels == 3) | (labels == 8)
    x = torch.tensor(images[chosen] / 16, dtype=torch.float32)
    y = torch.tensor(labels[chosen] == 3, dtype=torch.float32)
    torch.manual_seed(0)
    classifier = FeatureConvexClassifier(ConvexMLP(64, (40, 10)), Identity(x.mean(0)))
    optimiser = torch.optim.Adam(classifier.parameters(), 3e-3)
    for _ in range(150):
        batch = x.clone().requires_grad_()
        scores = classifier.score(batch).float()
        (gradient,) = torch.autograd.grad(scores.sum(), batch, create_graph=True)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, y)
        optimiser.zero_grad()
        (loss + 0.01 * gradient.norm(dim=1).mean()).backward()
        optimiser.step()
        classifier.project()
    sensitive = x[(y == 1) & classifier.predict(x)].double()
    assert len(sensitive) > 150
    return classifier, sensitive


def steepest_descent(classifier, x, radius, norm, box, steps=40):
    """Norm-exact attack: repeated linear minimisation over the ball, the box and the averaged iterate (Frank-Wolfe)."""
    frozen = classifier.frozen()
    point = x.clone()
    for step in range(steps):
        _, gradient = frozen.feature_tangent(frozen.feature_map(point))
        if norm == "linf":
            vertex = -radius * gradient.sign()
        elif norm == "l2":
            vertex = -radius * gradient / gradient.norm(dim=1, keepdim=True)
        else:
            largest = gradient.abs().argmax(1, keepdim=True)
            vertex = torch.zeros_like(x).scatter(1, largest, -gradient.gather(1, largest).sign() * radius)
        target = (x + vertex).clamp(0, 1) if box else x + vertex
        point = point + 2 / (step + 2) * (target - point)
    with torch.no_grad():
        return frozen.score(point)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("domain", ["free", "box"])
def test_no_attack_succeeds_inside_radii_of_a_trained_network(trained, norm, domain):
    classifier, x = trained
    bounds = certify_with_bounds(classifier, x, (norm,), domain=domain, points=True)[norm]
    finite = torch.isfinite(bounds.radius)
    radius = torch.where(finite, bounds.radius, 1e3)[:, None]
    assert (steepest_descent(classifier, x, radius, norm, domain == "box") > 0).all()
    # The same attack does succeed a little beyond the upper bound, where adversarial points are known to be.
    assert (bounds.radius_upper / bounds.radius)[finite].median() < 1.005
    beyond = steepest_descent(classifier, x, 1.3 * bounds.radius_upper[finite, None], norm, False)
    distance = torch.linalg.vector_norm((bounds.point - x)[finite], ord=ORDER[norm], dim=1)
    assert (distance >= bounds.radius[finite]).all() and (norm == "l1" or (beyond <= 0).float().mean() > 0.9)


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_refined_meets_the_exact_radius_of_a_trained_network(trained, norm):
    classifier, x = trained
    radii = certify_batch(classifier, x[:8], (norm,), domain="free", settings=RefineSettings(gap=1e-3))[norm]
    exact, _ = exact_radius(classifier, x[:8], norm)
    assert (radii <= exact * (1 + 1e-6)).all() and (radii >= 0.995 * exact).all()
