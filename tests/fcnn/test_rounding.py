"""Certificates against rounding: networks that broke them, error bounds against exact arithmetic, and the fault."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from convex_examples import NORMS, ORDER, centered_abs, random_classifier

from fcnn import (
    CenteredAbs,
    ConvexConvNet,
    ConvexMLP,
    FeatureConvexClassifier,
    FeatureMap,
    Identity,
    PublishedConvNet,
    PublishedMLP,
    UnsoundCertificate,
    refine,
)
from fcnn.certify import Tangent, certify_batch, certify_with_bounds
from fcnn.exact import exact_radius
from fcnn.refine import RefineSettings

DOMAINS = ("free", "box")
EPS32 = 2.0**-24


def drawn(rng, low, high, shape):
    return torch.tensor(rng.integers(low, high + 1, shape), dtype=torch.float64)


def integer_network(seed):
    """One hidden layer of small integers, and 40 inputs, some of them on the edge of the box."""
    rng = np.random.default_rng(seed)
    d, width = int(rng.integers(3, 6)), int(rng.integers(2, 5))
    free = [drawn(rng, -1, 1, (width, d)), drawn(rng, -1, 1, (1, d))]
    biases = [drawn(rng, -2, 0, width), drawn(rng, 0, 0, 1)]
    hidden = [drawn(rng, 0, 2, (1, width))]
    classifier = FeatureConvexClassifier(ConvexMLP.from_arrays(free, biases, hidden))
    x = torch.tensor(rng.random((40, d)))
    x[x < 0.2] = 0.0
    with torch.no_grad():
        score = classifier.score(x)
    classifier.threshold.fill_(float(score.median()) - float(rng.random()))
    return classifier, x


def assert_below_the_exact_radius(classifier, x, norm, domain, settings=None):
    """Radii against the exact ones, and both ends against each other."""
    bounds = certify_with_bounds(classifier, x, (norm,), domain=domain, settings=settings, points=True)[norm]
    exact, _ = exact_radius(classifier, x, norm, domain)
    assert (bounds.radius <= exact * (1 + 1e-6) + 1e-7).all()
    assert (bounds.radius <= bounds.radius_upper).all()
    return bounds


@pytest.mark.parametrize(
    ("seed", "norm", "rows"), [(104, "l2", [24, 34]), (237, "l2", [16, 17]), (237, "linf", [24, 25, 28, 31])]
)
def test_no_tangent_is_taken_so_far_out_that_rounding_drowns_it(seed, norm, rows):
    """The score hardly falls along some rays, with its root at 1e15: radii came out up to twice too large."""
    classifier, x = integer_network(seed)
    bounds = assert_below_the_exact_radius(classifier, x[rows], norm, "free", RefineSettings(steps=8))
    known = bounds.radius_upper[torch.isfinite(bounds.radius_upper)]
    assert len(known) and known.max() < 1e4


@pytest.mark.parametrize("norm", ["l1", "linf"])
@pytest.mark.parametrize("domain", DOMAINS)
def test_integer_networks_are_certified_below_their_exact_radii(norm, domain):
    for seed in range(4):
        classifier, x = integer_network(seed)
        assert_below_the_exact_radius(classifier, x[:12], norm, domain)


def nasty_networks(seed):
    """Duplicated rows, dead units, layers of very different scales, large biases that cancel: seven of them."""
    rng = np.random.default_rng(seed)
    d = 3
    for kind in ("duplicate", "dead", "huge", "tiny", "uneven", "cancelling", "shifted"):
        free = [drawn(rng, -2, 2, (3, d)), drawn(rng, -2, 2, (1, d))]
        biases, hidden = [drawn(rng, -2, 2, 3), drawn(rng, -1, 1, 1)], [drawn(rng, 0, 2, (1, 3))]
        if kind == "duplicate":
            free[0][1], biases[0][1] = free[0][0], biases[0][0]
        if kind == "dead":
            biases[0][:] = -50
        if kind in ("huge", "tiny"):
            scale = 1e120 if kind == "huge" else 1e-120
            free, biases = [scale * weight for weight in free], [scale * bias for bias in biases]
        if kind == "uneven":
            free[0], biases[0], hidden[0] = free[0] * 1e9 / 3, biases[0] * 1e9 / 3, hidden[0] * 3e-9
        if kind == "cancelling":
            # relu(z + b) - b with b far larger than z.
            biases[0] += 1e9
            biases[1] -= 1e9 * hidden[0].sum()
        if kind == "shifted":
            free[0] += 1e-9 * torch.tensor(rng.normal(size=free[0].shape))
        yield kind, FeatureConvexClassifier(ConvexMLP.from_arrays(free, biases, hidden))


@pytest.mark.parametrize("norm", ["l1", "linf"])
@pytest.mark.parametrize("domain", DOMAINS)
def test_nasty_networks_are_certified_below_their_exact_radii(norm, domain):
    for kind, classifier in nasty_networks(seed=5):
        rng = np.random.default_rng(6)
        x = torch.tensor(np.concatenate([rng.random((5, 3)), rng.choice([0.0, 0.5, 1.0], (5, 3))]))
        with torch.no_grad():
            score = classifier.score(x)
        classifier.threshold.fill_(float(score.quantile(0.3)))
        bounds = assert_below_the_exact_radius(classifier, x, norm, domain)
        assert (bounds.radius > 0).any(), kind


def test_a_margin_at_another_threshold_is_not_rounded_up():
    """Of numbers that are not on one scale the sum in float64 is too large as often as too small."""
    rng = np.random.default_rng(0)
    classifier, x = random_classifier(3, 5)
    classifier.threshold.fill_(0.1)
    certified = classifier.certified(x)
    tangents, own = Tangent.of(certified, x, 2**20), Fraction(float(certified.frozen.threshold))
    for threshold in rng.normal(size=20) * 10.0 ** rng.integers(-8, 1, 20):
        margins = tangents.at_threshold(certified, threshold).margin
        exact = [Fraction(float(score)) + own - Fraction(threshold) for score in tangents.lowered]
        assert all(Fraction(float(m)) <= max(e, 0) for m, e in zip(margins, exact, strict=True))
        assert margins.max() > 0 or max(exact) < 1e-9


def line_after_line(slope, bias, hidden, passthrough, offset):
    """hidden relu(slope x + bias) + passthrough x + offset, in float64."""
    numbers = np.array([slope, passthrough]), np.array([bias, offset]), np.array([[hidden]])
    free, biases = (
        values.reshape(2, 1, *shape) for values, shape in zip(numbers[:2], ((1,), ()), strict=True)
    )
    return ConvexMLP.from_arrays(list(free), list(biases), [numbers[2]])


@pytest.mark.parametrize("certificate", ["closed_form", "separable", "in_domain", "refined"])
def test_a_margin_that_is_all_rounding_is_worth_nothing(certificate):
    """relu(x + b) - x - b is 0 for x > -b, but comes out as up to 1e-4 at b = 1e12 + 0.1."""
    bias = 1e12 + 0.1
    classifier = FeatureConvexClassifier(line_after_line(1.0, bias, 1.0, -1.0, -bias))
    x = torch.rand(200, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (classifier.predict(x)).any()
    for bounds in certify_with_bounds(classifier, x, NORMS, certificate).values():
        assert (bounds.radius == 0).all()
        # Predicted sensitive all the same: no adversarial point is known of these.
        assert torch.equal(bounds.radius_upper > 0, classifier.predict(x))


class Detour(FeatureMap):
    """phi(x) = x by way of numbers so large that 1e-10 of it is rounding, as the map says."""

    precision = 2e-10

    def forward(self, x):
        return (x + 1e6) - 1e6

    def lipschitz(self, norm, to=None):
        return 1.0

    def feature_shape(self, input_shape):
        return tuple(input_shape)


def test_a_forward_of_its_own_keeps_no_precision_of_the_class_it_comes_from():
    class Own(Identity):
        def forward(self, x):
            return (x + 1e3) - 1e3

    assert Identity().relative_error() == 0.0 and Own().relative_error() == FeatureMap.precision > 0


@pytest.mark.parametrize("certificate", ["closed_form", "refined"])
def test_what_the_feature_map_rounds_is_no_margin(certificate):
    """Numbers near 1e6 lie 1.16e-10 apart: some x below the threshold pass for the next of them, above it."""
    threshold = 0.75 + 1e-10
    classifier = FeatureConvexClassifier(ConvexMLP.from_arrays([[[1.0]]], [[0.0]], []), Detour(), threshold)
    x = threshold + torch.linspace(-2e-10, 1e-9, 101, dtype=torch.float64)[:, None]
    assert (classifier.predict(x) & (x <= threshold)[:, 0]).any()
    radius = certify_batch(classifier, x, ("l2",), certificate, domain="free")["l2"]
    assert (radius <= (x[:, 0] - threshold).clamp(min=0)).all() and (radius > 0).any()


def test_a_gradient_that_rounding_makes_zero_is_not_flat():
    """3 fl(0.1) is not fl(0.3 + 2^-54): terms that cancel but for rounding certify a large radius, dead ones any."""
    weight = 3 * 0.1
    cancelling, dead = line_after_line(0.1, 0.0, 3.0, -weight, 1.0), line_after_line(0.1, -1.0, 3.0, 0.0, 1.0)
    x = torch.tensor([[0.5]], dtype=torch.float64)
    for network, flat in ((cancelling, False), (dead, True)):
        classifier = FeatureConvexClassifier(network)
        _, gradient = classifier.tangent(x)
        assert (gradient == 0).all()
        for certificate, domain in (("closed_form", "free"), ("separable", "free"), ("refined", "free")):
            radius = certify_batch(classifier, x, ("l2",), certificate, domain=domain)["l2"].item()
            assert radius > 1e9 and math.isinf(radius) == flat
        assert math.isinf(certify_batch(classifier, x, ("l2",), "in_domain")["l2"].item())


def test_one_feature_that_counts_for_nothing_makes_no_tangent_flat():
    """As above, with a second feature of weight 0: flat is where nothing of any feature gets through."""
    free, biases = [[[0.1, 0.0]], [[-(3 * 0.1), 0.0]]], [[0.0], [1.0]]
    classifier = FeatureConvexClassifier(
        ConvexMLP.from_arrays(as_doubles(free), as_doubles(biases), as_doubles([[[3.0]]]))
    )
    x = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    assert (classifier.tangent(x)[1] == 0).all()
    radius = certify_batch(classifier, x, ("l2",), "closed_form")["l2"].item()
    assert radius > 1e9 and math.isfinite(radius)


def as_doubles(arrays):
    return [torch.tensor(array, dtype=torch.float64) for array in arrays]


def exact_score(classifier, x):
    """The score of a ConvexMLP behind Identity in rational arithmetic."""
    input_weights, biases, hidden_weights = classifier.network.to_arrays()
    mean = classifier.feature_map.mean
    point = [
        Fraction(v) - (0 if mean is None else Fraction(m))
        for v, m in zip(x.tolist(), mean.tolist(), strict=True)
    ]
    z = []
    for k, (weight, bias) in enumerate(zip(input_weights, biases, strict=True)):
        rows = [
            sum((Fraction(w) * p for w, p in zip(row, point, strict=True)), Fraction(b))
            for row, b in zip(weight.tolist(), bias.tolist(), strict=True)
        ]
        if k:
            active = [max(value, Fraction(0)) for value in z]
            rows = [
                value + sum(Fraction(h) * a for h, a in zip(row, active, strict=True))
                for value, row in zip(rows, hidden_weights[k - 1].tolist(), strict=True)
            ]
        z = rows
    return z[0] - Fraction(float(classifier.threshold))


def test_scores_are_within_their_error_of_the_exact_score():
    worst = 0.0
    for seed in range(6):
        mean = torch.rand(9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        classifier, x = random_classifier(seed, 9, Identity(mean), hidden=(12, 12, 6))
        x = x * 10.0 ** (3 * seed)
        certified = classifier.certified(x)
        features = certified.features(x)
        score, error = certified.frozen.score(x), certified.error_at_input(features)
        for row in range(6):
            off = abs(Fraction(float(score[row])) - exact_score(classifier, x[row]))
            assert off <= Fraction(float(error[row]))
            worst = max(worst, float(off) / float(error[row]))
    # The bound is one for the worst case, but not out of all proportion.
    assert worst > 1e-4


def test_a_large_threshold_counts_in_the_error():
    """Scores near 1e9 lie 1.2e-7 apart, however small what the network adds up to."""
    classifier, x = random_classifier(0, 5, Identity(torch.zeros(5)))
    classifier.threshold.fill_(-1e9)
    certified = classifier.certified(x)
    score, error = certified.frozen.score(x), certified.error_at_input(certified.features(x))
    off = [
        abs(Fraction(float(s)) - exact_score(classifier, point)) for s, point in zip(score, x, strict=True)
    ]
    assert all(one <= Fraction(float(most)) for one, most in zip(off, error, strict=True))
    assert max(off) > 1e-8


@pytest.mark.parametrize("norm", NORMS)
def test_errors_of_a_slope_count_in_both_features_that_a_coordinate_moves(norm):
    classifier, x = random_classifier(0, 5, centered_abs(5))
    certified = classifier.certified(x)
    both = certified.rounding.of_slope().reshape(2, 5).sum(0)
    worst = torch.linalg.vector_norm(both, ord={"l1": math.inf, "l2": 2, "linf": 1}[norm])
    assert certified.slope_error(norm) >= worst * (1 - 1e-12)


NETWORKS = {
    "mlp": (lambda: ConvexMLP(64, (30, 20, 10)), (64,)),
    "mlp_without_passthrough": (lambda: ConvexMLP(64, (30, 10), passthrough=False), (64,)),
    "published_mlp": (lambda: PublishedMLP(64, (30, 10)), (64,)),
    "convnet": (lambda: ConvexConvNet(2, 6, 3, first_kernel=5), (2, 8, 8)),
    "convnet_max": (
        lambda: ConvexConvNet(
            2, 6, 3, pool="max", pool_size=2, readout_grid=2, passthrough=True, linear_grid=4
        ),
        (2, 8, 8),
    ),
    "published_convnet": (lambda: PublishedConvNet((2, 8, 8), 6, 2, first_kernel=5, pool_size=2), (2, 8, 8)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_errors_of_any_network_are_bounded(name):
    """In float32 the same bound holds with float32's precision: the float64 network shows by how much it is off."""
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
        network.train()(torch.randn(32, *shape))
        network.project()
    network.eval()
    features = (10 * torch.randn(50, *shape)).requires_grad_()
    precise = features.detach().double().requires_grad_()
    score = network(features)
    (gradient,) = torch.autograd.grad(score.sum(), features)
    exact = network.double()(precise)
    (slope,) = torch.autograd.grad(exact.sum(), precise)
    proof = network.proof(precise.detach())
    unit = (proof.roundings + 2) * EPS32
    sizes = (proof.slope * precise.abs()).flatten(1).sum(1) + proof.offset
    off = (score.double() - exact).abs()
    assert (off <= unit * sizes).all() and (off > 1e-6 * unit * sizes).any()
    # Sizes bound the score itself, and slopes the gradient of every pattern.
    assert (exact.abs() <= sizes * (1 + 1e-12)).all()
    assert (slope.abs() <= proof.slope * (1 + 1e-12)).all()
    same = (gradient.double() - slope).abs() <= unit * proof.slope
    assert same.flatten(1).all(1).float().mean() > 0.8  # other units may be active in float32


