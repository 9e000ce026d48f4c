"""Products of two values that both depend on the input: read as squares, and bounded soundly through them."""

import pytest
import torch
from test_bounds_relaxations import holds_and_is_of_use
from torch import Tensor, nn
from torch.nn import functional

from baselines.bounds import METHODS, BoundedScore
from baselines.layered import read


class Gated(nn.Module):
    """A score of a product of two functions of convolutions of an image."""

    def __init__(self, product) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(1, 3, 3), nn.Conv2d(1, 3, 3), nn.LazyLinear(1)
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.product(self.first(x), self.second(x))).flatten(1))


def mean(h: Tensor) -> Tensor:
    return h.mean(dim=(2, 3), keepdim=True)


PRODUCTS = {
    "squeeze-excite": lambda u, v: torch.relu(u) * torch.sigmoid(mean(torch.relu(u))),
    "hard gate": lambda u, v: functional.hardsigmoid(mean(v)) * torch.relu(u),
    "spatial gate": lambda u, v: u * torch.sigmoid(v.mean(dim=1, keepdim=True)),
    "row times column": lambda u, v: u.mean(dim=2, keepdim=True) * v.mean(dim=3, keepdim=True),
    "bilinear": lambda u, v: u * v,
    "three factors": lambda u, v: u * torch.tanh(v) * mean(u),
    "square": lambda u, v: u.square() - v**2,
    "unusual gate": lambda u, v: (u + 1) * torch.sigmoid(u) + u * (2 + torch.erf(u)),
    "product in a gate": lambda u, v: functional.silu(u * v) * torch.sigmoid(u * v),
    "unlike sizes": lambda u, v: (1e3 * u) * torch.sigmoid(1e-3 * mean(v)),
}


def gated(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = Gated(PRODUCTS[name]).double()
    model(torch.rand(2, 1, 6, 6, dtype=torch.float64))
    return model.requires_grad_(False)


@pytest.mark.parametrize("name", PRODUCTS)
def test_layers_compute_the_product_up_to_the_rounding_that_they_state(name):
    model = gated(name)
    layered = read(model, (1, 6, 6))
    for scale in (0.01, 1.0, 50.0):
        x = scale * torch.randn(40, 1, 6, 6, dtype=torch.float64)
        expected, found = model(x)[:, 0], layered.outputs(x.flatten(1))[:, 0]
        error = layered.rounding(x.flatten(1))
        assert ((found - expected).abs() <= error).all()
        assert (error <= 1e-9 * (1 + scale**3) * (1 + expected.abs().max())).all()


@pytest.mark.parametrize("name", PRODUCTS)
def test_scores_in_the_ball_are_above_the_bounds(name):
    holds_and_is_of_use(gated(name), torch.Generator().manual_seed(1))


@pytest.mark.parametrize("width", [1e-3, 0.1, 1.0, 10.0])
def test_bounds_of_a_product_hold_on_a_dense_grid_and_are_near_mccormicks(width):
    class Multiplied(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 0] * (3 * x[:, 1])

    score = BoundedScore(Multiplied(), (2,))
    steps = torch.linspace(-width, width, 201, dtype=torch.float64)
    for center in torch.tensor([[0.0, 0.0], [1.0, -2.0], [-0.4, 5.0], [3.0, 0.1]], dtype=torch.float64):
        least = score.score(center + torch.cartesian_prod(steps, steps)).min()
        balls = score.balls(center[None], "linf", "free").with_radius(torch.tensor([width]).double())
        for method in METHODS:
            bound = score.lower(balls, method)
            assert bound <= least + 1e-11
        # Each square's line misses it by (w + w')^2 / 16 at most, with w w' = 12 width^2; McCormick's by 3 width^2. The
        # power of two leaves w and w' a factor of two apart at most.
        assert bound >= least - 2 * 3.4 * width**2 - 1e-9
