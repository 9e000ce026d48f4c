"""A suite is a table: data sets x methods x norms x seeds x budgets, read from a TOML file (see bench.suites.files)."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from bench.basics.errors import UsageError, unknown
from bench.basics.settings import from_table, merged
from bench.basics.whole_numbers import LARGEST
from bench.calibration import DEFAULT_POINTS, parse_points
from bench.contract import NORMS, Method, check_norms
from bench.methods import get_method, registered_methods
from bench.suites.files import resolved_table, suite_names, suite_path

__all__ = ["MethodEntry", "Suite", "load_suite", "suite_names"]


@dataclass(frozen=True)
class MethodEntry:
    """One line of the comparison: a registered method with settings, and where it takes part.

    id: the name in tables and files (default: the method's name); title: the legend's (default: the class's).
    for_: per data set, a table of settings that differ there. datasets: the only data sets it runs on (default: all).
    operating_points: the only ones of the suite's that it is certified at (default: all).
    norms: the only norms of the suite's that it is certified in (default: all).
    family: entries that share it, such as one method at several noise levels, also get a common envelope curve.
    """

    method: str
    id: str = ""
    title: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    for_: dict[str, Any] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    operating_points: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()
    family: str = ""

    @property
    def name(self) -> str:
        """The name in tables and files."""
        return self.id or self.method

    @cached_property
    def method_class(self) -> type[Method]:
        """The registered class."""
        return get_method(self.method)

    def points_of(self, points: Sequence[str]) -> tuple[str, ...]:
        """Return which of a suite's operating points the method is certified at: all if it is kept to none of them."""
        kept = parse_points(self.operating_points) if self.operating_points else ()
        return tuple(point for point in points if point in kept) or tuple(points)

    def norms_of(self, norms: Iterable[str]) -> tuple[str, ...]:
        """Return which of a suite's norms the entry is certified in."""
        return tuple(norm for norm in norms if not self.norms or norm in self.norms)

    def settings_for(self, dataset: str | None) -> Any:
        """Return the method's settings on a data set (None: where none is named), all keys and types checked."""
        table = merged(self.settings, self.for_.get(dataset or "", {}))
        where = f" on {dataset!r}" if dataset in self.for_ else ""
        return from_table(self.method_class.Settings, table, f"settings of {self.name!r}{where}")


@dataclass(frozen=True)
class Suite:
    """What to compare. ``reduced`` states, in figure titles, how a run falls short of the full settings.

    test_inputs: how many test inputs to use, drawn once per data set with the classes' shares kept (0: all).
    calibrate: which data thresholds are chosen on; ``test`` repeats the paper's choice and marks every row.
    operating_points: what thresholds are chosen for, see bench.calibration; the first one's figures come first.
    radii: radii, per norm, at which the summary names certified accuracy.
    cell_minutes, cell_memory_gb: time, and memory in GiB, that one cell may take (0: no limit).
    tuned_minutes: minutes of training that each entry's settings were searched with, the same for all (0: set by hand).
    recall_floor: recall on validation data below which that search counted radii less. candidates: file, beside the
    suite's, with all that it tried.
    """

    name: str
    title: str
    datasets: tuple[str, ...]
    methods: tuple[MethodEntry, ...]
    reduced: str = ""
    norms: tuple[str, ...] = NORMS
    seeds: tuple[int, ...] = (0,)
    suite_seed: int = 0
    test_inputs: int = 0
    calibrate: Literal["validation", "test", "none"] = "validation"
    operating_points: tuple[str, ...] = DEFAULT_POINTS
    radii: dict[str, Any] = field(default_factory=dict)
    cell_minutes: float = 0.0
    cell_memory_gb: float = 0.0
    tuned_minutes: float = 0.0
    recall_floor: float = 0.0
    candidates: str = ""

    def __post_init__(self) -> None:
        check_norms(self.norms)
        object.__setattr__(self, "operating_points", parse_points(self.operating_points))
        for what, values in (("data set", self.datasets), ("method", self.methods), ("seed", self.seeds)):
            if not values:
                raise UsageError(f"suite {self.name!r} names no {what}: give at least one")
        for what, number in (
            ("test_inputs", self.test_inputs),
            ("suite_seed", self.suite_seed),
            *((f"seeds[{place}]", seed) for place, seed in enumerate(self.seeds)),
        ):
            if not 0 <= number <= LARGEST:
                raise UsageError(
                    f"suite {self.name!r}: {what} = {number}: give a whole number from 0 to {LARGEST:,}"
                )
        names = [entry.name for entry in self.methods]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(
                    f"suite {self.name!r} has two methods named {name!r}: give one of them another id"
                )
        for entry in self.methods:
            entry.points_of(self.operating_points)
            check_norms(entry.norms or self.norms)
            for dataset in (None, *entry.for_):
                entry.settings_for(dataset)

    def pairs(self) -> list[tuple[str, MethodEntry]]:
        """Every (data set, method entry) that takes part, in table order."""
        return [
            (dataset, entry)
            for dataset in self.datasets
            for entry in self.methods
            if (not entry.datasets or dataset in entry.datasets) and entry.norms_of(self.norms)
        ]

    def families(self) -> dict[str, str]:
        """Return method -> family of the entries that have one."""
        return {entry.name: entry.family for entry in self.methods if entry.family}

    def with_methods(self, names: Iterable[str]) -> "Suite":
        """Keep the named entries; a registered method that has no entry joins with its default settings.

        An entry kept to other data sets than the suite's joins all the same: it was asked for.
        """
        taking_part = {entry.name for _, entry in self.pairs()}
        entries = {
            entry.name: entry if entry.name in taking_part else dataclasses.replace(entry, datasets=())
            for entry in self.methods
        }
        chosen = []
        for name in dict.fromkeys(names):
            if name not in entries and name not in registered_methods():
                raise unknown("method", name, sorted({*entries, *registered_methods()}))
            chosen.append(entries.get(name, MethodEntry(method=name)))
        return dataclasses.replace(self, methods=tuple(chosen))


def load_suite(name_or_file: str) -> Suite:
    """Read a suite by its name, or from a TOML file; raise UsageError naming what is wrong with it."""
    path = suite_path(name_or_file)
    return _parse(resolved_table(path), path)


def _parse(table: dict[str, Any], path: Path) -> Suite:
    where = f"suite file {path.name}"
    for entry in table.get("methods", []) if isinstance(table.get("methods"), list) else []:
        if isinstance(entry, dict) and "for" in entry:
            entry["for_"] = entry.pop("for")
    suite = from_table(Suite, {"name": path.stem, "title": path.stem, **table}, where)
    if not suite.candidates:
        return suite
    return dataclasses.replace(suite, candidates=str((path.parent / suite.candidates).resolve()))
