"""Splitting noise: the exact average against brute force, exhaustive search of perturbations, bits, all 256 levels."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines.networks import build_network
from baselines.smoothing.exact_sums import exact_sums
from baselines.smoothing.splitting import GRID_TOLERANCE, LEVELS, SplittingClassifier, splitting_period


def classifier(dim: int, period: int, seed: int = 0) -> SplittingClassifier:
    """A random, strongly curved network: its vote depends on the input in no simple way."""
    torch.manual_seed(seed)
    network = build_network("mlp", (dim,), hidden=(16, 16), std=0.2)
    with torch.no_grad():
        for layer in network:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(3)
    return SplittingClassifier(network, (dim,), period).eval()


def split_by_definition(x: list[float], cuts: list[float], shown: list[float], width: float) -> list[float]:
    """Middle of the interval between cuts + width * k that holds x, within [0, 1], drawn with the cuts ``shown``."""
    middles = []
    for value, cut, show in zip(x, cuts, shown, strict=True):
        k = math.ceil((value - cut) / width) - 1
        low, high = show + k * width, show + (k + 1) * width
        middles.append((min(max(low, 0.0), 1.0) + min(max(high, 0.0), 1.0)) / 2)
    return middles


def share_by_simulation(model: SplittingClassifier, x: Tensor, steps: int) -> float:
    """p(x) by the midpoint rule over u, from the definition with real numbers; exact when u does not matter."""
    width, votes = model.period / LEVELS, []
    for j, step in itertools.product(range(model.period), range(steps)):
        cells = [(j + int(v)) % model.period for v in model.offset]
        cuts = [(cell + (step + 0.5) / steps) / LEVELS for cell in cells]
        shown = [(cell + 0.5) / LEVELS for cell in cells]
        votes.append(split_by_definition(x.tolist(), cuts, shown, width))
    with torch.no_grad():
        return float((model(torch.tensor(votes)) > 0).double().mean())


@pytest.mark.parametrize("period", [1, 7, 100, 255, 300, 661])
def test_share_on_the_grid_equals_the_average_over_all_noise_values(period):
    model = classifier(3, period)
    x = torch.tensor([[0, 17, 255], [254, 128, 3], [99, 100, 101]]) / LEVELS
    expected = [share_by_simulation(model, row, steps=1) for row in x.double()]
    np.testing.assert_allclose(model.share(x), expected, atol=1e-12)


def test_share_off_the_grid_and_outside_the_box_equals_the_integral():
    model = classifier(3, 23, seed=4)
    x = torch.tensor([[0.1234, 0.5, 0.777], [-0.31, 1.27, 0.4001]], dtype=torch.float64)
    expected = [share_by_simulation(model, row, steps=500) for row in x]
    # The midpoint rule misplaces each of the three jumps in u by at most one step.
    np.testing.assert_allclose(model.share(x), expected, atol=3 / 500 / 23 + 1e-9)


def test_all_256_levels_are_told_apart_and_each_lies_in_its_interval():
    """In one dimension a step of the base classifier at c gives a vote that rises from 0 to 1 through every level."""
    step = nn.Sequential(nn.Linear(1, 1), nn.Flatten(0))
    with torch.no_grad():
        step[0].weight.fill_(1.0)
        step[0].bias.fill_(-0.5)
    levels = torch.arange(256).unsqueeze(1) / LEVELS
    model = SplittingClassifier(step, (1,), 2 * LEVELS).eval()
    share = model.share(levels)
    # With cuts 2 apart there is one cut in [0, 1] with probability 1/2; below x it puts x~ above 1/2.
    np.testing.assert_allclose(share, np.arange(256) / (2 * LEVELS), atol=1e-12)


def test_the_same_bits_at_each_call():
    model = classifier(6, 200)
    x = torch.rand(9, 6)
    first, second = model.share(x), model.share(x)
    assert (first == second).all()
    assert (model.radius(x, first) == model.radius(x, second)).all()
    assert model.share(x[3:4])[0] == first[3]


def test_exhaustive_search_finds_no_counterexample_on_the_grid():
    """All pairs of 10,000 points of the grid in two dimensions: none within another's radius is called harmless."""
    period, side = 40, 100
    model = classifier(2, period, seed=7)
    axis = torch.arange(60, 60 + side)
    x = torch.cartesian_prod(axis, axis) / LEVELS
    share = model.share(x)
    radius = (model.radius(x, share) * LEVELS).reshape(side, side)
    share = share.reshape(side, side)
    distance = levels_to_nearest(share <= 0.5)
    assert (share <= 0.5).any() and (radius > 2).any()
    assert (radius <= distance).all()
    np.testing.assert_allclose(radius[radius > 0], period * (share[radius > 0] - 0.5), atol=2e-4)
    # The bound is no empty promise: somewhere the nearest harmless point is hardly farther than certified.
    assert (distance[radius > 0] / radius[radius > 0]).min() < 1.6


