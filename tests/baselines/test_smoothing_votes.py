"""Noise, votes and confidence bounds: distributions, seeds, memory budget, simulated failure rates."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from baselines.networks import build_network
from baselines.smoothing import (
    NOISES,
    add_noise,
    count_votes,
    lower_bound,
    noisy_scores,
    upper_bound,
    votes_needed,
)
from baselines.smoothing.noise import FirstLayerNoise, InputNoise, grid_step, noisy_network

CDF = {
    "gaussian": lambda z: 0.5 * math.erfc(-z / math.sqrt(2)),
    "laplace": lambda z: 0.5 * math.exp(math.sqrt(2) * z) if z < 0 else 1 - 0.5 * math.exp(-math.sqrt(2) * z),
    "uniform": lambda z: min(max(0.5 + z / math.sqrt(12), 0.0), 1.0),
}


def linear_model(weight: list[float], bias: float) -> nn.Sequential:
    layer = nn.Linear(len(weight), 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weight]))
        layer.bias.fill_(bias)
    return nn.Sequential(layer, nn.Flatten(0)).eval()


def trained_looking_mlp(dim: int = 12) -> nn.Sequential:
    torch.manual_seed(0)
    return build_network("mlp", (dim,), hidden=(6, 5)).eval()


@pytest.mark.parametrize("noise", NOISES)
def test_noise_has_the_stated_distribution(noise):
    generator = torch.Generator().manual_seed(0)
    drawn = add_noise(torch.zeros(200_000), noise, 2.0, generator).double()
    assert drawn.mean().abs() < 0.02
    assert drawn.std() == pytest.approx(2.0, rel=0.01)
    for z in (-2.0, -0.5, 0.3, 1.5):
        edge = (math.floor(2 * z / grid_step(2.0)) + 0.5) * grid_step(2.0)
        assert (drawn <= edge).double().mean() == pytest.approx(CDF[noise](edge / 2), abs=0.005)


def mean_layer(dim: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(dim, outputs, bias=False)
    nn.init.constant_(layer.weight, 1 / dim)
    return layer


class ReadsLastBits(nn.Module):
    """Knows noise around 0 by its digits: some coordinate is no multiple of 2^-24, as numbers near 1 all are."""

    def forward(self, x):
        scaled = x.flatten(1) * 2.0**24
        return (scaled != scaled.round()).any(dim=1).float() - 0.5


class KnowsTheGenerator(nn.Module):
    """Knows noise around 0 by the values that a float32 generator of Laplace noise can return."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        uniform = (torch.arange(2**23 + 1, dtype=torch.float64) * 2.0**-23).float()
        size = uniform.clamp_(max=1 - 2.0**-24).neg_().log1p_().mul_(-sigma / math.sqrt(2))
        self.values = torch.unique(size)

    def forward(self, x):
        size = x.flatten(1)[:, 0].abs()
        place = torch.searchsorted(self.values, size).clamp(max=len(self.values) - 1)
        return (self.values[place] == size).float() - 0.5


