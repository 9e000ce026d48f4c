"""Attack every certificate of a finished run inside its radius, and hold every row against itself."""

import argparse
import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from bench.attacking.attacks import AttackSettings
from bench.attacking.targets import FinishedRun, sample
from bench.basics.commands import DONE, FAILED
from bench.basics.files import write_atomic
from bench.contract import Outcome
from bench.kept.points import curve_file
from bench.kept.store import BRACKET, COUNTEREXAMPLES, FIGURES, Store

CURVE = ["dataset", "method", "certificate", "domain", "norm", "operating_point", "seed"]
REPORT = "falsify.csv"
ROWS = "attacks.parquet"
# More failures than this are unlikely (one run in a thousand) when every certificate holds with 1 - alpha.
SURPRISE = 0.001


@dataclass(frozen=True)
class Effort:
    """How much to attack.

    attack: steps and starts of each attack; limit: certificates of each curve (0: all); points: attacked points that
    deterministic certificates get at least, by more starts; library: images of each curve that torchattacks attacks
    too; bracket: inputs of each method for the bracket (0: no bracket).
    """

    attack: AttackSettings = field(default_factory=AttackSettings)
    limit: int = 100
    points: int = 0
    library: int = 20
    bracket: int = 100


def falsify(out: Path, data_dir: Path | None, effort: Effort) -> pd.DataFrame:
    """Attack the certificates of a finished run; write and return one row for each curve and seed.

    Columns: the curve, guarantee, attacked (certificates), points (attacked points), broken, rounding (points inside a
    deterministic certificate that float32 calls not sensitive, and float64 sensitive: not counted as broken), allowed
    (how many broken ones the guarantee allows), above_upper (certificates, of all rows, above their own radius_upper).
    A curve on which nothing is certified has its row, too.
    """
    store = Store(out)
    record, radii, _ = store.read_run()
    run = FinishedRun(store, record["configuration"], data_dir)
    radii = radii.assign(above_upper=above_upper(radii))
    curves = [(dict(zip(CURVE, key, strict=True)), rows) for key, rows in radii.groupby(CURVE, sort=True)]
    chosen = [
        (curve, sample(rows[rows["outcome"] == Outcome.CERTIFIED], effort.limit, *curve.values()))
        for curve, rows in curves
    ]
    deterministic = sum(len(rows) for _, rows in chosen if rows["alpha"].isna().all())
    more = -(-effort.points // max(1, deterministic))
    table, attacked = [], []
    for (curve, rows), (_, every) in zip(tqdm(chosen, desc="attacking", disable=None), curves, strict=True):
        found = {"guarantee": every["guarantee"].iloc[0], "above_upper": int(every["above_upper"].sum())}
        if not len(rows):
            table.append(
                {
                    **curve,
                    **found,
                    **dict.fromkeys(("attacked", "points", "broken", "rounding", "allowed"), 0),
                }
            )
            continue
        starts = max(effort.attack.restarts, more) if rows["alpha"].isna().all() else effort.attack.restarts
        summary, broken = _attack_curve(
            run, curve, rows, replace(effort, attack=replace(effort.attack, restarts=starts))
        )
        table.append({**summary, **found})
        attacked.append(rows[[*CURVE, "index", "radius"]].assign(broken=broken))
    frame = pd.DataFrame(
        table,
        columns=[*CURVE, "guarantee", "attacked", "points", "broken", "rounding", "allowed", "above_upper"],
    )
    store.write_table(REPORT, frame)
    if attacked:
        buffer = io.BytesIO()
        pd.concat(attacked, ignore_index=True).to_parquet(buffer, index=False)
        write_atomic(out / ROWS, buffer.getvalue())
    if effort.bracket:
        from bench.attacking.bracket import bracket_rows
        from bench.report.figures.bracket_figure import draw_brackets

        rows = bracket_rows(run, radii, effort.bracket, replace(effort.attack, restarts=1))
        store.write_table(BRACKET, rows)
        draw_brackets(record, rows, out / FIGURES)
    return frame


def above_upper(radii: pd.DataFrame) -> pd.Series:
    """Say which rows certify a radius above the norm of an adversarial perturbation that they know themselves."""
    return (radii["radius"] > radii["radius_upper"]).fillna(False).astype(bool)


def _attack_curve(
    run: FinishedRun, curve: dict[str, Any], rows: pd.DataFrame, effort: Effort
) -> tuple[dict[str, Any], np.ndarray]:
    """Return the report's row of one curve, and which of its certificates were broken."""
    target = run.target(rows, curve)
    points, tried = target.attack(effort.attack, effort.library)
    failed = target.failures(points)
    rounding = torch.zeros_like(failed)
    rounding[failed] = target.only_rounding(points[failed])
    broken = (failed & ~rounding).numpy()
    if broken.any():
        _save(run.store.out, curve, rows[broken], points[torch.from_numpy(broken)])
    alpha = rows["alpha"].iloc[0]
    summary = {
        **curve,
        "attacked": len(rows),
        "points": tried,
        "broken": int(broken.sum()),
        "rounding": int(rounding.sum()),
        "allowed": 0 if pd.isna(alpha) else int(stats.binom.isf(SURPRISE, len(rows), float(alpha))),
    }
    return summary, broken


def _save(out: Path, curve: dict[str, Any], rows: pd.DataFrame, points: Tensor) -> None:
    """Write counterexamples as .npz: index in the test split, radius, adversarial input."""
    folder = out / COUNTEREXAMPLES
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    radius = rows["radius"].to_numpy(dtype=float)
    np.savez(buffer, index=rows["index"].to_numpy(), radius=radius, adversarial=points.cpu().numpy())
    write_atomic(folder / f"{curve_file(curve.values())}.npz", buffer.getvalue())


def run(options: argparse.Namespace) -> int:
    """Attack, print the table and return 1 if a certificate broke."""
    attack = AttackSettings(options.steps, options.restarts)
    effort = Effort(attack, options.limit, options.points, options.library, options.bracket)
    frame = falsify(options.out, options.data_dir, effort)
    for guarantee, rows in frame.groupby("guarantee"):
        print(
            f"{guarantee}: {rows['attacked'].sum():,} certificates attacked at {rows['points'].sum():,} points, "
            f"{rows['broken'].sum()} broken, {rows['rounding'].sum()} misread by float32 alone."
        )
    broken, above = frame["broken"] > frame["allowed"], frame["above_upper"] > 0
    if broken.any():
        print(frame[broken].to_string(index=False))
        print(f"Counterexamples are in {options.out / COUNTEREXAMPLES}.")
    for _, row in frame[above].iterrows():
        curve = ", ".join(f"{name} {row[name]}" for name in CURVE)
        print(f"{row['above_upper']} radii lie above their own radius_upper, a false certificate: {curve}.")
    return FAILED if (broken | above).any() else DONE
