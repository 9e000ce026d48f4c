"""Small data sets and methods that tests of the harness share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bench.calibration import Calibration, OperatingPoint
from bench.contract import Curve, FitContext, Method, Radii, TrainingData
from bench.data import Dataset
from bench.running.plan import CellPlan


def blobs(dimension: int = 4, count: int = 120, name: str = "blobs", shift: float = 0.4) -> Dataset:
    """Two well separated clouds in [0, 1]^d, a third of them sensitive."""
    rng = np.random.default_rng(5)

    def split(size: int) -> tuple[np.ndarray, np.ndarray]:
        y = (np.arange(size) % 3 == 0).astype(np.int64)
        x = 0.3 + shift * y[:, None] + 0.08 * rng.standard_normal((size, dimension))
        return np.clip(x, 0, 1).astype(np.float32), y

    arrays = {}
    for part, size in (("train", count), ("val", count // 3), ("test", count // 3)):
        arrays[f"x_{part}"], arrays[f"y_{part}"] = split(size)
    return Dataset(
        name=name,
        title="Blobs",
        classes=("high", "low"),
        source="synthetic",
        sha256=f"{name}-{count}",
        **arrays,
    )


def plan(method_id: str = "method", **changes: object) -> CellPlan:
    """A cell plan with plain defaults."""
    settings = {
        "dataset": "blobs",
        "method_id": method_id,
        "seed": 0,
        "suite_seed": 0,
        "norms": ("l1", "l2", "linf"),
        "calibrate": "validation",
        "test_inputs": 0,
    }
    return CellPlan(**{**settings, **changes})


@dataclass(frozen=True)
class MeanSettings:
    """Settings of the example method below."""

    level: float = 0.5
    scale: float = 1.0


class MeanThreshold(Method):
    """Sensitive iff the mean of x exceeds a level: the exact radius is known in every norm."""

    name = "mean_threshold"
    title = "Mean threshold"
    reference = "tests"
    Settings = MeanSettings

    def curves(self) -> Sequence[Curve]:
        return [Curve("exact")]

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        return nn.Identity()

    def fit(self, data: TrainingData, context: FitContext) -> None:
        pass

    def calibrations(
        self, x: Tensor, y: Tensor, seed: int, points: Sequence[OperatingPoint]
    ) -> list[Calibration]:
        return [Calibration(str(point), None, int((y == 0).sum())) for point in points]

    def score(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(dim=1) - self.settings.level

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        margin = self.score(x).double() * self.settings.scale
        size = x[0].numel()
        factor = {"l1": size, "l2": size**0.5, "linf": 1.0}
        return {norm: Radii.from_radius(margin * factor[norm]) for norm in norms}


def tensor(*values: float) -> Tensor:
    """A float64 tensor of one dimension."""
    return torch.tensor(values, dtype=torch.float64)