@pytest.mark.parametrize(
    ("network", "noise", "dim"),
    [
        (ReadsLastBits(), "gaussian", 200),
        (ReadsLastBits(), "laplace", 200),
        (ReadsLastBits(), "uniform", 200),
        (KnowsTheGenerator(0.5), "laplace", 1),
        (nn.Sequential(mean_layer(300, 200), ReadsLastBits()), "gaussian", 300),
    ],
)
def test_networks_that_read_the_digits_of_the_noise_learn_nothing_from_them(network, noise, dim):
    """Jin et al. 2022: without a grid these say "sensitive" around 0 and not around 1, far inside the radius."""
    x = torch.cat((torch.zeros(1, dim), torch.full((1, dim), 1e-3), torch.full((1, dim), 1.0)))
    near, nearer, far = count_votes(network.eval(), x, noise, 0.5, 4000, seed=0) / 4000
    # At a distance of 1 the densities differ anyway; there a classifier of real numbers may tell them apart, too.
    assert abs(near - nearer) < 0.05
    assert near < 0.5 or far > 0.5


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("centre", [0.0, 0.3717, -7.00001])
def test_noisy_inputs_lie_on_one_grid_each_point_as_likely_as_its_cell(noise, centre):
    """Chi-square at a level of about 1e-6 over all cells, wherever the noise is added."""
    sigma, count = 0.75, 400_000
    step = grid_step(sigma)
    assert sigma / 64 < step <= sigma / 32
    noisy = add_noise(torch.full((count,), centre), noise, sigma, torch.Generator().manual_seed(1))
    cells = (noisy.double() / step).numpy()
    assert (cells == np.round(cells)).all()
    values, counts = np.unique(cells, return_counts=True)
    low, high = ((values + end) * step - centre for end in (-0.5, 0.5))
    expected = count * np.array(
        [CDF[noise](b / sigma) - CDF[noise](a / sigma) for a, b in zip(low, high, strict=True)]
    )
    many = expected > 20
    statistic = ((counts - expected)[many] ** 2 / expected[many]).sum()
    assert many.sum() > 100
    assert abs(statistic - many.sum()) < 5 * math.sqrt(2 * many.sum())


def test_the_tail_of_laplace_noise_does_not_end_where_24_random_bits_do():
    """Of 2^24 draws one lies beyond 24 ln 2 scales, the largest logarithm of so few bits."""
    generator, beyond = torch.Generator().manual_seed(2), 0
    for _ in range(8):
        drawn = add_noise(torch.zeros(2**22), "laplace", math.sqrt(2.0), generator)
        beyond += int((drawn.abs() > 24 * math.log(2)).sum())
    assert 0 < beyond < 15


@pytest.mark.parametrize("noise", NOISES)
def test_votes_of_a_threshold_classifier_match_its_probability(noise):
    model, sigma, draws = linear_model([1.0], -0.2), 0.5, 100_000
    votes = count_votes(model, torch.tensor([[0.2], [0.6]]), noise, sigma, draws, seed=1)
    for count, margin in zip(votes, (0.0, 0.4), strict=True):
        p = CDF[noise](margin / sigma)
        assert abs(count - draws * p) < 4.5 * math.sqrt(draws * p * (1 - p))


@pytest.mark.parametrize("mutable", [None, torch.arange(12) < 4])
def test_noise_after_the_first_layer_has_the_same_distribution(mutable):
    model, x = trained_looking_mlp(), torch.rand(1, 12)
    shortcut = noisy_network(model, (12,), "gaussian", 0.4, mutable)
    plain = InputNoise(model, (12,), "gaussian", 0.4, mutable)
    assert isinstance(shortcut, FirstLayerNoise)
    generator, count = torch.Generator().manual_seed(3), 100_000
    with torch.no_grad():
        one = shortcut.scores(x, torch.empty(count, *shortcut.draw_shape), generator).double().sort().values
        other = plain.scores(x, torch.empty(count, 12), generator).double().sort().values
    pooled = torch.cat((one, other)).sort().values
    distance = torch.searchsorted(one, pooled, right=True) - torch.searchsorted(other, pooled, right=True)
    # Kolmogorov-Smirnov at a level of about 1e-6.
    assert distance.abs().max() / count < 2.7 * math.sqrt(2 / count)


@pytest.mark.parametrize("noise", ["laplace", "uniform"])
def test_the_shortcut_is_gaussian_only(noise):
    assert isinstance(noisy_network(trained_looking_mlp(), (12,), noise, 0.4), InputNoise)


def test_no_shortcut_where_the_first_layer_is_wider_than_the_input():
    assert isinstance(noisy_network(trained_looking_mlp(3), (3,), "gaussian", 0.4), InputNoise)


@pytest.mark.parametrize("noise", NOISES)
def test_same_seed_same_votes_on_any_number_of_threads(noise):
    model, x = trained_looking_mlp(), torch.rand(5, 12)

    def votes(seed: int, threads: int) -> list[int]:
        torch.set_num_threads(threads)
        try:
            return count_votes(model, x, noise, 0.5, 700, seed=seed, memory_budget=20_000).tolist()
        finally:
            torch.set_num_threads(1)

    assert votes(1, 1) == votes(1, 1) == votes(1, 2)
    assert votes(1, 1) != votes(2, 1)


