"""Bounds on networks of every supported layer hold at sampled and attacked points; other layers are named."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.bounds import (
    METHODS,
    Balls,
    BoundedScore,
    RadiusSearch,
    SlopeSettings,
    UnsupportedLayer,
    certify,
    lower_bounds,
)
from baselines.bounds.propagation import OutOfTimeError
from baselines.networks import Normalise, build_network
from fcnn.training import TrainSettings, cross_entropy, train

ORDER = {"l1": 1, "l2": 2, "linf": float("inf")}
NORMS = tuple(ORDER)
SIZES = {"l1": 1.5, "l2": 0.4, "linf": 0.05}


class Residual(nn.Module):
    """relu(conv(x)) + x, whose skip connection starts at the input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x)) + x


class Thresholded(nn.Module):
    """A score less a threshold that is a buffer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("threshold", torch.tensor(0.05))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) - self.threshold


def network(kind: str) -> nn.Module:
    """A small random network (N, 1, 6, 6) -> (N,) or (N, 1), its batch statistics set from random images."""
    torch.manual_seed(0)
    layers = {
        "mlp": [nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 1)],
        "convnet": [
            Normalise(0.4, 0.3),
            nn.Conv2d(1, 4, 3, stride=2, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2, stride=1),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(16, 1),
            nn.Flatten(0),
        ],
        "residual": [
            Residual(),
            nn.Conv2d(1, 4, 3, stride=2),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 6),
            nn.BatchNorm1d(6),
            nn.ReLU(),
            nn.Linear(6, 1),
        ],
    }[kind]
    model = nn.Sequential(*layers)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1, 1)
    model.train()
    for _ in range(20):
        model(torch.rand(64, 1, 6, 6))
    return Thresholded(model.double()).eval()


@pytest.fixture(scope="module", params=["mlp", "convnet", "residual"])
def model(request) -> nn.Module:
    return network(request.param)


@pytest.mark.parametrize("domain", ["free", "box"])
@pytest.mark.parametrize("norm", NORMS)
def test_scores_in_the_ball_are_above_the_bounds(model, norm, domain):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(5, 1, 6, 6, generator=generator, dtype=torch.float64).round(decimals=1)
    radius = SIZES[norm] * torch.linspace(0.1, 1, 5, dtype=torch.float64)
    score = BoundedScore(model, (1, 6, 6))
    balls = score.balls(x, norm, domain).with_radius(radius)
    lowest = lowest_score(model, x, radius, norm, domain, generator)
    bounds = [score.lower(balls, method) for method in METHODS]
    for method, bound in zip(METHODS, bounds, strict=True):
        assert (bound <= lowest + 1e-9).all(), method
    for looser, tighter in pairwise(bounds):
        assert (tighter >= looser).all()
    assert (bounds[-1] > bounds[0]).any()
    # The attack comes close to the best bound on the smallest ball: the bound is not vacuous.
    drop = score.score(x) - lowest
    assert (score.score(x) - bounds[-1])[0] <= 1.5 * drop[0] + 1e-9


def lowest_score(
    model: nn.Module, x: Tensor, radius: Tensor, norm: str, domain: str, generator: torch.Generator
) -> Tensor:
    """Lowest score (N,) met by projected descent and by random points of each ball."""
    size = radius[:, None, None, None]

    def clip(step: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(step.flatten(1), ord=ORDER[norm], dim=1)[:, None, None, None]
        step = step * torch.minimum(torch.ones_like(length), size / length.clamp(min=1e-12))
        return (x + step).clamp(0, 1) - x if domain == "box" else step

    lowest = model(x).detach().flatten()
    for attempt in range(6):
        step = clip(size * torch.randn(x.shape, generator=generator, dtype=x.dtype))
        for _ in range(10):
            step.requires_grad_()
            score = model(x + step).flatten()
            (gradient,) = torch.autograd.grad(score.sum(), step)
            lowest = torch.minimum(lowest, score.detach())
            if norm == "linf":
                gradient = gradient.sign()
            elif norm == "l1" and attempt % 2:
                largest = gradient.flatten(1).abs().amax(dim=1)[:, None, None, None]
                gradient = torch.where(gradient.abs() >= largest, gradient.sign(), 0.0)
            else:
                gradient = functional.normalize(gradient.flatten(1), dim=1).reshape(x.shape)
            step = clip(step.detach() - 0.4 * size * gradient)
    return lowest


def test_no_attack_succeeds_inside_the_radius_of_a_trained_network():
    torch.manual_seed(3)
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(300, 1, 6, 6, generator=generator)
    y = (x[:, 0, :3].mean(dim=(1, 2)) > x[:, 0, 3:].mean(dim=(1, 2))).float()
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.ReLU(), nn.Linear(20, 1), nn.Flatten(0))
    train(model, cross_entropy, (x, y), TrainSettings(epochs=15, batch_size=32, learning_rate=0.01), seed=5)
    model = model.double()
    inputs = x[y > 0.5][:20].double()
    inputs = inputs[model(inputs) > 0]
    score = BoundedScore(model, (1, 6, 6))
    for norm in NORMS:
        for domain in ("free", "box"):
            radius = certify(score, inputs, norm, "alpha_crown", domain, slopes=SlopeSettings(steps=5))
            assert (radius > 0).all()
            inside = torch.where(radius.isinf(), 1.0, radius)
            assert (lowest_score(model, inputs, inside, norm, domain, generator) > 0).all()
            # The radii are not far from what an attack reaches, so a radius twice too large would be caught.
            assert (lowest_score(model, inputs, 2 * inside, norm, domain, generator) < 0).any()


def test_lower_bounds_takes_one_radius_or_one_per_input():
    model = network("mlp")
    x = torch.rand(3, 1, 6, 6)
    each = lower_bounds(model, x, torch.tensor([0.01, 0.02, 0.03]), "linf", "crown")
    torch.testing.assert_close(each[1], lower_bounds(model, x, 0.02, "linf", "crown")[1])
    score = BoundedScore(model, (1, 6, 6))
    assert (each <= score.lower(Balls(score.flatten(x), torch.zeros(3).double(), "linf"), "crown")).all()


def test_the_model_itself_is_left_as_it_was():
    model = network("convnet").float().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    BoundedScore(model, (1, 6, 6))
    assert model.training and {name: t.dtype for name, t in model.state_dict().items()} == {
        name: t.dtype for name, t in before.items()
    }
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Multiplied(nn.Module):
    """The sum of a matrix times itself, both of which depend on the input."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.Identity()(x[:, 0] @ x[:, 0]).flatten(1).sum(dim=1)


