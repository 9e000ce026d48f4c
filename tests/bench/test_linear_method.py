"""The shipped linear classifier: robust training against the worst case by hand, exact radii, refused settings."""

import math

import pytest
import torch
from torch.nn import functional

from bench.basics.errors import UsageError
from bench.contract import DUAL_NORM_ORDER, FitContext, TrainingData
from bench.methods.linear import Linear, LinearSettings
from fcnn.training import TrainSettings

SHORT = TrainSettings(epochs=20, batch_size=32, learning_rate=0.05)


def points(count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """One coordinate tells the classes apart by much, the five others by a little each."""
    y = (torch.arange(count) % 2).float()
    x = 0.4 + 0.1 * torch.rand((count, 6), generator=torch.Generator().manual_seed(0))
    x[:, 0] += 0.3 * y
    x[:, 1:] += 0.05 * y[:, None]
    return x, y


def fitted(**settings) -> Linear:
    method, (x, y) = Linear(LinearSettings(**{"train": SHORT, **settings})), points()
    method.build((6,), seed=0)
    method.fit(TrainingData(x, y, x, y), FitContext(seed=0))
    method.calibrate(x, y, seed=0)
    return method


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_the_robust_loss_is_that_of_the_worst_perturbation(norm):
    method, (x, y) = fitted(), points()
    robust = Linear(LinearSettings(radii={norm: 0.1}))
    weight = method.model.network.linear.weight.detach()[0]
    direction = {"l2": weight / weight.norm(), "linf": weight.sign()}.get(norm)
    if norm == "l1":  # all of it on the steepest coordinate
        direction = functional.one_hot(weight.abs().argmax(), 6) * weight.sign()
    worst = x.double() - 0.1 * (2 * y[:, None] - 1) * direction
    expected = functional.binary_cross_entropy_with_logits(method.model(worst), y.double())
    found = robust.loss(method.model, x.double(), y.double(), 0.0)
    torch.testing.assert_close(found, expected)


def test_training_for_a_norm_makes_its_radii_larger_for_the_same_scale():
    """What counts is the radius in units of the gap between the classes: the weight's shape, not its length."""

    def radius(method: Linear, norm: str) -> float:
        weight = method.model.network.linear.weight.detach()[0]
        gap = weight @ torch.tensor([0.3, *[0.05] * 5], dtype=torch.float64)
        return (gap / torch.linalg.vector_norm(weight, ord=DUAL_NORM_ORDER[norm])).item()

    for norm, size in (("l1", 0.1), ("linf", 0.1)):
        assert radius(fitted(radii={norm: size}), norm) > 1.02 * radius(fitted(), norm)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_the_loss_of_the_radius_is_that_of_the_distances(norm):
    """A sharp hinge of distances by hand; the smooth one lies above it by at most log(2) / 5."""
    method, (x, y) = fitted(), points()
    with torch.no_grad():  # a plane through the data, so that both signs occur on both sides
        method.model.network.linear.bias += 0.5
    weight = method.model.network.linear.weight.detach()[0]
    distance = method.model(x.double()).detach() / torch.linalg.vector_norm(weight, ord=DUAL_NORM_ORDER[norm])
    target, count = 1.5 * distance.abs().median().item(), len(y)
    missing = (1 - (2 * y - 1) * distance / target).clamp(min=0) * torch.where(y > 0, 1.0, 0.25)
    aimed = Linear(LinearSettings(radius_targets={norm: target}, radius_weight=3.0, other_share=0.25))
    losses = [
        each.loss(method.model, x.double(), y.double(), 0.0).item()
        for each in (aimed, Linear(LinearSettings()))
    ]
    added = losses[0] - losses[1]
    assert 3.0 * missing.sum().item() / count < added
    assert added < 3.0 * (missing.sum().item() / count + math.log(2) / 5)


def test_training_for_the_radius_makes_it_larger():
    """Of classes that overlap, where a cross-entropy spends itself on the misclassified."""
    generator = torch.Generator().manual_seed(0)
    y = (torch.arange(400) % 2).float()
    x = 0.5 + 0.1 * torch.randn((400, 30), generator=generator)
    x[:, :15] += 0.04 * y[:, None]

    def median(**settings) -> float:
        method = Linear(LinearSettings(train=TrainSettings(epochs=30, learning_rate=0.01), **settings))
        method.build((30,), seed=0)
        method.fit(TrainingData(x, y, x, y), FitContext(seed=0))
        method.calibrate(x, y, seed=0)
        radii = method.certify(x[y > 0], method.curves()[0], ["l1"], seed=0)["l1"].radius
        return float(torch.as_tensor(radii).nan_to_num().median())

    assert median(radius_targets={"l1": 2.0}, other_share=1.0) > 1.1 * median()


def test_training_for_the_radius_starts_between_the_means_of_the_classes():
    x, y = points()
    method = Linear(
        LinearSettings(radius_targets={"l2": 1.0}, train=TrainSettings(epochs=1, learning_rate=1e-12))
    )
    method.build((6,), seed=0)
    method.fit(TrainingData(x, y, x, y), FitContext(seed=0))
    weight, bias = method.affine()
    means = torch.stack([x[y == label].double().mean(dim=0) for label in (0, 1)])
    torch.testing.assert_close(
        means @ weight + bias, torch.tensor([-1.0, 1.0]).double(), rtol=1e-4, atol=1e-4
    )
    steepest = functional.normalize(means[1] - means[0], dim=0)
    torch.testing.assert_close(functional.normalize(weight, dim=0), steepest, rtol=1e-4, atol=1e-4)


def test_training_for_the_radius_starts_as_another_linear_classifier_where_one_is_given():
    start = {"radii": {"l1": 0.1}, "train": {"epochs": 9, "batch_size": 32, "learning_rate": 0.05}}
    still = TrainSettings(epochs=1, learning_rate=1e-12)
    expected, bias = fitted(
        radii={"l1": 0.1}, train=TrainSettings(epochs=9, batch_size=32, learning_rate=0.05)
    ).affine()
    weight, found = fitted(radius_targets={"l1": 1.0}, start=start, train=still).affine()
    torch.testing.assert_close(weight, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found, bias, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"start": {"radii": {"l1": 0.1}}}, "give radius_targets, too"),
        ({"radius_targets": {"l1": 1.0}, "start": {"radius": 1.0}}, "start: unknown key 'radius'"),
    ],
)
def test_starts_that_are_none_are_refused(settings, words):
    with pytest.raises((ValueError, UsageError), match=words):
        LinearSettings(**settings)


