"""Losses of adversarial and certified training: what they bound, how they ramp, and that training on them works."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.adversarial import AdversarialLoss, CertifiedLoss, ExpressiveLoss, pgd, ramped
from baselines.bounds import Balls, BoundedScore, certify
from baselines.intervals import linear_lower_bound, propagate
from baselines.networks import Normalise, build_network
from fcnn.training import TrainSettings, cross_entropy, train


def images(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy 6x6 images, brighter at the top (sensitive) or at the bottom, with small margins."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.5 + 0.1 * torch.randn(count, 1, 6, 6, generator=generator)
    y = (torch.rand(count, generator=generator) < 0.5).float()
    x[:, 0, :3] += 0.12 * (2 * y - 1)[:, None, None]
    return x.clamp(0, 1), y


def convnet() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        Normalise(0.5, 0.25),
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 4, 2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 1),
        nn.Flatten(0),
    ).eval()


@pytest.mark.parametrize("network", ["mlp", "convnet"])
def test_training_bounds_are_those_of_the_certificate(network):
    model = convnet() if network == "convnet" else build_network("mlp", (1, 6, 6), (9, 7))
    model = model.double().eval()
    x = images(6)[0].double()
    lower, upper, passed = propagate(model, (x - 0.05).clamp(min=0), (x + 0.05).clamp(max=1))
    crown = linear_lower_bound(passed, torch.ones(6, dtype=torch.float64))
    score = BoundedScore(model, (1, 6, 6))
    balls = Balls(score.flatten(x), torch.full((6,), 0.05, dtype=torch.float64), "linf", "box")
    torch.testing.assert_close(torch.maximum(crown, lower).detach(), score.lower(balls, "crown_ibp"))
    # Plain interval arithmetic treats a layer after another affine layer less exactly than the certificate does.
    assert (lower <= score.lower(balls, "ibp") + 1e-12).all()
    assert (linear_lower_bound(passed, -torch.ones(6, dtype=torch.float64)) <= -model(x)).all()
    assert (lower <= model(x)).all() and (upper >= model(x)).all()


def test_training_bounds_hold_behind_a_normalisation_that_turns_signs():
    model, x = convnet().double(), images(20)[0].double()
    with torch.no_grad():
        model[4].weight.copy_(torch.tensor([1.0, -2.0, 0.5, -0.1]))
    lower, upper, _ = propagate(model, x - 0.1, x + 0.1)
    moves = 0.2 * torch.rand(200, *x.shape, generator=torch.Generator().manual_seed(2)).double() - 0.1
    scores = torch.stack([model(x + move) for move in moves])
    assert (lower <= scores.amin(dim=0)).all() and (scores.amax(dim=0) <= upper).all()
    assert all((inner.lower <= inner.upper).all() for inner in propagate(model, x - 0.1, x + 0.1)[2])


def test_pgd_stays_in_the_ball_and_the_box_and_raises_the_loss():
    x, y = images(50)
    x[0], x[1] = 0.0, 1.0
    model = convnet().train()
    torch.manual_seed(0)
    worst = pgd(model, x, y, radius=0.1, steps=5, step_share=0.4)
    assert model.training
    assert worst.min() >= 0 and worst.max() <= 1
    assert (worst - x).abs().max() <= 0.1 + 1e-6
    model.eval()
    losses = [functional.binary_cross_entropy_with_logits(model(z), y, reduction="none") for z in (x, worst)]
    assert (losses[1] > losses[0]).float().mean() > 0.9
    assert torch.equal(pgd(model, x, y, radius=0.0, steps=5, step_share=0.4), x)


def test_the_radius_ramps_up_and_then_stays():
    assert [ramped(0.2, 0.5, done) for done in (0.0, 0.25, 0.5, 0.9)] == pytest.approx([0.0, 0.1, 0.2, 0.2])
    assert ramped(0.2, 0.0, 0.0) == 0.2
    x, y = images(20)
    model = convnet()
    plain = cross_entropy(model, x, y, 0.0)
    for loss in (AdversarialLoss(0.1), CertifiedLoss(0.1, clean_share=0.3)):
        torch.testing.assert_close(loss(model, x, y, 0.0), plain)
        assert loss(model, x, y, 0.9) > plain


def test_the_certified_loss_is_above_the_loss_at_any_point_of_the_ball():
    x, y = images(30)
    model = convnet()
    torch.manual_seed(2)
    worst = pgd(model, x, y, 0.08, steps=20, step_share=0.2)
    attacked = cross_entropy(model, worst, y, 1.0)
    interval, crown = (
        CertifiedLoss(0.08, clean_share=0.0, crown_share=share)(model, x, y, 1.0) for share in (0, 1)
    )
    assert attacked < crown < interval


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_expressive_loss_lies_between_the_attack_and_the_bound(share):
    x, y = images(30)
    model = convnet()

    def value(loss) -> Tensor:
        torch.manual_seed(2)
        return loss(model, x, y, 0.9)

    ends = value(AdversarialLoss(0.08)), value(CertifiedLoss(0.08, clean_share=0.0))
    assert ends[0] < ends[1]
    torch.testing.assert_close(value(ExpressiveLoss(0.08, share)), torch.lerp(*ends, share))


@pytest.mark.parametrize(
    "loss", [CertifiedLoss(0.06), CertifiedLoss(0.06, crown_share=0.5), ExpressiveLoss(0.06, 0.5)]
)
def test_certified_training_widens_the_certified_radii(loss):
    x, y = images(400)
    settings = TrainSettings(epochs=12, batch_size=50, learning_rate=0.01)
    radii = []
    for used in (cross_entropy, loss):
        torch.manual_seed(0)
        model = build_network("mlp", (1, 6, 6), (16,))
        train(model, used, (x, y), settings, seed=1)
        with torch.no_grad():
            assert ((model(x) > 0) == (y > 0.5)).float().mean() > 0.9
        radii.append(certify(model, x[y > 0.5][:60], "linf", "crown_ibp"))
    assert radii[1].median() > 1.15 * radii[0].median()


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(2, 2, padding=1, count_include_pad=False),
        nn.AvgPool2d(3, 2, padding=1, ceil_mode=True),
        nn.AvgPool2d(2, 1, divisor_override=3),
        nn.BatchNorm2d(2, affine=False),
    ],
)
def test_training_bounds_through_any_average_are_those_of_the_certificate(pool):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 2, padding=1), nn.ReLU(), pool, nn.ReLU(), nn.Flatten(), nn.LazyLinear(1)
    )
    x = images(6)[0].double()
    model.double().eval()(x)
    lower, upper, passed = propagate(model, x - 0.05, x + 0.05)
    crown = linear_lower_bound(passed, torch.ones(6, dtype=torch.float64))
    score = BoundedScore(model, (1, 6, 6))
    balls = Balls(score.flatten(x), torch.full((6,), 0.05, dtype=torch.float64), "linf")
    expected = score.lower(balls, "crown_ibp")
    torch.testing.assert_close(torch.maximum(crown, lower[:, 0]).detach(), expected, rtol=1e-7, atol=1e-9)
    assert (lower <= model(x)).all() and (upper >= model(x)).all()


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), type("Own", (nn.Linear,), {})(2, 1)]
)
def test_layers_that_only_look_like_known_ones_are_refused(layer):
    with pytest.raises(ValueError, match="know no layer"):
        propagate(layer, torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))


def test_an_unknown_layer_is_named():
    with pytest.raises(ValueError, match="know no layer Tanh"):
        propagate(nn.Sequential(nn.Tanh()), torch.zeros(1, 2), torch.ones(1, 2))
