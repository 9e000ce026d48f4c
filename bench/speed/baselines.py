"""Baselines: smoothing draws against the bare network, two-stage sampling, batched radius search, memory."""

import resource
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from baselines.bounds import BoundedScore, RadiusSearch
from baselines.networks import build_network
from baselines.smoothing import count_votes
from bench.data import Dataset, load_dataset
from bench.speed import two_stage
from bench.speed.timing import Line, interleaved, seconds
from fcnn.training import TrainSettings, cross_entropy, train

SIGMA = 0.75
BATCH = 256
# Networks, how many batches of draws are timed, and the least draws a second as a share of the bare forward pass.
SPEEDS = (("resnet18", 1, 0.95), ("convnet", 8, 0.65), ("mlp", 40, 0.4))
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
    yield from _search(data, x[:SEARCHED])
    yield from two_stage.measure(data, x)


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