@pytest.mark.parametrize("side", [1, -1])
def test_no_counterexample_is_moved_to_the_grid_from_within_the_radius(side):
    """Beside the nearest harmless point of the grid, a little nearer: it is taken to lie there, and harmless too."""
    step = nn.Sequential(nn.Linear(1, 1), nn.Flatten(0))
    with torch.no_grad():
        step[0].weight.fill_(float(side))
        step[0].bias.fill_(-0.5 * side)
    model = SplittingClassifier(step, (1,), 80).eval()
    levels = torch.arange(LEVELS + 1, dtype=torch.float64)[:, None]
    share = model.share(levels / LEVELS)
    radius, harmless = model.radius(levels / LEVELS, share), np.flatnonzero(share <= 0.5)
    assert (radius > 0).any()
    for place in np.flatnonzero(radius > 0):
        nearest = harmless[np.abs(harmless - place).argmin()]
        beside = (nearest - 0.9 * GRID_TOLERANCE * np.sign(nearest - place)) / LEVELS
        assert model.share(torch.tensor([[beside]], dtype=torch.float64))[0] <= 0.5
        assert radius[place] <= abs(beside - place / LEVELS)


def levels_to_nearest(marked: np.ndarray) -> np.ndarray:
    """l1 distance from each cell of a grid to the nearest marked one: a sweep in each direction, once per axis."""
    distance = np.where(marked, 0.0, np.inf)
    for lines in (distance, distance.T):
        for i in range(1, len(lines)):
            lines[i] = np.minimum(lines[i], lines[i - 1] + 1)
        for i in range(len(lines) - 2, -1, -1):
            lines[i] = np.minimum(lines[i], lines[i + 1] + 1)
    return distance


def test_no_counterexample_off_the_grid():
    """Random points, the certificate checked against random points on its sphere: any real numbers, inside or out."""
    model = classifier(3, 30, seed=5)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(150, 3, generator=generator, dtype=torch.float64)
    share = model.share(x)
    radius = model.radius(x, share)
    certified = np.flatnonzero(radius > 0)
    assert len(certified) > 10
    for index in certified[:20]:
        direction = torch.randn(60, 3, generator=generator, dtype=torch.float64)
        direction[:30, 0] *= 20  # towards the corners of the ball, too
        moved = x[index] + direction / direction.abs().sum(dim=1, keepdim=True) * radius[index] * 0.999999
        assert (model.share(moved) > 0.5).all()


def test_share_is_lipschitz_in_l1():
    model = classifier(4, 50, seed=2)
    x, other = torch.rand(300, 4, dtype=torch.float64), torch.rand(300, 4, dtype=torch.float64)
    other[:150] = x[:150] + 0.01 * (other[:150] - 0.5)
    distance = (x - other).abs().sum(dim=1).numpy() * LEVELS / 50
    assert (np.abs(model.share(x) - model.share(other)) <= distance + 1e-4).all()


