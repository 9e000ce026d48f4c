"""What cells took in earlier runs, and what that says about cells still to come."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.basics.files import DamagedFileError, unseal
from bench.kept.store import RUN, CellFolder
from bench.running.cells import CellJob

# Published runs lie beside the code; an installed copy has none.
PUBLISHED = Path(__file__).parents[2] / "results"


def costs_of(cells: Iterable[CellFolder]) -> list[dict[str, Any]]:
    """Return what finished cells took, for run.json: dataset, method, seed, seconds of work."""
    found = []
    for cell in cells:
        seconds = cell.record()["meta"].get("seconds", {})
        found.append(
            {
                "dataset": cell.dataset,
                "method": cell.method,
                "seed": cell.seed,
                "seconds": round(sum(seconds.values()), 2),
            }
        )
    return found


@dataclass
class Costs:
    """Seconds of work that cells took, by data set and method id."""

    seconds: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    @classmethod
    def of_runs(cls, folders: Iterable[Path]) -> "Costs":
        """Read the run.json of finished runs; what is no run, or from before costs were kept, counts for nothing."""
        costs = cls()
        for folder in folders:
            try:
                record = unseal((folder / RUN).read_bytes())
            except (OSError, DamagedFileError):
                continue
            for cell in record.get("costs", []):
                costs.add(cell["dataset"], cell["method"], cell["seconds"])
        return costs

    @classmethod
    def at_hand(cls, out: Path) -> "Costs":
        """What is known from a run's own folder, the runs beside it and the published ones."""
        parents = [folder for folder in (out.parent, PUBLISHED) if folder.is_dir()]
        return cls.of_runs(sorted({path.parent for parent in parents for path in parent.glob(f"*/{RUN}")}))

    def add(self, dataset: str, method: str, seconds: float) -> None:
        """Take note of one more cell."""
        self.seconds.setdefault((dataset, method), []).append(seconds)

    def of(self, job: CellJob) -> float | None:
        """Return the seconds that a cell like this one took, in the median; None where there was none."""
        known = self.seconds.get((job.folder.dataset, job.folder.method))
        return statistics.median(known) if known else None

    def typical(self, dataset: str) -> float | None:
        """Return the mean over the methods on a data set, over all that is known where that is nothing."""
        means = {key: statistics.fmean(seconds) for key, seconds in self.seconds.items()}
        near = [mean for key, mean in means.items() if key[0] == dataset] or list(means.values())
        return statistics.fmean(near) if near else None


def seconds_left(
    jobs: Sequence[CellJob], costs: Costs, at_a_time: int, spent: Mapping[str, float] | None = None
) -> tuple[float, int]:
    """Return (seconds that these cells will take, number of cells of which none was timed before).

    spent: seconds that running cells have had already, by key. A cell that nothing is known about counts as a
    typical one of its data set.
    """
    left, unknown = [], 0
    for job in jobs:
        whole = costs.of(job)
        if whole is None:
            unknown += 1
            whole = costs.typical(job.folder.dataset) or 0.0
        left.append(max(0.0, whole - (spent or {}).get(job.key, 0.0)))
    return max([*left, sum(left) / max(1, at_a_time)], default=0.0), unknown


def in_words(seconds: float) -> str:
    """Return a duration as people say it: 40 s, 5 min, 2 h 10 min."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
