"""Adversarial examples near the shown inputs: found by attack on request, kept in OUT/adversarial, read for the page.

Files have the form of ``bench.falsify``'s counterexamples, one for each curve and seed: index (N,) in the test split
and adversarial (N, *shape). They show how far the nearest misclassified point may be; no number depends on them.
"""

import io
import logging
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bench.attacking.attacks import ORDERS, AttackSettings, norm_exact
from bench.basics.errors import UsageError
from bench.basics.files import DamagedFileError, write_atomic
from bench.basics.seeds import derive_seed
from bench.contract import Method, Outcome
from bench.data.request import DataRequest, cached_dataset
from bench.kept.finished import load_method
from bench.kept.points import curve_file
from bench.kept.store import COUNTEREXAMPLES, Store

CURVE_AND_SEED = ["dataset", "method", "certificate", "domain", "norm", "operating_point", "seed"]
FOLDER = "adversarial"
SHOWN = 4
# Attacks start from the certified radius and double it until they succeed, then halve the way back.
DOUBLINGS, HALVINGS = 8, 12
SETTINGS = AttackSettings(steps=20, restarts=1)

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adversarials:
    """Known adversarial points of one curve and seed, by index; ``breaking`` are inside the certified radius."""

    points: Mapping[int, np.ndarray]
    breaking: frozenset[int]

    @classmethod
    def of(cls, out: Path, curve: Sequence[Any]) -> "Adversarials":
        """Read what attacks have left in the run's folder for a curve (in the order of CURVE_AND_SEED)."""
        near, inside = _read(out / FOLDER, curve), _read(out / COUNTEREXAMPLES, curve)
        return cls({**near, **inside}, frozenset(inside))

    def distance(self, index: int, image: np.ndarray, norm: str) -> float:
        """Return the norm of the perturbation that makes the point of ``image``."""
        delta = (self.points[index].astype(np.float64) - image).reshape(-1)
        return float(np.linalg.norm(delta, ord=ORDERS[norm]))


def extremes(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows with the smallest and with the largest radius (N, index) of the first seed; none is in both."""
    rows = rows[(rows["outcome"] == Outcome.CERTIFIED) & (rows["seed"] == rows["seed"].min())]
    rows = rows.sort_values(["radius", "index"], kind="stable")
    count = min(SHOWN, len(rows) // 2)
    if count == 0:
        return {"smallest": rows, "largest": rows.iloc[:0]}
    return {"smallest": rows.iloc[:count], "largest": rows.iloc[-count:][::-1]}


def find_adversarials(out: Path, run: Mapping[str, Any], radii: pd.DataFrame, data_dir: Path | None) -> None:
    """Attack the inputs that the report shows and write the nearest adversarial examples to OUT/adversarial.

    Curves whose trained network or data set is not there are skipped with a warning.
    """
    (out / FOLDER).mkdir(exist_ok=True)
    certified = radii[radii["outcome"] == Outcome.CERTIFIED]
    for key, rows in certified.groupby(CURVE_AND_SEED[:-1], sort=True):
        rows = pd.concat(extremes(rows).values())
        curve = [*key, int(rows["seed"].iloc[0])]
        try:
            request = DataRequest.of_run(run["configuration"], key[0], data_dir)
            data = cached_dataset(request)
            method = load_method(Store(out), data, key[0], key[1], curve[-1], key[5])
        except (UsageError, DamagedFileError) as error:
            LOG.warning("no adversarial examples for %s on %s: %s", key[1], key[0], error)
            continue
        index = rows["index"].to_numpy()
        x = torch.from_numpy(data.x_test[index])
        radius = torch.from_numpy(rows["radius"].to_numpy(dtype=float))
        points, found = nearest(method, x, radius, key[4], key[3], derive_seed("report", *curve))
        sink = io.BytesIO()
        np.savez(sink, index=index[found.numpy()], adversarial=points[found].numpy())
        write_atomic(out / FOLDER / _file_name(curve), sink.getvalue())


def nearest(
    method: Method, x: Tensor, radius: Tensor, norm: str, domain: str, seed: int
) -> tuple[Tensor, Tensor]:
    """Return (points (N, *shape), found (N,)): adversarial examples as near to x as a short search finds them.

    radius: (N,) certified radii, where the search starts; points of inputs with nothing found are x itself.
    """
    diameter = float(torch.linalg.vector_norm(torch.ones(x[0].numel()), ORDERS[norm]))
    size = radius.clamp(max=diameter)
    points, found = x.clone(), torch.zeros(len(x), dtype=torch.bool)
    shape = (-1,) + (1,) * (x.dim() - 1)
    for _ in range(DOUBLINGS):
        tried = norm_exact(method.score, x, size, norm, domain, SETTINGS, seed, method.mutable).points
        new = (method.predict(tried, seed) == 0) & ~found
        points, found = torch.where(new.view(shape), tried, points), found | new
        size = torch.where(found, size, (2 * size).clamp(max=diameter))
        if found.all():
            break
    near, far = torch.zeros(len(x)), torch.ones(len(x))
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        harmless = method.predict(x + middle.view(shape) * (points - x), seed) == 0
        near, far = torch.where(harmless, near, middle), torch.where(harmless, middle, far)
    return x + far.view(shape) * (points - x), found


def _file_name(curve: Sequence[Any]) -> str:
    return f"{curve_file(curve)}.npz"


def _read(folder: Path, curve: Sequence[Any]) -> dict[int, np.ndarray]:
    """Return {index: point} of a curve's file; empty where there is none, or it is not such a file."""
    try:
        with np.load(folder / _file_name(curve), allow_pickle=False) as arrays:
            return dict(zip(arrays["index"].tolist(), arrays["adversarial"], strict=True))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return {}  # UsageError, for names too long to have a file, is a ValueError
