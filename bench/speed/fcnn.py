"""Certificates of feature-convex networks against the bare forward and backward pass of the same network."""

import resource
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from bench.data import load_dataset
from bench.speed.timing import Line, interleaved, seconds
from fcnn.certificates import NORMS, closed_form
from fcnn.certify import certify_with_bounds
from fcnn.classifier import FeatureConvexClassifier
from fcnn.convex_network import ConvexNetwork, float64_copy
from fcnn.exact import exact_radius
from fcnn.feature_maps import CenteredAbs, Identity
from fcnn.losses import RegularisedLoss
from fcnn.networks import ConvexConvNet, ConvexMLP
from fcnn.refine import RadiusBounds, RefineSettings
from fcnn.training import TrainSettings, train

PHOTOGRAPHS = "catsdogs_224"
IMAGES = 900
LOOPED = 25
# Stops at a gap of 1 %; the default of 0.2 % takes about twice as long.
REFINED = RefineSettings(gap=1e-2)


def measure(data_dir: Path | None) -> Iterator[Line]:
    """Yield the timings on an MLP (200, 50) trained for a few epochs on MNIST 3-8."""
    classifier, x = trained_on_mnist(data_dir)
    x = x[classifier.predict(x)][:IMAGES]
    network, features = float64_copy(classifier.network), classifier.feature_map(x.double())
    works = [
        lambda: bare_pass(network, features),
        lambda: classifier.certify(x, NORMS, "closed_form"),
        lambda: classifier.certify(x, NORMS, "in_domain"),
        lambda: [image_by_image(classifier, image) for image in x[:LOOPED]],
    ]
    bare, closed, boxed, looped = interleaved(works, repeats=30)
    yield Line(f"bare forward + backward, {len(x)} images, float64", 1000 * bare, "ms")
    yield Line("closed_form, three norms / bare pass", closed / bare, "x", 1.3)
    yield Line("in_domain, three norms / bare pass", boxed / bare, "x", 4)
    ratio = (looped / LOOPED) / (closed / len(x))
    yield Line("loop over images, three norms / ours", ratio, "x", 50, at_least=True)
    yield from one_at_a_time(classifier, x[:1])
    for domain in ("free", "box"):
        yield from refined(classifier, x, domain)
    if data_dir is not None and (data_dir / PHOTOGRAPHS).is_dir():
        yield from photographs(data_dir)
    for norm in ("l1", "linf"):
        taken = seconds(partial(exact_radius, classifier, x[:1], norm, "free"), repeats=1)
        yield Line(f"one exact linear program, {norm}, for comparison", 1000 * taken, "ms")


def one_at_a_time(classifier: FeatureConvexClassifier, x: Tensor) -> Iterator[Line]:
    """Yield what a single certificate costs beside the bare pass of one image: the float64 copy is kept."""
    network, features = float64_copy(classifier.network), classifier.feature_map(x.double())
    works = [
        lambda: bare_pass(network, features),
        lambda: classifier.certify(x, ("l2",), "closed_form"),
        lambda: classifier.certify(x, NORMS, "closed_form"),
    ]
    bare, one, three = interleaved(works, repeats=300)
    yield Line("closed_form of one image, l2 / bare pass of one image", one / bare, "x", 2)
    yield Line("closed_form of one image, three norms / bare pass of one image", three / bare, "x", 2)


def photographs(data_dir: Path) -> Iterator[Line]:
    """Yield what certificates in the box cost for 600 images of 3 x 224 x 224, all of them certified.

    The network is untrained, its threshold below every score: large margins are the dearest case.
    """
    data = load_dataset(PHOTOGRAPHS, data_dir)
    x, mean = torch.from_numpy(data.x_test), torch.from_numpy(data.x_test.mean(axis=0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ConvexConvNet(6, 16, 3, first_kernel=11, first_stride=8, readout_grid=4, linear_grid=8)
    classifier = FeatureConvexClassifier(network.eval(), CenteredAbs(mean))
    with torch.no_grad():
        classifier.threshold.fill_(torch.cat([classifier.score(batch) for batch in x.split(50)]).min() - 1)
    classifier.certify(x[:2], NORMS, "in_domain")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    classifier.certify(x, NORMS, "in_domain")
    taken = time.perf_counter() - started
    yield Line(f"in_domain, three norms, {len(x)} images of 3 x 224 x 224", taken, "s", 60)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield Line("  peak memory of the process, data set included", peak / 2**20, "GiB", 6)
    yield Line("  growth of that peak while certifying", (peak - before) / 2**20, "GiB")


def refined(classifier: FeatureConvexClassifier, x: Tensor, domain: str) -> Iterator[Line]:
    """Yield cost and gap of the refined certificate."""
    for norm in NORMS:

        def work(norm: str = norm) -> RadiusBounds:
            return certify_with_bounds(classifier, x, (norm,), "refined", domain=domain, settings=REFINED)[
                norm
            ]

        yield Line(f"refined, {norm}, {domain}, an image", 1000 * seconds(work, repeats=3) / len(x), "ms", 3)
        found = work()
        gap = 1 - found.radius / found.radius_upper
        yield Line(f"refined, {norm}, {domain}, median relative gap", float(100 * gap.median()), "%", 1)


def bare_pass(network: ConvexNetwork, features: Tensor) -> Tensor:
    """The least a certificate needs: scores and gradients of one batch, by a network that is in float64 already."""
    features = features.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network(features).sum(), features)
    return gradient


def image_by_image(classifier: FeatureConvexClassifier, image: Tensor) -> list[Tensor]:
    """What a loop over images and norms does: a forward and a backward pass for each norm of each image."""
    radii = []
    for norm in NORMS:
        point = image[None].clone().requires_grad_()
        score = classifier.score(point)
        (gradient,) = torch.autograd.grad(score.sum(), point)
        radii.append(closed_form(score.detach(), gradient.flatten(1), 1.0, norm))
    return radii


def trained_on_mnist(data_dir: Path | None) -> tuple[FeatureConvexClassifier, Tensor]:
    """Return a classifier after a short training, and the sensitive test images."""
    data = load_dataset("mnist_38", data_dir)
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = FeatureConvexClassifier(ConvexMLP(784, (200, 50)), Identity(x.mean(dim=0)))
    settings = TrainSettings(epochs=5, batch_size=128, learning_rate=2e-3)
    train(classifier, RegularisedLoss({"l2": 0.05}), (x, y), settings, seed=0, after_step=classifier.project)
    return classifier, torch.from_numpy(data.x_test[data.y_test == 1])