class Unlisted(nn.Module):
    """A layer that the suite does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).tanh()


@pytest.mark.parametrize(("middle", "networks"), [(nn.ReLU, 12), (Unlisted, 1)])
def test_a_score_of_nearly_zero_votes_the_same_wherever_it_is_computed(middle, networks):
    """The threshold is one of the scores: in float32 its vote depended on the batch, and so on the other cuts."""
    rng = np.random.default_rng(0)
    for seed in range(networks):
        torch.manual_seed(seed)
        dim, period = int(rng.integers(2, 7)), int(rng.integers(50, 400))
        network = nn.Sequential(nn.Linear(dim, 8), middle(), nn.Linear(8, 1), nn.Flatten(0))
        with torch.no_grad():
            network[2].weight.mul_(5)
        model = SplittingClassifier(network, (dim,), period).eval()
        x = (torch.rand(6, dim) * LEVELS).round() / LEVELS
        model.threshold.fill_(model.median_score(x, 100).median())
        share = model.share(x)
        for _ in range(10):
            moved = torch.from_numpy(rng.laplace(size=x.shape) * (rng.random(x.shape) < 0.5))
            moved *= 1e-3 * torch.rand(6, 1) / moved.abs().sum(dim=1, keepdim=True).clamp(min=1e-9)
            allowed = (moved.abs().sum(dim=1).numpy() * LEVELS + 2 * dim * 2e-5) / period + 1e-9
            assert (np.abs(model.share(x.double() + moved) - share) <= allowed).all()


@pytest.mark.parametrize("name", ["mlp", "convnet", "resnet18", "wrn40_2"])
def test_a_network_with_exact_sums_is_the_network_and_gives_the_same_bits_in_any_batch(name):
    torch.manual_seed(0)
    network = build_network(name, (1, 9, 9), hidden=(20, 30), std=0.3).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
    x = torch.rand(7, 1, 9, 9, dtype=torch.float64) * torch.logspace(-3, 3, 7).view(-1, 1, 1, 1)
    exact = exact_sums(network)
    with torch.no_grad():
        together = exact(x)
        expected = copy.deepcopy(network).double()(x)
        assert (together - expected).abs().max() < 1e-5 * expected.abs().max()
        assert torch.equal(torch.cat([exact(x[i : i + 1]) for i in range(7)]), together)
        # Any order of the sums: coordinates of the input of a dense layer in another order.
        layer, whole = exact_sums(nn.Linear(500, 3)), torch.randn(9, 500, dtype=torch.float64)
        order = torch.randperm(500)
        found = layer(whole)
        layer[0].weight = layer[0].weight[:, order]
        assert torch.equal(layer(whole[:, order]), found)
        whole[:, 0], layer[0].bias = torch.inf, None
        assert layer(torch.zeros(2, 500).double()).abs().max() == 0


def test_a_network_in_training_mode_is_certified_without_its_dropout():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Dropout(0.5), nn.Linear(40, 1)).train()
    x = torch.rand(9, 6, dtype=torch.float64)
    exact = exact_sums(network)
    with torch.no_grad():
        torch.testing.assert_close(exact(x), copy.deepcopy(network).double().eval()(x), rtol=1e-5, atol=1e-5)
    assert network.training


def test_layers_whose_sums_are_not_known_are_not_taken_for_exact():
    shared = nn.Linear(8, 8)
    known = nn.Sequential(shared, nn.ReLU(), shared)
    assert not any(isinstance(layer, nn.Linear) for layer in exact_sums(known).modules())
    hooked = nn.Linear(2, 1)
    hooked.register_forward_hook(lambda _layer, _inputs, output: 2 * output)

    class Derived(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(dim=1)

    unknown = [
        Unlisted(),
        hooked,
        Derived(2, 1),
        nn.Softmax(1),
        nn.AvgPool2d(2),
        nn.BatchNorm2d(3, affine=False),
    ]
    unknown += [nn.AdaptiveAvgPool2d(2), nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")]
    for layer in unknown:
        assert exact_sums(nn.Sequential(nn.Flatten(), nn.Sequential(layer))) is None


def test_training_noise_and_certified_noise_agree():
    model = classifier(2, 60, seed=1)
    x = torch.tensor([[0.2, 0.61803]])
    with torch.no_grad():
        torch.manual_seed(0)
        sampled = float((model(model.random_split(x.expand(40_000, 2))) > 0).double().mean())
    assert sampled == pytest.approx(float(model.share(x)[0]), abs=0.015)


def test_median_score_decides_as_the_vote_does():
    model = classifier(3, 77)
    x = torch.randint(256, (200, 3)) / LEVELS
    median = model.median_score(x, shifts=77).numpy()
    share = model.share(x)
    clear = np.abs(share - 0.5) > 1.5 / 77
    assert clear.sum() > 50
    assert ((median > 0) == (share > 0.5))[clear].all()


def test_period_follows_sigma():
    assert splitting_period(0.75) == round(2 * math.sqrt(3) * 0.75 * 255)
    with pytest.raises(ValueError, match="sigma = 0"):
        splitting_period(0.0)
    with pytest.raises(ValueError, match="NaN"):
        classifier(2, 5).share(torch.tensor([[0.1, math.nan]]))
