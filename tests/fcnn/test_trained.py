"""What must hold for networks trained on real images: convexity, the order of certificates, no attack inside."""

from itertools import pairwise

import pytest
import torch

from bench.attacking.attacks import ORDERS, AttackSettings, norm_exact
from bench.attacking.library_attacks import library_attacks
from bench.data import load_dataset
from fcnn import CenteredAbs, ConvexMLP, FeatureConvexClassifier, Identity
from fcnn.certify import certify_with_bounds
from fcnn.losses import RadiusLoss, RegularisedLoss
from fcnn.training import TrainSettings, train

pytestmark = [pytest.mark.slow, pytest.mark.data]

NORMS = ("l1", "l2", "linf")
CHAIN = (("closed_form", "free"), ("separable", "free"), ("in_domain", "box"), ("refined", "box"))
IMAGES = 500
ATTACK = AttackSettings(steps=25, restarts=2)
MAPS = {"identity": Identity, "centered_abs": CenteredAbs}


@pytest.fixture(scope="module")
def mnist(data_dir):
    return load_dataset("mnist_38", data_dir)


@pytest.fixture(scope="module", params=MAPS)
def trained(request, mnist):
    """A classifier after three epochs on MNIST 3-8, and 500 sensitive test images that it gets right."""
    x, y = torch.from_numpy(mnist.x_train), torch.from_numpy(mnist.y_train)
    feature_map = MAPS[request.param](x.mean(dim=0))
    inputs = torch.Size(feature_map.feature_shape(x.shape[1:])).numel()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = FeatureConvexClassifier(ConvexMLP(inputs, (100, 30)), feature_map)
    settings = TrainSettings(epochs=3, batch_size=128, learning_rate=2e-3)
    train(classifier, RegularisedLoss({"l2": 0.05}), (x, y), settings, seed=0, after_step=classifier.project)
    sensitive = torch.from_numpy(mnist.x_test[mnist.y_test == 1])
    chosen = sensitive[classifier.predict(sensitive)][:IMAGES]
    assert len(chosen) == IMAGES
    return classifier, chosen


@pytest.fixture(scope="module")
def bounds(trained):
    """(certificate, domain) -> norm -> radii and upper bounds; certified once for all tests."""
    classifier, x = trained
    kinds = (*CHAIN, ("refined", "free"))
    return {
        kind: certify_with_bounds(classifier, x, NORMS, kind[0], domain=kind[1], points=True)
        for kind in kinds
    }


def test_the_score_is_convex_in_the_features_along_segments(trained, mnist):
    classifier, x = trained
    generator = torch.Generator().manual_seed(1)
    others = torch.from_numpy(mnist.x_test[mnist.y_test == 0])[: len(x)]
    noise = 4 * torch.rand(x.shape, generator=generator) - 2
    for end in (x.flip(0), others[torch.randperm(len(others), generator=generator)][: len(x)], noise):
        start = x[: len(end)]
        gap = classifier.network.convexity_gap(classifier.feature_map(start), classifier.feature_map(end))
        assert gap <= 1e-9
    # The gap does see a network that is not convex.
    broken = ConvexMLP(1, (1,), passthrough=False)
    with torch.no_grad():
        broken.first.weight.fill_(1.0), broken.first.bias.zero_(), broken.hidden_layers[0].weight.fill_(-1.0)
    assert broken.convexity_gap(torch.tensor([[-1.0]]), torch.tensor([[1.0]])) > 0.4


@pytest.mark.parametrize("norm", NORMS)
def test_the_certificates_are_in_order(bounds, norm):
    radii = [bounds[kind][norm].radius for kind in CHAIN]
    assert all((smaller <= larger).all() for smaller, larger in pairwise(radii))
    free = bounds["refined", "free"][norm].radius
    assert (radii[1] <= free).all()
    assert (free <= bounds["refined", "box"][norm].radius_upper).all()
    assert radii[0].median() < radii[2].median() <= radii[3].median()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("domain", ["free", "box"])
def test_no_attack_succeeds_inside_the_largest_certificate(trained, bounds, norm, domain):
    classifier, x = trained
    exact, found = classifier.frozen(), bounds["refined", domain][norm]
    assert (found.radius > 0).all()
    attacked = norm_exact(exact.score, x.double(), found.radius, norm, domain, ATTACK, seed=0)
    assert not attacked.broken.any()
    # The points that the refinement found are adversarial, and the attack is strong enough to find others.
    beyond = norm_exact(exact.score, x.double(), 1.2 * found.radius_upper, norm, domain, ATTACK, seed=0)
    assert beyond.broken.float().mean() > 0.7
    distance = torch.linalg.vector_norm((found.point - x).flatten(1), ord=ORDERS[norm], dim=1)
    with torch.no_grad():
        # A batch of another size rounds its sums otherwise.
        assert (exact.score(found.point) <= 1e-12).all() and (distance >= found.radius).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_torchattacks_finds_nothing_inside_the_box_certificate(trained, bounds, norm):
    classifier, x = trained
    radius = bounds["refined", "box"][norm].radius
    for points in library_attacks(classifier.score, x, radius, norm, seed=0):
        inside = distances(points, x, norm) <= radius
        # At the very edge float32 alone can err; the certificate is one of the function in float64.
        assert (classifier.frozen().score(points[inside].double()) > 0).all()
    largest = 1.5 * radius[:20]
    broken = [
        ~classifier.predict(points) for points in library_attacks(classifier.score, x[:20], largest, norm)
    ]
    assert torch.stack(broken).any(dim=0).float().mean() > 0.5


def distances(points, x, norm):
    return torch.linalg.vector_norm((points.double() - x.double()).flatten(1), ord=ORDERS[norm], dim=1)


def test_gradients_of_the_certificate_loss_agree_with_finite_differences(trained, mnist):
    classifier = trained[0].frozen()
    x = torch.from_numpy(mnist.x_train[:16]).double()
    y = torch.from_numpy(mnist.y_train[:16]).double()
    loss = RadiusLoss({"l1": 10.0, "l2": 1.5, "linf": 0.1}, other_share=0.5)
    classifier.network.requires_grad_()
    loss(classifier, x, y, 0.0).backward()
    generator, step = torch.Generator().manual_seed(0), 1e-7
    for parameter in classifier.network.parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()  # a small step meets no kink
        values, kept = [], parameter.data
        for sign in (1, -1):
            parameter.data = kept + sign * step * direction
            values.append(loss(classifier, x, y, 0.0).item())
        parameter.data = kept
        slope = (values[0] - values[1]) / (2 * step)
        assert (parameter.grad * direction).sum().item() == pytest.approx(slope, rel=1e-3, abs=1e-6)
