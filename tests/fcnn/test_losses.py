"""Losses for the certified radius: gradients by finite differences, and that they raise radii."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from fcnn.certificates import NORMS, closed_form, in_domain
from fcnn.classifier import FeatureConvexClassifier
from fcnn.feature_maps import CenteredAbs, Identity
from fcnn.losses import (
    RadiusLoss,
    RegularisedLoss,
    WeightedLoss,
    balanced_accuracy,
    box_decrease,
    median_radius,
    score_and_gradient,
)
from fcnn.networks import ConvexMLP
from fcnn.training import TrainSettings, train


def classifier(feature_map=None) -> FeatureConvexClassifier:
    torch.manual_seed(3)
    feature_map = feature_map or Identity()
    size = feature_map.feature_shape((5,))[0]
    return FeatureConvexClassifier(ConvexMLP(size, (7, 4), hidden_init=0.5), feature_map).double()


def batch(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand((count, 5), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, (torch.arange(count) % 2).double()


LOSSES = [
    RegularisedLoss({"l1": 0.3}),
    RegularisedLoss({"l2": 0.3, "linf": 0.1}),
    RegularisedLoss({"linf": 0.3}, sensitive_only=True),
    RadiusLoss({"l1": 0.4}),
    RadiusLoss({"l2": 0.4, "linf": 0.2}, weight=2.0, other_share=0.5),
    RadiusLoss({"l2": 0.4}, box_radii={"l1": 0.7, "l2": 0.5, "linf": 0.3}),
]


@pytest.mark.parametrize("feature_map", [Identity(), CenteredAbs(torch.full((5,), 0.45))], ids=["id", "abs"])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_gradients_agree_with_finite_differences(loss, feature_map):
    model = classifier(feature_map)
    x, y = batch()
    loss(model, x, y, 0.0).backward()
    step = 1e-6
    for parameter in model.parameters():
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for position in range(0, len(flat), max(1, len(flat) // 4)):
            old = flat[position].item()
            values = []
            for moved in (old + step, old - step):
                flat[position] = moved
                values.append(loss(model, x, y, 0.0).item())
            flat[position] = old
            slope = (values[0] - values[1]) / (2 * step)
            assert gradient[position].item() == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_the_regulariser_is_the_mean_of_per_example_dual_norms():
    model = classifier()
    x, y = batch()
    plain = RegularisedLoss({})(model, x, y, 0.0)
    gradients = []
    for row in x:
        point = row[None].clone().requires_grad_()
        gradients.append(torch.autograd.grad(model.score(point).sum(), point)[0])
    sizes = torch.stack([gradient.abs().sum() for gradient in gradients])
    penalised = RegularisedLoss({"linf": 0.7})(model, x, y, 0.0)
    assert penalised.item() == pytest.approx((plain + 0.7 * sizes.mean()).item())
    sensitive = RegularisedLoss({"linf": 0.7}, sensitive_only=True)(model, x, y, 0.0)
    assert sensitive.item() == pytest.approx((plain + 0.7 * sizes[y == 1].mean()).item())


@pytest.mark.parametrize("norm", NORMS)
def test_each_row_counts_its_weight_and_the_slope_in_what_may_change(norm):
    model = classifier(CenteredAbs(torch.full((5,), 0.45)))
    x, y = batch()
    weight = torch.linspace(0, 2, len(y), dtype=torch.float64)
    score, gradient = score_and_gradient(model, x)
    of_inputs, of_absolutes = gradient.detach().split(5, dim=1)
    changing = torch.cat([of_inputs[:, :2], of_absolutes[:, :2]], dim=1)
    slopes = {
        "l1": changing.abs().amax(1),
        "l2": changing.square().sum(1).sqrt(),
        "linf": changing.abs().sum(1),
    }
    rows = [
        each * (binary_cross_entropy_with_logits(one, label) + 0.7 * slope)
        for each, one, label, slope in zip(weight, score, y, slopes[norm], strict=True)
    ]
    targets = torch.stack([y, weight], dim=1)
    loss = WeightedLoss({norm: 0.7}, torch.arange(5) < 2)(model, x, targets, 0.0)
    assert loss.item() == pytest.approx(torch.stack(rows).mean().item())


def test_the_radius_loss_is_a_smooth_hinge_on_each_target_in_turn():
    model = classifier()
    x, y = batch()
    score, gradient = (each.detach() for each in score_and_gradient(model, x))
    expected = float(binary_cross_entropy_with_logits(score, y))
    for target, dual in ((0.4, gradient.norm(dim=1)), (0.2, gradient.abs().sum(1))):
        for one, label, size in zip(score.tolist(), y.tolist(), dual.tolist(), strict=True):
            missing = 1 - (1 if label else -1) * one / size / target
            expected += 3 * (1 if label else 0.5) * math.log1p(math.exp(5 * missing)) / 5 / len(y) / 2
    loss = RadiusLoss({"l2": 0.4, "linf": 0.2}, weight=3.0, other_share=0.5)(model, x, y, 0.0)
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("norm", NORMS)
def test_training_for_the_radius_raises_it(norm):
    x, y = batch(200)
    y = (x.sum(dim=1) > 2.5).double()
    settings = TrainSettings(epochs=60, batch_size=50, learning_rate=0.01)
    medians = []
    for loss in (RegularisedLoss({}), RadiusLoss({norm: 2.0}, weight=5.0)):
        model = classifier()
        train(model, loss, (x, y), settings, seed=0, after_step=model.project)
        medians.append(median_radius(model, x, y, norm))
    assert medians[1] > 1.05 * medians[0]


@pytest.mark.parametrize("norm", NORMS)
def test_the_box_decrease_at_the_box_radius_is_the_margin(norm):
    model = classifier()
    x = batch()[0]
    margin, gradient = model.tangent(x)
    caps = torch.where(gradient > 0, x, 1 - x)
    # Half of what the whole box takes, so that the radius is finite.
    margin = (gradient.abs() * caps).sum(dim=1) / 2
    radii = in_domain(margin, gradient.abs(), caps, norm)
    for row, radius in enumerate(radii.tolist()):
        taken = box_decrease(model, x[row : row + 1], gradient[row : row + 1], norm, radius)
        assert taken.item() == pytest.approx(margin[row].item(), rel=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_training_for_the_box_radius_raises_it(norm):
    x, y = batch(200)
    y = (x.sum(dim=1) > 2.5).double()
    settings = TrainSettings(epochs=60, batch_size=50, learning_rate=0.01)
    medians = []
    for loss in (RegularisedLoss({}), RadiusLoss({}, weight=5.0, box_radii={norm: 2.0})):
        model = classifier()
        train(model, loss, (x, y), settings, seed=0, after_step=model.project)
        medians.append(model.certify(x[y == 1], (norm,), "in_domain")[norm].clamp(max=5.0).median())
    assert medians[1] > 1.05 * medians[0]


def test_a_map_that_mixes_coordinates_has_no_box_radius_to_train_for():
    class Mixing(Identity):
        def tangent_decrease_weights(self, gradient):
            return None

    with pytest.raises(ValueError, match="Mixing mixes coordinates"):
        RadiusLoss({}, box_radii={"l2": 1.0})(classifier(Mixing()), *batch(), 0.0)


@pytest.mark.parametrize("norm", NORMS)
def test_the_validation_measure_is_the_median_closed_form_radius(norm):
    model = classifier(CenteredAbs(torch.full((5,), 0.45)))
    x, y = batch()
    sensitive = x[y == 1]
    margin, gradient = model.tangent(sensitive)
    radii = closed_form(margin, gradient, model.feature_map.lipschitz(norm), norm)
    assert median_radius(model, x, y, norm) == pytest.approx(radii.median().item(), rel=1e-6)


def test_balanced_accuracy_weighs_the_classes_alike():
    """Scores 1, 1, -1 for the sensitive and -1, 1 for the others: recalls 2/3 and 1/2."""
    scores, y = torch.tensor([[1.0], [1.0], [-1.0], [-1.0], [1.0]]), torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])
    assert balanced_accuracy(torch.nn.Flatten(0), scores, y) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_the_gradient_is_taken_at_the_features():
    model = classifier(CenteredAbs(torch.full((5,), 0.45)))
    score, gradient = score_and_gradient(model, batch()[0])
    margin, expected = model.tangent(batch()[0])
    assert torch.allclose(score, margin)
    assert torch.allclose(gradient, expected)


@pytest.mark.parametrize("make", [RegularisedLoss, RadiusLoss])
@pytest.mark.parametrize("weights", [{"l3": 1.0}, {"l2": -1.0}, {"l2": float("nan")}])
def test_bad_weights_are_refused(make, weights):
    with pytest.raises(ValueError, match=r"l3|l2"):
        make(weights)
