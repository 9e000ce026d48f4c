"""Votes of a network under noise, counted in batches that fit a memory budget.

Votes are taken in float32. The base classifier may be any function of the noisy input, so the network's own rounding is
no objection; that the noise itself is finite is one, see :mod:`baselines.smoothing.noise` for what is proved. What
follows from the counts (confidence bounds, radii) is computed in float64.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import starmap

import numpy as np
import torch
from torch import Tensor, nn

from baselines.smoothing.noise import noisy_network

# On CPUs a batch that stays in the cache is the fastest; on other devices large batches are.
CPU_MEMORY_BUDGET = 16 * 2**20
DEVICE_MEMORY_BUDGET = 2 * 2**30


def count_votes(
    model: nn.Module,
    x: Tensor,
    noise: str,
    sigma: float,
    draws: int | Sequence[int] | np.ndarray,
    *,
    seed: int,
    threshold: float | Sequence[float] = 0.0,
    memory_budget: int | None = None,
    mutable: Tensor | None = None,
) -> np.ndarray:
    """Return (N,) int64: how many of the noisy copies of each input x (N, *shape) score above ``threshold``.

    Of T thresholds (T, N), counted on the same copies.

    draws: number of noisy copies, one number for all inputs or one per input; every copy has noise of its own.
    seed: names the draws; the same seed, inputs and budget give the same counts, on any number of threads.
    memory_budget: bytes that a batch of noisy copies and the network's work on it may take, per thread.
    mutable: (*shape) bool, the only coordinates that get noise; None: all.
    Raises ValueError for a network in training mode, negative draws, or an unknown noise.
    """
    draws = np.broadcast_to(np.asarray(draws, dtype=np.int64), (len(x),))
    sampler = _Sampler(model, x, noise, sigma, seed, memory_budget, mutable)
    limits = torch.as_tensor(threshold, dtype=torch.float64, device=x.device).reshape(-1, 1)
    votes = np.zeros((len(limits), len(x)), dtype=np.int64)
    for index, counted in sampler.run(draws, lambda scores: (scores > limits).sum(dim=1)):
        votes[:, index] += counted.cpu().numpy()
    return votes[0] if np.ndim(threshold) == 0 else votes


def noisy_scores(
    model: nn.Module,
    x: Tensor,
    noise: str,
    sigma: float,
    draws: int,
    *,
    seed: int,
    memory_budget: int | None = None,
    mutable: Tensor | None = None,
) -> Tensor:
    """Return (N, draws) scores of noisy copies of x (N, *shape), drawn as in :func:`count_votes`."""
    sampler = _Sampler(model, x, noise, sigma, seed, memory_budget, mutable)
    parts: list[list[Tensor]] = [[] for _ in range(len(x))]
    for index, scores in sampler.run(np.full(len(x), draws), torch.clone):
        parts[index].append(scores)
    return torch.stack([torch.cat(part) for part in parts])


class _Sampler:
    """Runs a network on noisy copies of inputs, batch by batch, each batch with a seeded generator of its own."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        noise: str,
        sigma: float,
        seed: int,
        memory_budget: int | None,
        mutable: Tensor | None,
    ) -> None:
        if any(module.training for module in model.modules()):
            raise ValueError(
                "the network is in training mode, where its votes depend on the batch: call eval()"
            )
        on_cpu = x.device.type == "cpu"
        self.x, self.seed = x, seed
        with torch.no_grad():
            self.network = noisy_network(model, tuple(x.shape[1:]), noise, sigma, mutable)
            budget = memory_budget or (CPU_MEMORY_BUDGET if on_cpu else DEVICE_MEMORY_BUDGET)
            self.batch = max(1, budget // _bytes_per_draw(model, x[:1])) if len(x) else 1
        self.threads = torch.get_num_threads() if on_cpu else 1
        self.buffers = threading.local()

    def run(self, draws: np.ndarray, reduce: Callable[[Tensor], Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Yield (input index, reduced scores) for every batch of draws, in a fixed order."""
        if (draws < 0).any():
            raise ValueError(f"draws = {draws.min()}: give numbers of at least 0")
        jobs = [
            (index, part, min(self.batch, count - part * self.batch))
            for index, count in enumerate(draws.tolist())
            for part in range(-(-count // self.batch))
        ]

        def work(index: int, part: int, count: int) -> Tensor:
            return reduce(self._scores(index, part, count))

        indices = [index for index, _, _ in jobs]
        if self.threads == 1 or len(jobs) < 2:
            yield from zip(indices, starmap(work, jobs), strict=True)
            return
        # One thread per core, each making its own noise: the noise would else be made by one core while others wait.
        with _single_threaded_operators(), ThreadPoolExecutor(self.threads) as pool:
            yield from zip(indices, pool.map(work, *zip(*jobs, strict=True)), strict=True)

    def _scores(self, index: int, part: int, count: int) -> Tensor:
        """Return (count,) scores of one batch of draws for one input."""
        sequence = np.random.SeedSequence(self.seed, spawn_key=(index, part))
        generator = torch.Generator(self.x.device).manual_seed(
            int(sequence.generate_state(1, np.uint64)[0] >> 1)
        )
        with torch.inference_mode():
            return self.network.scores(self.x[index : index + 1], self._buffer(count), generator)

    def _buffer(self, count: int) -> Tensor:
        """Return (count, *draw_shape) memory to be overwritten; each thread reuses its own."""
        if not hasattr(self.buffers, "drawn"):
            self.buffers.drawn = self.x.new_empty(self.batch, *self.network.draw_shape)
        return self.buffers.drawn[:count]


def _bytes_per_draw(model: nn.Module, x: Tensor) -> int:
    """Return the bytes that one noisy copy takes on its way through the network: its input and all layers' outputs."""
    sizes = [2 * x.nbytes]
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output: sizes.append(output.nbytes))
        for layer in model.modules()
        if not list(layer.children())
    ]
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(sizes)


@contextmanager
def _single_threaded_operators() -> Iterator[None]:
    """Let threads started inside run each operator on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
