"""What determines the numbers of one cell besides its method and its data, and what it keeps while it is computed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.running.parts import Parts
from bench.seeds import derive_seed


@dataclass(frozen=True)
class CellPlan:
    """What an evaluation needs to know besides the method and the data."""

    dataset: str
    method_id: str
    seed: int
    suite_seed: int
    norms: tuple[str, ...]
    calibrate: str
    test_inputs: int

    def seed_for(self, *purpose: object) -> int:
        """Seed of one purpose; it depends on names only, never on what else is in the suite."""
        return derive_seed(self.suite_seed, self.dataset, self.method_id, self.seed, *purpose)


@dataclass(frozen=True)
class Scratch:
    """What an unfinished cell keeps on disk, so that a cut costs one epoch or one batch; it never changes a number.

    checkpoint: the state of training (None: not kept); parts: finished batches; progress: told in a few words what the
    cell is at.
    """

    checkpoint: Path | None = None
    parts: Parts = field(default_factory=Parts)
    progress: Callable[[str], None] | None = None