def test_inputs_and_batches_have_noise_of_their_own():
    scores = noisy_scores(
        trained_looking_mlp(), torch.full((2, 12), 0.5), "gaussian", 1.0, 300, seed=0, memory_budget=9000
    )
    assert len(torch.unique(scores)) == scores.numel()


def test_draws_per_input_are_respected():
    always = linear_model([0.0], 1.0)
    x = torch.zeros(3, 1)
    assert count_votes(always, x, "uniform", 1.0, [5, 0, 70_000], seed=0).tolist() == [5, 0, 70_000]
    assert count_votes(always, x, "uniform", 1.0, 9, seed=0, threshold=1.0).tolist() == [0, 0, 0]
    assert count_votes(always, x[:0], "uniform", 1.0, 9, seed=0).tolist() == []


def test_batches_fit_the_memory_budget():
    widths = []
    model = trained_looking_mlp(40)
    model[2].register_forward_hook(lambda _layer, inputs, _output: widths.append(len(inputs[0])))
    count_votes(model, torch.rand(2, 40), "laplace", 1.0, 1000, seed=0, memory_budget=100_000)
    bytes_per_draw = 4 * (40 + 6 + 5 + 1)
    assert max(widths) > 50
    assert max(widths) * bytes_per_draw <= 100_000


def test_networks_in_training_mode_are_refused():
    with pytest.raises(ValueError, match="eval"):
        count_votes(trained_looking_mlp().train(), torch.rand(1, 12), "gaussian", 1.0, 10, seed=0)
    partly = trained_looking_mlp()
    next(partly.children()).train()
    with pytest.raises(ValueError, match="eval"):
        count_votes(partly, torch.rand(1, 12), "gaussian", 1.0, 10, seed=0)
    with pytest.raises(ValueError, match="draws = -1"):
        count_votes(trained_looking_mlp(), torch.rand(1, 12), "gaussian", 1.0, -1, seed=0)


@pytest.mark.parametrize("p", [0.3, 0.52, 0.9, 0.997])
def test_confidence_bounds_fail_at_most_as_often_as_stated(p):
    alpha, runs, draws = 0.02, 40_000, 500
    votes = np.random.default_rng(0).binomial(draws, p, size=runs)
    allowed = alpha + 4 * math.sqrt(alpha / runs)
    assert (lower_bound(votes, draws, alpha) > p).mean() <= allowed
    assert (upper_bound(votes, draws, alpha) < p).mean() <= allowed


def test_lower_bound_is_the_exact_binomial_tail():
    """The bound p solves P(Binomial(n, p) >= k) = alpha."""
    draws, votes, alpha = 30, 24, 0.001
    p = float(lower_bound(votes, draws, alpha))
    tail = sum(math.comb(draws, k) * p**k * (1 - p) ** (draws - k) for k in range(votes, draws + 1))
    assert tail == pytest.approx(alpha, rel=1e-8)
    assert lower_bound(draws, draws, alpha) == pytest.approx(alpha ** (1 / draws), rel=1e-9)
    assert lower_bound(0, draws, alpha) == 0
    assert upper_bound(draws, draws, alpha) == 1


def test_votes_needed_is_the_first_count_that_decides():
    needed = votes_needed(1000, 0.001)
    assert lower_bound(needed, 1000, 0.001) > 0.5 >= lower_bound(needed - 1, 1000, 0.001)
    assert votes_needed(9, 0.001) == 10


@pytest.mark.parametrize(("votes", "alpha"), [(5, 0.0), (5, 0.7), (11, 0.001), (-1, 0.001)])
def test_impossible_counts_and_levels_are_refused(votes, alpha):
    with pytest.raises(ValueError, match=r"alpha|votes"):
        lower_bound(votes, 10, alpha)
