"""Lines around activations enclose them on intervals of every size; bounds through them hold at attacked points."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from test_bounds_networks import NORMS, SIZES, lowest_score
from torch import Tensor, nn

from baselines.bounds import METHODS, BoundedScore, RadiusSearch
from baselines.bounds.relaxation import lines, values_on
from baselines.layered import ACTIVATIONS, read
from baselines.layered.operators import MISH, RELU, SQUARE, Activation, aten

DUAL = {"l1": float("inf"), "l2": 2, "linf": 1}


def written_out(function: Callable[[Tensor], Tensor]) -> Activation:
    """The activation that a function between two linear layers is read as."""

    class Written(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2.0 * function(3.0 * x - 1.0).sum(dim=1)

    layers = read(Written(), (4,)).layers
    assert len(layers) == 2
    return layers[0].activation


def clamped(x: Tensor) -> Tensor:
    return nn.functional.relu6(x + 3)


ONE = torch.tensor(1.0, dtype=torch.float64)
SMOOTH = {
    "relu": RELU,
    "square": SQUARE,
    "erf": ACTIVATIONS[aten.erf.default](),
    "atan": ACTIVATIONS[aten.atan.default](),
    "mish": MISH,
    "hardswish": ACTIVATIONS[aten.hardswish.default](),
    "selu": ACTIVATIONS[aten.selu.default](),
    "celu": ACTIVATIONS[aten.celu.default](0.5),
    "elu of a half": ACTIVATIONS[aten.elu.default](0.5),
    "sigmoid": ACTIVATIONS[aten.sigmoid.default](),
    "tanh": ACTIVATIONS[aten.tanh.default](),
    "elu": ACTIVATIONS[aten.elu.default](),
    "gelu": ACTIVATIONS[aten.gelu.default](),
    "gelu by tanh": ACTIVATIONS[aten.gelu.default](approximate="tanh"),
    "silu": ACTIVATIONS[aten.silu.default](),
    "softplus": ACTIVATIONS[aten.softplus.default](),
    "steep softplus": ACTIVATIONS[aten.softplus.default](8.0),
    "gelu by hand": written_out(lambda x: x * 0.5 * (1 + torch.erf(x / 1.4142135))),
    "gelu twice as high": written_out(lambda x: (torch.erf(0.9 * x) + 1) * x),
    "gelu by tanh, by hand": written_out(
        lambda x: 0.5 * x * (1 + torch.tanh(0.79788458 * (x + 0.044715 * x**3)))
    ),
    "gelu by tanh, factored": written_out(
        lambda x: x * (0.5 * torch.tanh(x * 0.79788458 * (1 + 0.044715 * x * x)) + 0.5)
    ),
    "quick gelu": written_out(lambda x: torch.sigmoid(1.702 * x) * x),
    "silu by tanh": written_out(lambda x: x * (0.5 + 0.5 * torch.tanh(0.5 * x))),
    "silu by differences": written_out(lambda x: x * (1 - 0.5 * (ONE - torch.tanh(0.5 * x)))),
    "gelu by a difference": written_out(lambda x: x * (torch.erf(x / 1.4142135) - (-1.0)) * 0.5),
    "mish by hand": written_out(lambda x: x * torch.tanh(nn.functional.softplus(x))),
    "hardswish by hand": written_out(lambda x: x * clamped(x) / 6),
    "hardswish of a hardsigmoid": written_out(lambda x: nn.functional.hardsigmoid(x) * x),
    "softplus as exported": written_out(
        lambda x: torch.where(x > 20.0, x, nn.functional.softplus(x, threshold=1e9))
    ),
    "leaky by choice": written_out(lambda x: torch.where(x > 0, x, 0.1 * x)),
}


def intervals() -> tuple[Tensor, Tensor]:
    """Intervals of widths from 0 to 1e5 around centers of sizes from 1e-3 to 1e5, and around the kinks and valleys."""
    generator = torch.Generator().manual_seed(0)
    size = 10.0 ** (8 * torch.rand(4000, 1, generator=generator, dtype=torch.float64) - 3)
    center = size * torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    center[::3] = 2 * torch.randn(len(center[::3]), 1, generator=generator, dtype=torch.float64)
    reach = 10.0 ** (8 * torch.rand(4000, 1, generator=generator, dtype=torch.float64) - 3)
    reach[::50] = 0.0
    return center - reach, center + reach


@pytest.mark.parametrize("name", SMOOTH)
def test_lines_and_ranges_enclose_the_activation(name):
    activation = SMOOTH[name]
    lower, upper = intervals()
    around = lines(activation, lower, upper)
    least, greatest = values_on(activation, lower, upper)
    shares = torch.cat(
        [torch.linspace(0, 1, 301), torch.logspace(-9, 0, 100), 1 - torch.logspace(-9, 0, 100)]
    )
    for points in (lower + (upper - lower) * shares.double(), near_the_middle(lower, upper)):
        value = activation.function(points)
        rounding = 1e-13 * (1 + points.abs() + value.abs())
        assert (around.lower_slope * points + around.lower <= value + rounding).all()
        assert (around.upper_slope * points + around.upper >= value - rounding).all()
        assert (least <= value + rounding).all() and (greatest >= value - rounding).all()
    # They are of use: on an interval of width 1 the lines lie within a quarter of each other.
    one = torch.linspace(-4, 4, 50, dtype=torch.float64)[:, None]
    near = lines(activation, one - 0.5, one + 0.5)
    gap = (near.upper_slope - near.lower_slope) * one + near.upper - near.lower
    assert (gap <= 0.51 * max(1.0, activation.steepest)).all()


def near_the_middle(lower: Tensor, upper: Tensor) -> Tensor:
    """Points of the intervals around zero, where activations bend, however wide the interval is."""
    points = torch.cat([torch.linspace(-6, 6, 241), torch.logspace(-6, 1, 40), -torch.logspace(-6, 1, 40)])
    return torch.minimum(torch.maximum(points.double().expand(len(lower), -1), lower), upper)


@pytest.mark.parametrize("name", SMOOTH)
def test_no_slope_changes_faster_than_the_curvature_says(name):
    activation = SMOOTH[name]
    z = torch.linspace(-30, 30, 600_001, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(activation.function(z).sum(), z)
    passed = activation.passed_on(z.detach(), torch.full_like(z, 1e-6)) / 1e-6
    assert (slope.abs() <= passed).all(), "rounding errors are taken to grow by no more"
    if activation.curvature is not None:
        changes, width = slope.diff().abs(), 1e-4
        kinks = changes > 1.01 * activation.curvature * width
        assert float(changes[kinks].sum()) <= activation.jump * (1 + 1e-3) + 1e-9
        assert float(changes[~kinks].max()) <= activation.curvature * width * (1 + 1e-6)
    rising = slope.detach() > -1e-9
    if activation.valley is None:
        assert rising.all()
    else:
        before, after, value = activation.valley
        falling = (z > (-2.9 if activation.jump else -4)) & (
            z < before
        )  # further out the slope is too small to tell
        assert not rising[falling].any() and rising[z > after].all()
        assert float(activation.function(z.detach()).min()) >= value


LAYERS = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "leaky": nn.LeakyReLU,
    "clip": nn.Hardtanh,
}


@pytest.mark.parametrize("scale", [0.5, 4.0, 40.0])
@pytest.mark.parametrize("kind", LAYERS)
def test_scores_in_the_ball_are_above_the_bounds(kind, scale):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    layers = [
        nn.Flatten(),
        nn.Linear(36, 8),
        LAYERS[kind](),
        nn.Linear(8, 6),
        LAYERS[kind](),
        nn.Linear(6, 1),
    ]
    model = nn.Sequential(*layers).double().requires_grad_(False)
    model[1].weight.mul_(scale), model[3].weight.mul_(scale)
    holds_and_is_of_use(model, generator)


@pytest.mark.parametrize("stride", [1, 2])
def test_scores_are_above_the_bounds_through_max_pooling_and_a_shortcut(stride):
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.side = nn.Conv2d(1, 3, 3), nn.Conv2d(1, 3, 3)
            self.pool = nn.MaxPool2d(2, stride, padding=1, ceil_mode=True)
            self.last = nn.LazyLinear(1)

        def forward(self, x: Tensor) -> Tensor:
            pooled = self.pool(self.conv(x))
            return self.last(torch.cat([pooled.flatten(1), torch.sigmoid(self.side(x)).flatten(1)], dim=1))

    torch.manual_seed(0)
    model = Pooled().double()
    model(torch.rand(2, 1, 6, 6, dtype=torch.float64))
    holds_and_is_of_use(model.requires_grad_(False), torch.Generator().manual_seed(1))


def holds_and_is_of_use(model: nn.Module, generator: torch.Generator) -> None:
    """Bounds lie below what attacks find on balls of many sizes, in order, and below small balls close to it."""
    score = BoundedScore(model, (1, 6, 6))
    x = torch.rand(6, 1, 6, 6, generator=generator, dtype=torch.float64).round(decimals=1)
    for norm in NORMS:
        radius = SIZES[norm] * torch.logspace(-5, 1, 6, dtype=torch.float64)
        for domain in ("free", "box"):
            balls = score.balls(x, norm, domain).with_radius(radius)
            lowest = lowest_score(model, x, radius, norm, domain, generator)
            bounds = [score.lower(balls, method) for method in METHODS]
            for method, bound in zip(METHODS, bounds, strict=True):
                assert (bound <= lowest + 1e-9).all(), (norm, domain, method)
            for looser, tighter in pairwise(bounds):
                assert (tighter >= looser).all()
            # On the smallest ball the score is all but linear, and the bound is its linear decrease.
            point = x[:1].clone().requires_grad_()
            (slope,) = torch.autograd.grad(model(point).sum(), point)
            decrease = radius[0] * torch.linalg.vector_norm(slope.flatten(), ord=DUAL[norm])
            assert (score.score(x) - bounds[-1])[0] <= 1.1 * decrease + 1e-9


def test_radii_through_smooth_activations_hold_and_are_close_to_attacks():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(36, 10), nn.Tanh(), nn.Linear(10, 6), nn.GELU(), nn.Linear(6, 1)
    )
    model = model.double().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(12, 1, 6, 6, generator=generator, dtype=torch.float64)
    model[-1].bias.sub_(model(x).min() - 0.02)
    bounded = BoundedScore(model, (1, 6, 6))
    for norm in NORMS:
        radius = RadiusSearch(bounded, x, norm).radii("crown").radius
        assert (radius > 0).all()
        assert (lowest_score(model, x, radius, norm, "free", generator) > 0).all()
        assert (lowest_score(model, x, 2 * radius, norm, "free", generator) < 0).any()
