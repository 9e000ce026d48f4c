"""What searches found: a table of every candidate, and a suite of the chosen ones that runs as any other."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w

from bench.basics.errors import UsageError
from bench.basics.files import write_atomic
from bench.basics.settings import merged
from bench.kept.store import CANDIDATES
from bench.suites.suite import MethodEntry, load_suite
from bench.tune.moves import Candidate, chosen
from bench.tune.record import Record
from bench.tune.search import Task

SUITE = "suite.toml"


class Found:
    """What one search tried and chose."""

    def __init__(self, task: Task, record: Record) -> None:
        self.task = task
        self.tried = record.candidates()
        self.choice = chosen(self.tried)
        self._facts = {candidate.number: record.facts(candidate.number) for candidate in self.tried}

    @property
    def seconds(self) -> float:
        """Training time that was spent."""
        return sum(candidate.seconds for candidate in self.tried)

    def rows(self) -> list[dict[str, Any]]:
        """One row per candidate."""
        return [self._row(candidate) for candidate in self.tried]

    def line(self) -> str:
        """The search in one line for the terminal."""
        tried = f"{len(self.tried)} candidates in {self.seconds:.0f} s of training"
        if self.choice is None:
            return f"{self.task.label}: {tried}, none could be judged"
        verdict = self._facts[self.choice.number]["verdicts"][0]
        recalls = f"{100 * verdict['recall']:.1f} / {100 * verdict['other_recall']:.1f}"
        radius = f"median radius {verdict['radius']:.3g} at recalls {recalls} on validation data"
        return f"{self.task.label}: {tried}; {radius}"

    def _row(self, candidate: Candidate) -> dict[str, Any]:
        facts = self._facts[candidate.number]
        row = {
            "dataset": self.task.dataset,
            "method": tuned_id(self.task),
            "norm": self.task.norm,
            "number": candidate.number,
            "kind": candidate.kind,
            "state": candidate.state,
            "chosen": candidate is self.choice,
            "seconds": candidate.seconds,
            "judging_seconds": facts.get("judging_seconds"),
            "epochs": candidate.epochs,
            "measure": candidate.measure,
        }
        verdicts = facts.get("verdicts") or [{} for _ in self.task.points]
        for point, verdict in zip(self.task.points, verdicts, strict=True):
            row |= {f"{name} ({point})": verdict.get(name) for name in ("radius", "recall", "other_recall")}
        return {**row, "settings": json.dumps(candidate.settings, sort_keys=True), "reason": candidate.reason}


def tuned_id(task: Task) -> str:
    """The name of a tuned entry: the method's and the norm it was tuned for."""
    return f"{task.entry.name}_{task.norm}"


def write_results(out: Path, found: Sequence[Found], top: Mapping[str, Any]) -> Path:
    """Write OUT/candidates.csv and OUT/suite.toml; return the suite's path.

    top: title, minutes and the like, as the suite's own keys. Raises UsageError if no search chose anything.
    """
    entries = [entry for group in _grouped(found).values() if (entry := _entry(group, top["norms"]))]
    if not entries:
        raise UsageError(
            "no search found settings that could be judged: see candidates.csv, or give it more --minutes"
        )
    suite = {**top, "candidates": CANDIDATES, "methods": entries}
    write_atomic(out / SUITE, f"# Written by python -m bench.tune.\n{tomli_w.dumps(suite)}".encode())
    load_suite(str(out / SUITE))
    return out / SUITE


def write_candidates(out: Path, found: Sequence[Found]) -> None:
    """Write OUT/candidates.csv: every candidate of every search."""
    table = pd.DataFrame([row for each in found for row in each.rows()])
    write_atomic(out / CANDIDATES, table.to_csv(index=False, lineterminator="\n").encode())


def _grouped(found: Sequence[Found]) -> dict[str, list[Found]]:
    groups: dict[str, list[Found]] = {}
    for each in found:
        groups.setdefault(tuned_id(each.task), []).append(each)
    return groups


def _entry(group: Sequence[Found], norms: Sequence[str]) -> dict[str, Any] | None:
    """Return the suite's entry of a method in a norm, its settings per data set; None if nothing was chosen."""
    chosen = [(each.task, each.choice) for each in group if each.choice is not None]
    if not chosen:
        return None
    task = chosen[0][0]
    entry, native = task.entry, native_norms(task.entry)
    settings = {task.dataset: merged(task.table(), choice.settings) for task, choice in chosen}
    return {
        "method": entry.method,
        "id": tuned_id(task),
        "title": f"{entry.title or entry.method_class.title} for {task.norm}",
        "norms": [task.norm, *(norm for norm in norms if norm not in native)],
        "datasets": list(settings),
        "for": settings,
    }


def native_norms(entry: MethodEntry) -> set[str]:
    """Return the norms in which a method has radii of its own, converted ones left out."""
    method = entry.method_class(entry.settings_for(None))
    return {norm for curve in method.curves() for norm in curve.native}
