"""What determines the numbers of one cell besides its method and its data, and what it keeps while it is computed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.basics.seeds import derive_seed
from bench.calibration import BALANCED, GIVEN
from bench.running.parts import Parts


@dataclass(frozen=True)
class CellPlan:
    """What an evaluation needs to know besides the method and the data.

    calibrate: the split that thresholds are chosen on; points: the operating points they are chosen for.
    """

    dataset: str
    method_id: str
    seed: int
    suite_seed: int
    norms: tuple[str, ...]
    calibrate: str
    test_inputs: int
    points: tuple[str, ...] = (BALANCED,)

    @property
    def operating_points(self) -> tuple[str, ...]:
        """The operating points that the rows are of: one, the network's own, where no threshold is chosen."""
        return (GIVEN,) if self.calibrate == "none" else self.points

    def seed_for(self, *purpose: object) -> int:
        """Seed of one purpose; it depends on names only, never on what else is in the suite.

        It is the same for every method (common random numbers): what two methods share, such as a Lipschitz network
        and a convex head on its layers, starts from the same weights and sees the same batches in both.
        """
        return derive_seed(self.suite_seed, self.dataset, self.seed, *purpose)


@dataclass(frozen=True)
class Scratch:
    """What an unfinished cell keeps on disk, so that a cut costs one epoch or one batch; it never changes a number.

    checkpoint: the state of training (None: not kept); parts: finished batches; progress: told in a few words what the
    cell is at.
    """

    checkpoint: Path | None = None
    parts: Parts = field(default_factory=Parts)
    progress: Callable[[str], None] | None = None
