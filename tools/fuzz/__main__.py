"""Hold certificates of random nasty networks against exact answers and adversarial points, for so many minutes.

    python -m tools.fuzz --minutes 30 --out out/fuzz

Writes fuzz.csv (a row for each method, certificate, norm and domain), run.json and, where a radius lies above the
truth, violations.json with the recipes. Exit codes: 0 nothing above the truth; 1 something was, or was withdrawn.
"""

import argparse
import json
import time
import warnings
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bench.running.provenance import RunClock, code_commit, hardware, versions
from tools.fuzz.case import Case, Key
from tools.fuzz.convex import FEATURE_MAPS
from tools.fuzz.families import SHARES, build
from tools.fuzz.holding import Held, hold
from tools.fuzz.recipes import draw

WRITE_SECONDS = 20


class Ledger:
    """What has been held so far."""

    def __init__(self) -> None:
        self.counts: dict[Key, Counter] = {}
        self.worst: dict[Key, float] = {}
        self.found: list[dict] = []
        self.cases: Counter = Counter()
        self.held: Counter = Counter()
        self.clock = RunClock()

    def add(self, case: Case, held: dict[Key, Held]) -> None:
        """Count a case."""
        self.cases[case.recipe.family] += 1
        for key, one in held.items():
            self.held[case.recipe.family] += one.points
            counts = self.counts.setdefault(key, Counter())
            counts.update(
                held=one.points,
                exact=one.exact,
                above=len(one.violations),
                solver_below=one.contradicted,
                solver_refuted=one.refuted,
                radius_proved=one.proved,
            )
            self.worst[key] = max(self.worst.get(key, 0.0), one.worst)
            self.found += [{"recipe": case.recipe.record(), **asdict(found)} for found in one.violations]
        for key, reason in case.refused.items():
            self.counts.setdefault(key, Counter()).update(refused=1)
            if self.counts[key]["refused"] == 1:
                print(f"refused: {key} {reason[:100]}", flush=True)
        for key, reason in case.faults.items():
            self.counts.setdefault(key, Counter()).update(withdrawn=1)
            self.found.append({"recipe": case.recipe.record(), "key": key, "withdrawn": reason})

    def table(self) -> pd.DataFrame:
        """A row for each method, certificate, norm and domain."""
        columns = (
            *("held", "exact", "above", "withdrawn", "refused"),
            *("solver_below", "solver_refuted", "radius_proved"),
        )
        rows = [
            {
                **key._asdict(),
                **{name: counts[name] for name in columns},
                "worst_ratio": self.worst.get(key, 0.0),
            }
            for key, counts in sorted(self.counts.items())
        ]
        return pd.DataFrame(rows)

    def write(self, out: Path, options: argparse.Namespace) -> None:
        """Write the table and what is to know of the run."""
        out.mkdir(parents=True, exist_ok=True)
        self.table().to_csv(out / "fuzz.csv", index=False)
        record = {
            "configuration": {"minutes": options.minutes, "seed": options.seed, "families": options.families},
            "time shares": SHARES,
            "cases": dict(self.cases),
            "radii held": dict(self.held),
            "times": self.clock.times(),
            "versions": versions(),
            "hardware": hardware(),
            "code": options.commit,
        }
        (out / "run.json").write_text(json.dumps(record, indent=2) + "\n")
        if self.found:
            (out / "violations.json").write_text(json.dumps(self.found, indent=1) + "\n")


def main() -> int:
    """Fuzz, write, tell."""
    options = _parser().parse_args()
    options.commit = code_commit()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    rng, ledger = np.random.default_rng(options.seed), Ledger()
    spent = dict.fromkeys(options.families, 0.0)
    ends, written = time.monotonic() + 60 * options.minutes, time.monotonic()
    while (now := time.monotonic()) < ends:
        family = min(spent, key=lambda name: spent[name] / SHARES[name])
        case = build(draw(rng, family, FEATURE_MAPS))
        ledger.add(case, hold(case))
        spent[family] += time.monotonic() - now
        if now - written > WRITE_SECONDS:
            ledger.write(options.out, options)
            written = now
    ledger.write(options.out, options)
    table = ledger.table()
    print(table.to_string(index=False))
    print(
        f"{table.held.sum()} radii held, {table.exact.sum()} of them against exact answers, {table.above.sum()} above"
    )
    return 1 if ledger.found else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"))
    parser.add_argument("--families", nargs="+", choices=SHARES, default=list(SHARES))
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