@pytest.mark.parametrize(
    ("layers", "name"),
    [
        ([nn.Flatten(), nn.Linear(36, 4), nn.Softmax(1), nn.Linear(4, 1)], r"layer '2' \(Softmax\)"),
        ([nn.Flatten(), nn.Linear(36, 4), nn.Softsign(), nn.Linear(4, 1)], r"layer '2' \(Softsign\)"),
        ([Multiplied()], r"layer '0' \(Multiplied\): the operation 'bmm' multiplies two values"),
    ],
)
def test_a_layer_that_cannot_be_bounded_is_named(layers, name):
    with pytest.raises(UnsupportedLayer, match=name):
        BoundedScore(nn.Sequential(*layers), (1, 6, 6))


def test_the_score_of_several_outputs_is_the_least():
    torch.manual_seed(0)
    body, last = nn.Sequential(nn.Flatten(), nn.Linear(36, 9), nn.ReLU()), nn.Linear(9, 3)
    x = torch.rand(4, 1, 6, 6, dtype=torch.float64)
    bounded = BoundedScore(nn.Sequential(body, last), (1, 6, 6))
    ones = []
    for place in range(3):
        one = nn.Linear(9, 1).requires_grad_(False)
        one.weight.copy_(last.weight[place : place + 1])
        one.bias.copy_(last.bias[place : place + 1])
        ones.append(BoundedScore(nn.Sequential(body, one), (1, 6, 6)))
    torch.testing.assert_close(bounded.score(x), torch.stack([one.score(x) for one in ones]).amin(dim=0))
    for norm in NORMS:
        balls = bounded.balls(x, norm, "box").with_radius(torch.full((4,), 0.2, dtype=torch.float64))
        for method in METHODS[:3]:
            each = torch.stack([one.lower(balls, method) for one in ones])
            torch.testing.assert_close(bounded.lower(balls, method), each.amin(dim=0))
        assert (bounded.lower(balls, "alpha_crown") >= each.amin(dim=0) - 1e-12).all()


