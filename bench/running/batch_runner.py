"""Runs a computation batch by batch: finished batches come from disk, one that does not fit into memory is halved."""

import gc
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.kept.batches import joined_arrays
from bench.running.parts import Parts

LOG = logging.getLogger(__name__)
SMALLEST_BATCH = 1
SECONDS = "seconds"

Arrays = Mapping[str, np.ndarray]
Compute = Callable[[int, Tensor], Arrays]


class Clock:
    """Measures the time spent inside, in ``seconds``, the device's queue drained at both ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0

    def __enter__(self) -> "Clock":
        self._drain()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self._drain()
        self.seconds += time.perf_counter() - self._started

    def _drain(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class BatchRunner:
    """How the inputs of a cell are fed to its method."""

    device: torch.device
    batch_size: int
    parts: Parts
    progress: Callable[[str], None] | None = None

    def run(self, purpose: str, inputs: np.ndarray, compute: Compute) -> tuple[dict[str, np.ndarray], float]:
        """Return the joined arrays of all batches of ``inputs`` (N, *shape), and the seconds that they took.

        compute(start, batch) returns arrays for the inputs from position ``start``; the position also names the
        random numbers of a batch. Finished batches are kept under ``purpose``, their seconds with them.
        """
        done = []
        for start in range(0, len(inputs), self.batch_size):
            name = f"{purpose}-{start}"
            if self.progress is not None:
                self.progress(f"{purpose}, input {start + 1} of {len(inputs)}")
            arrays = self.parts.load(name)
            if arrays is None:
                batch = torch.from_numpy(inputs[start : start + self.batch_size]).to(self.device)
                with Clock(self.device) as clock:
                    arrays = joined_arrays(in_halves(compute, start, batch))
                arrays[SECONDS] = np.array([clock.seconds])
                self.parts.save(name, arrays)
            done.append(arrays)
        joined = joined_arrays(done)
        return joined, float(joined.pop(SECONDS).sum())


def in_halves(compute: Compute, start: int, batch: Tensor) -> list[Arrays]:
    """Return what ``compute`` makes of a batch, in as few pieces as fit into memory; raise if one input does not."""
    try:
        return [compute(start, batch)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(batch) <= SMALLEST_BATCH:
            raise
    # Only here is the traceback gone, and with it the tensors of its frames.
    gc.collect()
    if batch.device.type == "cuda":
        torch.cuda.empty_cache()
    half = (len(batch) + 1) // 2
    LOG.warning("a batch of %d inputs does not fit into memory: trying %d at a time", len(batch), half)
    return in_halves(compute, start, batch[:half]) + in_halves(compute, start + half, batch[half:])


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception means that memory, of the device or of the machine, was too small."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
