"""What the falsifier attacks: the certificates of one curve of a finished run, with the method rebuilt as trained."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bench.attacking.attacks import ORDERS, AttackSettings, norm_exact
from bench.attacking.library_attacks import library_attacks
from bench.basics.seeds import derive_seed
from bench.contract import Method
from bench.data import Dataset
from bench.data.request import DataRequest, cached_dataset
from bench.kept.finished import load_method
from bench.kept.store import Store


@dataclass(frozen=True)
class Target:
    """Inputs x (N, *shape) of a trained method with a radius (N,) for each, in one norm and domain."""

    method: Method
    x: Tensor
    radius: Tensor
    norm: str
    domain: str
    seed: int
    mutable: Tensor | None = None

    def distances(self, points: Tensor) -> Tensor:
        """Return how far points (N, *shape) are from their inputs: (N,) float64."""
        moved = (points.double() - self.x.double()).flatten(1)
        return torch.linalg.vector_norm(moved, ord=ORDERS[self.norm], dim=1)

    def not_sensitive(self, points: Tensor) -> Tensor:
        """Say which points (N, *shape) the method calls not sensitive: bool (N,); an abstention is no failure."""
        return (self.method.predict(points, derive_seed(self.seed, "judge")) == 0).cpu()

    def failures(self, points: Tensor) -> Tensor:
        """Say which points (N, *shape) are allowed, lie in the ball and are called not sensitive: bool (N,)."""
        return self.not_sensitive(points) & (self.distances(points) <= self.radius) & self.allowed(points)

    def allowed(self, points: Tensor) -> Tensor:
        """Say which points (N, *shape) differ from their inputs in mutable features only: bool (N,)."""
        if self.mutable is None:
            return torch.ones(len(points), dtype=torch.bool)
        return (points == self.x)[:, ~self.mutable].all(dim=1).cpu()

    def only_rounding(self, points: Tensor) -> Tensor:
        """Say which points (N, *shape) a deterministic method calls sensitive when it computes in float64: bool (N,).

        A certificate is one of the network in float64; at the very edge of a tight one, float32 alone can err.
        """
        if self.method.guarantee != "deterministic" or not len(points):
            return torch.zeros(len(points), dtype=torch.bool)
        exact = copy.deepcopy(self.method)
        exact.model = exact.model.double()
        with torch.no_grad():
            return (exact.score(points.double()) > 0).cpu()

    def attack(self, settings: AttackSettings, library: int) -> tuple[Tensor, int]:
        """Return the points (N, *shape) that came closest to breaking each certificate, and how many were tried.

        Every input is attacked by norm-exact descent from ``settings.restarts`` starts, and the first ``library``
        images by torchattacks, where it applies (l2 and linf, finite radii). A point tried is where one attack ended
        from one start.
        """
        best = norm_exact(
            self.method.score, self.x, self.radius, self.norm, self.domain, settings, self.seed, self.mutable
        ).points
        tried = settings.restarts * len(self.x)
        chosen = torch.nonzero(torch.isfinite(self.radius)).flatten()[:library]
        if self.norm == "l1" or self.x.dim() != 4 or not len(chosen):
            return best, tried
        some = Target(self.method, self.x[chosen], self.radius[chosen], self.norm, self.domain, self.seed)
        for points in library_attacks(self.method.score, some.x, some.radius, self.norm, self.seed):
            broken = some.failures(points)
            best[chosen[broken]] = points[broken]
            tried += len(chosen)
        return best, tried


@dataclass(frozen=True)
class FinishedRun:
    """A finished run whose methods can be rebuilt; configuration: of its run.json.

    Raises UsageError where data or trained weights are missing.
    """

    store: Store
    configuration: Mapping[str, Any]
    data_dir: Path | None

    def data(self, dataset: str) -> Dataset:
        """Return a data set of the run."""
        return cached_dataset(DataRequest.of_run(self.configuration, dataset, self.data_dir))

    def target(self, rows: pd.DataFrame, curve: Mapping[str, Any]) -> Target:
        """Return the certificates in ``rows``, all of one curve and seed; rows without a radius have radius 0."""
        data = self.data(curve["dataset"])
        names = [curve[name] for name in ("dataset", "method", "seed", "operating_point")]
        method = load_method(self.store, data, *names)
        x = torch.from_numpy(data.x_test[rows["index"].to_numpy()])
        radius = torch.from_numpy(rows["radius"].fillna(0.0).to_numpy(dtype=float))
        seed = derive_seed("falsify", *curve.values())
        return Target(method, x, radius, curve["norm"], curve["domain"], seed, method.mutable)


def sample(rows: pd.DataFrame, limit: int, *names: object) -> pd.DataFrame:
    """Return ``limit`` of the rows (0: all), always the same ones for the same names."""
    if not 0 < limit < len(rows):
        return rows
    rng = np.random.default_rng(derive_seed("falsify", *names))
    return rows.iloc[np.sort(rng.choice(len(rows), limit, replace=False))]