def test_photographs_need_no_matrix_of_all_pixels_by_all_pixels():
    """Two opposite ReLUs make a linear score, whose radius is known; 150,528 squared would be 181 GB."""
    shape = (3, 224, 224)
    first, last = nn.Linear(150_528, 2), nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        first.bias[0] = 5.0
        first.weight[1], first.bias[1] = -first.weight[0], -first.bias[0]
        last.weight.copy_(torch.tensor([[1.0, -1.0]]))
    bounded = BoundedScore(nn.Sequential(Normalise(), nn.Flatten(), first, nn.ReLU(), last), shape)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    distance = bounded.score(x) / (2 * first.weight[0].detach().double()).norm()  # pixels are divided by 1/2
    radius = RadiusSearch(bounded, x, "l2").radii("crown").radius
    assert (radius <= distance).all()
    torch.testing.assert_close(radius, distance, rtol=1e-2, atol=0)


def test_a_first_layer_with_too_many_coefficients_is_named():
    with pytest.raises(UnsupportedLayer, match="first layer of 50,176 neurons on 150,528 inputs"):
        BoundedScore(build_network("convnet", (3, 224, 224)), (3, 224, 224))


@pytest.mark.parametrize("kind", ["mlp", "convnet", "residual"])
def test_bounds_do_not_depend_on_the_other_inputs_of_the_batch(kind):
    """Some neurons are stable for one input and not for another: CROWN leaves out only what is stable for all."""
    model = network(kind)
    score = BoundedScore(model, (1, 6, 6))
    x = torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(8))
    balls = score.balls(x, "linf", "box").with_radius(torch.logspace(-3, -0.5, 6, dtype=torch.float64))
    for method in METHODS:
        together = score.lower(balls, method)
        alone = torch.cat([score.lower(balls.select(torch.tensor([i])), method) for i in range(6)])
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-11)
    assert torch.get_default_dtype() == torch.float32


def test_a_bound_stops_when_its_time_is_over_and_a_search_keeps_what_it_has(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    x = torch.rand(5, 4, dtype=torch.float64)
    with torch.no_grad():
        model[-1].bias.add_(0.5 - model(x).min())
    score = BoundedScore(model, (4,))
    clock = iter(range(10_000))
    monkeypatch.setattr("baselines.bounds.propagation.time.monotonic", lambda: float(next(clock)))
    balls = score.balls(x, "linf", "free").with_radius(torch.full((5,), 0.01, dtype=torch.float64))
    with pytest.raises(OutOfTimeError):
        score.lower(balls, "alpha_crown", until=2.0)  # in the middle of the second pass
    complete = RadiusSearch(score, x, "linf").radii("crown").radius
    for seconds in (0, 5, 25, 60, 150):
        search = RadiusSearch(score, x, "linf", until=float(next(clock) + seconds))
        for method in ("ibp", "crown"):
            radius = search.radii(method).radius
            assert (radius >= 0).all() and (radius <= complete * (1 + 1e-3)).all()
    assert (radius > 0).all()  # some time is enough for something
