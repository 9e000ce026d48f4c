"""Two-stage sampling against a fixed number of draws: how many fewer, and the certified accuracy they cost."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from baselines.networks import build_network
from baselines.smoothing import (
    NoisyLoss,
    SmoothedClassifier,
    TwoStage,
    TwoStageAtRadii,
    add_noise,
    count_votes,
    decision_scores,
    lower_bound,
    noisy_scores,
    radii,
)
from baselines.smoothing.two_stage import RadiusOf
from bench.calibration import OperatingPoint, calibrated_threshold
from bench.data import Dataset
from bench.speed.timing import Line
from fcnn.training import TrainSettings, train

ALPHA = 0.001
DRAWS = 100_000
# At named radii, the MNIST suite's and then the paper's: the radii, the price of full draws, the least factor.
# Near 2.5 (p = 0.9996) a third of the inputs need most of their draws: no factor is promised there.
NAMED_SIGMA, NAMED_PILOT, NAMED_INPUTS = 0.75, 2000, 200
NAMED_RADII = (((0.5, 1.0, 1.5), 0.03, 3), ((0.5, 1.0, 1.5, 2.0, 2.5), 0.05, None))
# At every radius: twice that noise, where few inputs are certified as far as the draws allow. Each of these must have
# all of its draws, and under the smaller noise they are a third. The more draws, the less each of the last buys: 3
# times fewer for one point is not quite reached at n = 100,000.
SIGMA, PILOT, LOSS = 1.5, 250, 0.0045
NUMBERS_OF_DRAWS = ((100_000, None), (300_000, 3))
SHARE_DRAWS = 100_000
RADII = 100
REDRAWS = 100


def measure(data: Dataset, x: Tensor) -> Iterator[Line]:
    """Yield factors and costs for sensitive images x (N, *shape): first at named radii, then at every radius."""
    yield from at_named_radii(data, x[:NAMED_INPUTS])
    yield from at_every_radius(data, x)


def at_named_radii(data: Dataset, x: Tensor) -> Iterator[Line]:
    """Yield, for each list of radii planned for, how many fewer draws are made and what is lost there."""
    smoothed = smoothed_mlp(data, NAMED_SIGMA)
    radius_of = l2_radii(smoothed, x)
    fixed = radius_of(smoothed.p_lower(x, draws=DRAWS, seed=2)[0])
    for planned, price, least in NAMED_RADII:
        plan = TwoStageAtRadii(NAMED_PILOT, radius_of, planned, price)
        p_lower, draws = smoothed.p_lower(x, draws=DRAWS, seed=2, two_stage=plan)
        where = f"{len(planned)} radii to {planned[-1]}"
        yield factor(draws, DRAWS, plan.pilot, where, least)
        lost = most_lost(certified(fixed, planned), certified(radius_of(p_lower), planned))
        yield Line(f"  certified accuracy lost, {where}", lost, "points", 1)


def at_every_radius(data: Dataset, x: Tensor) -> Iterator[Line]:
    """Yield, for several n, the factor and the certified accuracy it is expected to cost at any of many radii.

    The expectation is over draws, each input's p being its share of many votes: of two single runs, even of all draws
    both, one has less certified accuracy at some of so many radii by chance, which is the last line.
    """
    smoothed = smoothed_mlp(data, SIGMA)
    radius_of = l2_radii(smoothed, x)
    share = votes_of(smoothed, x, SHARE_DRAWS, seed=2) / SHARE_DRAWS
    pilot_votes = votes_of(smoothed, x, PILOT, seed=3)
    plan = TwoStage(PILOT, radius_of, LOSS)
    for draws, least in NUMBERS_OF_DRAWS:
        planned = plan.plan(pilot_votes, draws, ALPHA)
        where = f"every radius, sigma {SIGMA}"
        yield factor(planned, draws, PILOT, where, least)
        lost, by_chance = expected_loss(share, planned, draws, radius_of)
        yield Line(f"  certified accuracy expected to be lost, {where}", lost, "points", 1)
        yield Line("  certified accuracy by which two runs of all draws differ", by_chance, "points")


def votes_of(smoothed: SmoothedClassifier, x: Tensor, draws: int, seed: int) -> np.ndarray:
    """Return (N,) sensitive votes among ``draws``."""
    threshold = smoothed.threshold
    return count_votes(
        smoothed.model, x, smoothed.noise, smoothed.sigma, draws, seed=seed, threshold=threshold
    )


def expected_loss(
    share: np.ndarray, planned: np.ndarray, draws: int, radius_of: RadiusOf
) -> tuple[float, float]:
    """Return the points of certified accuracy expected to be lost by ``planned`` (N,) draws instead of ``draws``.

    share: (N,) probabilities of a sensitive vote. The value is the largest over the radii up to the largest; beside it
    stands the largest difference between two runs of all draws, on average.
    """
    rng = np.random.default_rng(0)
    every = np.full_like(planned, draws)
    largest = radius_of(lower_bound((share * draws).astype(int), draws, ALPHA)).max()
    grid = np.linspace(0, largest, RADII + 1)[1:]

    def one_run(counted: np.ndarray) -> np.ndarray:
        return certified(radius_of(lower_bound(rng.binomial(counted, share), counted, ALPHA)), grid)

    full, fewer = (np.stack([one_run(counted) for _ in range(REDRAWS)]) for counted in (every, planned))
    by_chance = np.mean([most_lost(one, other) for one, other in pairwise(full)])
    return most_lost(full.mean(axis=0), fewer.mean(axis=0)), float(by_chance)


def certified(radius: np.ndarray, grid: ArrayLike) -> np.ndarray:
    """Return the share of the inputs (N,) that are certified at each radius of the grid."""
    return (radius[:, None] >= np.asarray(grid)).mean(axis=0)


def most_lost(before: np.ndarray, after: np.ndarray) -> float:
    """Return by how many points the certified accuracies ``after`` fall short of those ``before``, at most."""
    return 100 * float((before - after).max())


def factor(planned: np.ndarray, draws: int, pilot: int, where: str, least: float | None) -> Line:
    """How many times fewer draws are planned than ``draws`` for each input, the pilot's included."""
    fewer = draws * len(planned) / (planned.sum() + pilot * len(planned))
    return Line(f"fixed n = {draws:,} / two-stage draws, {where}", fewer, "x", least, at_least=True)


def l2_radii(smoothed: SmoothedClassifier, x: Tensor) -> RadiusOf:
    """Return the function from lower bounds on p to l2 radii."""
    return partial(radii, smoothed.noise, smoothed.sigma, dim=x[0].numel(), norm="l2")


def smoothed_mlp(data: Dataset, sigma: float) -> SmoothedClassifier:
    """A smoothed MLP trained briefly with its noise, its threshold balanced on validation votes."""
    model = build_network("mlp", data.input_shape, (200,))
    x_train, y_train = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    noisy = NoisyLoss(partial(add_noise, noise="gaussian", sigma=sigma))
    train(model, noisy, (x_train, y_train), TrainSettings(epochs=6, batch_size=256), seed=0)
    x, y = torch.from_numpy(data.x_val[:400]), torch.from_numpy(data.y_val[:400])
    low, high = decision_scores(noisy_scores(model, x, "gaussian", sigma, 100, seed=1), DRAWS, ALPHA / 2)
    decisive = torch.where(y > 0, torch.from_numpy(low), torch.from_numpy(high))
    threshold = calibrated_threshold(decisive, y, OperatingPoint())
    return SmoothedClassifier(model, "gaussian", sigma, ALPHA, threshold)