def test_biases_count_in_an_error_and_batch_norm_means_do():
    plain = ConvexMLP.from_arrays([[[1.0]]], [[0.0]], []).double()
    shifted = ConvexMLP.from_arrays([[[1.0]]], [[-1e6]], []).double()
    x = torch.ones(2, 1, dtype=torch.float64)
    assert shifted.proof(x).offset[0] == 1e6 and plain.proof(x).offset[0] == 0
    network = PublishedMLP(1, (1,)).double().eval()
    network.norms[0].running_mean.fill_(-1e6)
    assert network.proof(x).offset[0] >= 0.99e6 * float(network.hidden_layers[0].weight.abs().detach())


@pytest.mark.parametrize("norm", NORMS)
def test_a_radius_beyond_an_adversarial_point_is_a_fault(norm, monkeypatch):
    classifier, x = random_classifier(seed=1, d=5)
    honest = refine.tangent_radius
    monkeypatch.setattr(refine, "tangent_radius", lambda *args: 1.5 * honest(*args))
    with pytest.raises(
        UnsoundCertificate, match=rf"refined {norm} radii \(free\) reach beyond an adversarial point"
    ):
        certify_batch(classifier, x, (norm,), domain="free")


def scan(classifier, x, norm, domain, count=4000):
    """Distance (N,) to the nearest adversarial point of a fine scan of the plane around the box."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    points = torch.cat([points, torch.cartesian_prod(*2 * [torch.linspace(0, 1, 41, dtype=torch.float64)])])
    if domain == "free":
        points = torch.cat([points, 5 * points - 2, 60 * points - 30])
    with torch.no_grad():
        adversarial = points[classifier.frozen().score(points) <= 0]
    if not len(adversarial):
        return torch.full((len(x),), math.inf)
    return torch.cdist(x, adversarial, p=ORDER[norm]).amin(1)


@pytest.mark.parametrize("domain", DOMAINS)
def test_integer_networks_behind_centered_abs_hold_against_a_scan(domain):
    """Means on the inputs' own values: kinks at x."""
    brief = RefineSettings(steps=6)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        widths = [3, 1]
        free = [drawn(rng, -1, 1, (width, 4)) for width in widths]
        biases = [drawn(rng, -1, 1, width) for width in widths]
        hidden = [drawn(rng, 0, 2, (after, before)) for before, after in pairwise(widths)]
        mean = torch.tensor(rng.choice([0.0, 0.5, 1.0], 2))
        classifier = FeatureConvexClassifier(ConvexMLP.from_arrays(free, biases, hidden), CenteredAbs(mean))
        x = torch.tensor(rng.choice([0.0, 0.25, 0.5, 1.0], (20, 2)))
        with torch.no_grad():
            classifier.threshold.fill_(float(classifier.score(x).median()) - 0.2)
        for norm, bounds in certify_with_bounds(classifier, x, NORMS, domain=domain, settings=brief).items():
            sensitive = bounds.radius > 0
            assert (bounds.radius <= scan(classifier, x, norm, domain) * (1 + 1e-9))[sensitive].all()
            assert (bounds.radius <= bounds.radius_upper)[sensitive].all()


def test_the_box_and_centered_abs_lose_next_to_nothing_by_it():
    classifier, x = random_classifier(3, 8, centered_abs(8))
    margin, gradient = classifier.tangent(x)
    radii = certify_batch(classifier, x, ("linf",), "closed_form")["linf"]
    naive = margin.clamp(min=0) / gradient.abs().sum(1)
    assert (radii <= naive).all() and (radii >= naive * (1 - 1e-8)).all()
