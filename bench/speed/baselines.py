"""Baselines: smoothing draws against the bare network, two-stage sampling, batched radius search, memory."""

import resource
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from baselines.bounds import BoundedScore, RadiusSearch
from baselines.networks import build_network
from baselines.smoothing import (
    NoisyLoss,
    SmoothedClassifier,
    TwoStage,
    TwoStageAtRadii,
    add_noise,
    balanced_threshold,
    count_votes,
    decision_scores,
    noisy_scores,
    radii,
)
from bench.data import Dataset, load_dataset
from bench.speed.timing import Line, interleaved, seconds
from fcnn.training import TrainSettings, cross_entropy, train

SIGMA = 0.75
ALPHA = 0.001
BATCH = 256
# Networks, how many batches of draws are timed, and the least draws a second as a share of the bare forward pass.
SPEEDS = (("resnet18", 1, 0.95), ("convnet", 8, 0.65), ("mlp", 40, 0.4))
FIXED_DRAWS = 100_000
PILOT = 2000
# Radii planned for, the price of full draws, and the least factor: the MNIST suite's named radii, then the paper's.
# Near 2.5 (p = 0.9996) a third of the inputs need most of their draws: no factor is promised there.
TWO_STAGE_PLANS = (((0.5, 1.0, 1.5), 0.03, 3), ((0.5, 1.0, 1.5, 2.0, 2.5), 0.05, None))
TWO_STAGE_INPUTS = 200
SEARCHED = 64
ONE_AT_A_TIME = 8
BUDGET = 256 * 2**20


def measure(data_dir: Path | None) -> Iterator[Line]:
    """Yield the timings, on MNIST 3-8."""
    data = load_dataset("mnist_38", data_dir)
    x = torch.from_numpy(data.x_test[data.y_test == 1])
    yield _memory(x[:1])  # first: what runs later needs more memory than this
    for name, batches, least in SPEEDS:
        yield _sampling(name, x[:1], batches, least)
    yield from _two_stage(data, x[:TWO_STAGE_INPUTS])
    yield from _search(data, x[:SEARCHED])


def _sampling(name: str, x: Tensor, batches: int, least: float) -> Line:
    """Draws per second, noise included, over the bare forward pass of the same network on the same number of inputs."""
    model = build_network(name, tuple(x.shape[1:]), (200,)).eval()
    batch = torch.rand(BATCH, *x.shape[1:])
    draws = BATCH * batches

    def bare() -> None:
        with torch.inference_mode():
            for _ in range(batches):
                (model(batch) > 0).sum()

    passed, sampled = interleaved(
        [bare, lambda: count_votes(model, x, "gaussian", SIGMA, draws, seed=0)], repeats=5
    )
    return Line(f"draws per second / bare forward pass, {name}", passed / sampled, "x", least, at_least=True)


def _memory(x: Tensor) -> Line:
    """How far counting votes raises this process's memory, against the budget it was given."""
    model = build_network("convnet", tuple(x.shape[1:])).eval()
    count_votes(model, x, "gaussian", SIGMA, 8, seed=0)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    count_votes(model, x, "gaussian", SIGMA, 200_000, seed=0, memory_budget=BUDGET)
    grown = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return Line(
        "growth of memory in a count / budget set", grown / (BUDGET * torch.get_num_threads()), "x", 1
    )


def _two_stage(data: Dataset, x: Tensor) -> Iterator[Line]:
    """Draws of two-stage sampling, and the certified accuracy it costs at the radii it is planned for."""
    smoothed = _smoothed_mlp(data)
    radius_of = partial(radii, "gaussian", SIGMA, dim=x[0].numel(), norm="l2")
    fixed, again = (radius_of(smoothed.p_lower(x, draws=FIXED_DRAWS, seed=seed)[0]) for seed in (2, 3))
    everywhere = tuple(np.linspace(0, fixed.max(), 101)[1:])
    plans = [
        (
            f"{len(planned)} radii to {planned[-1]}",
            TwoStageAtRadii(PILOT, radius_of, planned, price),
            planned,
            least,
        )
        for planned, price, least in TWO_STAGE_PLANS
    ]
    plans.append(("every radius", TwoStage(PILOT, radius_of, 0.02 * SIGMA), everywhere, 3))
    for where, plan, grid, least in plans:
        p_lower, draws = smoothed.p_lower(x, draws=FIXED_DRAWS, seed=2, two_stage=plan)
        fewer = FIXED_DRAWS * len(x) / (draws.sum() + PILOT * len(x))
        name = f"fixed n = {FIXED_DRAWS:,} / two-stage draws, {where}"
        yield Line(name, fewer, "x", least, at_least=True)
        lost = _points_lost(fixed, radius_of(p_lower), grid)
        yield Line(f"  certified accuracy lost, {where}", lost, "points", 1)
    lost = _points_lost(fixed, again, everywhere)
    yield Line("certified accuracy that another n draws lose, at any radius", lost, "points")


def _points_lost(before: np.ndarray, after: np.ndarray, grid: Sequence[float]) -> float:
    """The most certified accuracy, in points, by which ``after`` falls short of ``before`` at a radius of the grid."""
    inputs = len(before)
    return 100 * max(int((before >= radius).sum()) - int((after >= radius).sum()) for radius in grid) / inputs


def _smoothed_mlp(data: Dataset) -> SmoothedClassifier:
    """A smoothed MLP trained briefly with its noise, its threshold balanced on validation votes."""
    model = build_network("mlp", data.input_shape, (200,))
    x_train, y_train = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    noisy = NoisyLoss(partial(add_noise, noise="gaussian", sigma=SIGMA))
    train(model, noisy, (x_train, y_train), TrainSettings(epochs=6, batch_size=256), seed=0)
    x, y = torch.from_numpy(data.x_val[:400]), data.y_val[:400]
    low, high = decision_scores(
        noisy_scores(model, x, "gaussian", SIGMA, 100, seed=1), FIXED_DRAWS, ALPHA / 2
    )
    return SmoothedClassifier(model, "gaussian", SIGMA, ALPHA, balanced_threshold(low, high, y))


def _search(data: Dataset, x: Tensor) -> Iterator[Line]:
    """Search with one radius per input over a batch, against one input at a time."""
    model = build_network("mlp", data.input_shape, (200,))
    part = slice(0, 2000)
    pair = torch.from_numpy(data.x_train[part]), torch.from_numpy(data.y_train[part])
    train(model, cross_entropy, pair, TrainSettings(epochs=3), seed=0)
    batched = seconds(lambda: _crown(model, x), repeats=3) / len(x)
    single = seconds(lambda: [_crown(model, image[None]) for image in x[:ONE_AT_A_TIME]], repeats=1)
    yield Line("CROWN radius, batched, an image", 1000 * batched, "ms")
    yield Line("one image at a time / batched", single / ONE_AT_A_TIME / batched, "x", 1, at_least=True)


def _crown(model: nn.Module, x: Tensor) -> Tensor:
    return RadiusSearch(BoundedScore(model, tuple(x.shape[1:])), x, "l2").radii("crown").radius
