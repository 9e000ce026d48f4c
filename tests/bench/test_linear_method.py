"""The shipped linear classifier: robust training against the worst case by hand, exact radii, refused settings."""

import math

import pytest
import torch
from torch.nn import functional

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
    method, (x, y) = Linear(LinearSettings(train=SHORT, **settings)), points()
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
