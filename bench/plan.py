"""What determines the numbers of one cell, besides its method and its data."""

from dataclasses import dataclass
from pathlib import Path

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
    checkpoint: Path | None = None
    progress: bool = False

    def seed_for(self, *purpose: object) -> int:
        """Seed of one purpose; it depends on names only, never on what else is in the suite."""
        return derive_seed(self.suite_seed, self.dataset, self.method_id, self.seed, *purpose)