def test_radii_are_the_distances_and_the_box_goes_further():
    method, x = fitted(), points()[0]
    x = x[(method.predict(x, seed=0) == 1)]
    free, box = method.curves()
    found = method.certify(x, free, free.norms, seed=0)
    weight, margin = method.model.network.linear.weight.detach()[0], method.score(x).detach()
    for norm, radii in found.items():
        exact = margin / torch.linalg.vector_norm(weight, ord=DUAL_NORM_ORDER[norm])
        radius = torch.as_tensor(radii.radius)
        assert (radius <= exact).all()
        torch.testing.assert_close(radius, exact, rtol=1e-8, atol=1e-12)
        assert (torch.as_tensor(method.certify(x, box, [norm], seed=0)[norm].radius) >= radius).all()


@pytest.mark.parametrize("wrong", [{"l3": 0.1}, {"l1": -1.0}, {"l2": math.nan}])
def test_unknown_norms_and_negative_radii_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LinearSettings(radii=wrong)


@pytest.mark.parametrize("wrong", [{"l3": 0.1}, {"l1": -1.0}, {"l2": math.nan}, {"linf": 0.0}])
def test_unknown_norms_and_targets_that_are_no_radius_are_refused(wrong):
    with pytest.raises(ValueError, match=f"radius_targets: {next(iter(wrong))}"):
        LinearSettings(radius_targets=wrong)
