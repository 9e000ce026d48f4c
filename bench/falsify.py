"""python -m bench.falsify OUT: attack every certificate of a finished run inside its radius.

A deterministic certificate with one counterexample is wrong: the example is saved and the exit code is 1. A
probabilistic one may fail with probability alpha per input: the number of failures is compared with what alpha
allows. Exit codes: 0 nothing found; 1 certificates broken; 2 bad usage.
"""

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from bench.attacks import ORDERS, AttackSettings, library_attacks, norm_exact
from bench.cells import DataRequest, cached_dataset
from bench.contract import Method, Outcome
from bench.data import Dataset
from bench.errors import Parser, UsageError
from bench.files import safe_name, write_atomic
from bench.registry import get_method
from bench.seeds import derive_seed
from bench.settings import from_table
from bench.store import Store

CURVE = ["dataset", "method", "certificate", "domain", "norm", "seed"]
REPORT = "falsify.csv"
COUNTEREXAMPLES = "counterexamples"
# More failures than this are unlikely (one run in a thousand) when every certificate holds with 1 - alpha.
SURPRISE = 0.001


@dataclass(frozen=True)
class Target:
    """The certificates of one curve and seed: the method as trained, its inputs and their radii."""

    method: Method
    x: Tensor
    radius: Tensor
    norm: str
    domain: str
    seed: int

    def failures(self, points: Tensor) -> Tensor:
        """Which points (N, *shape) are, inside the ball, not called sensitive by the method itself: bool (N,)."""
        size = torch.linalg.vector_norm(
            (points.double() - self.x.double()).flatten(1), ord=ORDERS[self.norm], dim=1
        )
        return (self.method.predict(points, derive_seed(self.seed, "judge")) == 0) & (size <= self.radius)

    def attack(self, settings: AttackSettings) -> Tensor:
        """Return the points (N, *shape) that came closest to breaking each certificate."""
        best = norm_exact(
            self.method.score, self.x, self.radius, self.norm, self.domain, settings, self.seed
        ).points
        if self.norm in ("l2", "linf") and self.x.dim() == 4 and torch.isfinite(self.radius).all():
            other = library_attacks(self.method.score, self.x, self.radius, self.norm, self.seed).points
            failed = self.failures(other)
            best = torch.where(failed.view(-1, 1, 1, 1), other, best)
        return best


def falsify(out: Path, data_dir: Path | None, limit: int, settings: AttackSettings) -> pd.DataFrame:
    """Attack up to ``limit`` certificates of each curve (0: all); return and write one row per curve.

    Columns: the curve, guarantee, attacked, broken, allowed (how many failures the guarantee allows).
    """
    store = Store(out)
    run, radii, _ = store.read_run()
    sensitive = run["configuration"]["sensitive"]
    table = []
    certified = radii[radii["outcome"] == Outcome.CERTIFIED]
    for key, rows in tqdm(certified.groupby(CURVE, sort=True), desc="attacking", disable=None):
        curve = dict(zip(CURVE, key, strict=True))
        rows = _chosen(rows, limit, curve)
        data = cached_dataset(DataRequest(curve["dataset"], data_dir, sensitive))
        target = _target(store, data, rows, curve)
        points = target.attack(settings)
        failed = target.failures(points).numpy()
        if failed.any():
            _save(out, curve, rows[failed], points[torch.from_numpy(failed)])
        alpha = rows["alpha"].iloc[0]
        allowed = 0 if pd.isna(alpha) else int(stats.binom.isf(SURPRISE, len(rows), float(alpha)))
        guarantee = rows["guarantee"].iloc[0]
        table.append(
            {
                **curve,
                "guarantee": guarantee,
                "attacked": len(rows),
                "broken": failed.sum(),
                "allowed": allowed,
            }
        )
    frame = pd.DataFrame(table)
    store.write_table(REPORT, frame)
    return frame


def _chosen(rows: pd.DataFrame, limit: int, curve: dict) -> pd.DataFrame:
    if not 0 < limit < len(rows):
        return rows
    rng = np.random.default_rng(derive_seed("falsify", *curve.values()))
    return rows.iloc[np.sort(rng.choice(len(rows), limit, replace=False))]


def _target(store: Store, data: Dataset, rows: pd.DataFrame, curve: dict) -> Target:
    method = load_method(store, data, curve["dataset"], curve["method"], curve["seed"])
    x = torch.from_numpy(data.x_test[rows["index"].to_numpy()])
    radius = torch.from_numpy(rows["radius"].to_numpy(dtype=float))
    seed = derive_seed("falsify", *curve.values())
    return Target(method, x, radius, curve["norm"], curve["domain"], seed)


def load_method(store: Store, data: Dataset, dataset: str, method_id: str, seed: int) -> Method:
    """Rebuild a trained method from a finished cell, settings and weights alike; nothing in it is executed."""
    cell = store.cell(dataset, method_id, seed)
    meta = cell.record()["meta"]
    kind = get_method(meta["method"])
    method = kind(from_table(kind.Settings, meta["settings"], f"settings stored in {cell.path.name}"))
    method.build(data.input_shape, seed=0)
    method.load_state(cell.read_state() or {})
    method.model.eval()
    return method


def _save(out: Path, curve: dict, rows: pd.DataFrame, points: Tensor) -> None:
    """Write counterexamples as .npz: index in the test split, radius, adversarial input."""
    folder = out / COUNTEREXAMPLES
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    radius = rows["radius"].to_numpy(dtype=float)
    np.savez(buffer, index=rows["index"].to_numpy(), radius=radius, adversarial=points.numpy())
    name = safe_name("_".join(str(value) for value in curve.values()))
    write_atomic(folder / f"{name}.npz", buffer.getvalue())


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, attack, print the table and return the exit code."""
    top = Parser(prog="python -m bench.falsify", description=__doc__.split("\n\n")[0].partition(": ")[2])
    top.add_argument("out", type=Path, metavar="OUT", help="output folder of a finished run")
    top.add_argument("--data-dir", type=Path, metavar="DIR", help="where the run's data sets are")
    top.add_argument(
        "--limit", type=int, default=100, metavar="N", help="inputs per curve, 0 for all (default: 100)"
    )
    top.add_argument("--steps", type=int, default=40, metavar="N", help="steps of each attack (default: 40)")
    top.add_argument("--restarts", type=int, default=3, metavar="N", help="starting points (default: 3)")
    try:
        options = top.parse_args(arguments)
        settings = AttackSettings(options.steps, options.restarts)
        frame = falsify(options.out, options.data_dir, options.limit, settings)
    except UsageError as error:
        print(f"bench.falsify: {error}", file=sys.stderr)
        return 2
    bad = frame[frame["broken"] > frame["allowed"]]
    print(f"{frame['attacked'].sum()} certificates attacked, {frame['broken'].sum()} broken.")
    if len(bad):
        print(bad.to_string(index=False))
        print(f"Counterexamples are in {options.out / COUNTEREXAMPLES}.")
    return 1 if len(bad) else 0


if __name__ == "__main__":
    sys.exit(main())
