"""From finished cells to what a reader opens: merged tables, curves, summary, figures, run.json."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.basics.files import plain, write_atomic
from bench.contract import Method
from bench.data import Dataset
from bench.data.request import cached_dataset
from bench.kept.store import (
    CANDIDATES,
    CURVES,
    ORIGINAL_UNITS,
    SUMMARY,
    SUMMARY_LATEX,
    TABLE_COLUMNS,
    CellFolder,
    Store,
)
from bench.report.claim import write_claim
from bench.report.figures.run_figures import draw_run
from bench.report.page import write_report
from bench.report.tables.curves import certified_curves, envelopes
from bench.report.tables.latex import summary_latex
from bench.report.tables.notes import run_notes
from bench.report.tables.original_units import (
    columns_table,
    in_original_units,
    render_original_units,
)
from bench.report.tables.roc_table import roc_table
from bench.report.tables.summary import summarise
from bench.report.tables.summary_text import render_summary
from bench.running.cells import CellJob
from bench.running.costs import costs_of
from bench.running.provenance import RunClock, run_record
from bench.running.runner import Resources
from bench.suites.suite import Suite

LOG = logging.getLogger(__name__)


def finish_run(
    store: Store, suite: Suite, jobs: Sequence[CellJob], resources: Resources, clock: RunClock
) -> str:
    """Write everything but the cells themselves into the output folder; return the text for the terminal."""
    request = jobs[0].data
    configuration = {**plain(suite), **plain(request.record()), "resources": plain(resources)}
    folders = [job.folder for job in jobs]
    if suite.candidates:
        _copy_candidates(Path(suite.candidates), store.out / CANDIDATES)
    table = cached_dataset(request) if request.table is not None else None
    return finish_cells(store, folders, configuration, method_metadata(suite), clock, request.data_dir, table)


def _copy_candidates(source: Path, place: Path) -> None:
    """Keep with a run what tuning tried for it, so that the run explains itself."""
    try:
        content = source.read_bytes()
    except OSError as error:
        LOG.warning("%s: %s, so the run does not show what tuning tried", source, error.strerror)
        return
    write_atomic(place, content)


def finish_cells(
    store: Store,
    cells: Sequence[CellFolder],
    configuration: Mapping[str, Any],
    methods: Mapping[str, Mapping[str, Any]],
    clock: RunClock,
    data_dir: Path | None,
    table: Dataset | None = None,
) -> str:
    """As ``finish_run``, for finished cells of any origin.

    configuration: what run.json records; its ``radii``, if any, are named in the summary. methods: by id, in the order
    of the legends, see ``method_metadata``. table: the run's data set if its columns have units of their own.
    """
    radii, predictions = store.merge(cells)
    curves = certified_curves(radii)
    families = {name: method["family"] for name, method in methods.items() if method["family"]}
    store.write_table(CURVES, pd.concat([curves, envelopes(curves, families)], ignore_index=True))
    summary = summarise(radii, predictions, configuration.get("radii"))
    store.write_table(SUMMARY, summary)
    write_atomic(store.out / SUMMARY_LATEX, summary_latex(summary).encode())
    if table is not None:
        store.write_table(TABLE_COLUMNS, columns_table(table))
        store.write_table(ORIGINAL_UNITS, in_original_units(summary, table))
    store.write_roc(roc_table(store.merge_roc(cells), radii, configuration.get("radii") or {}))
    store.write_validation(cells)
    store.write_run({**run_record(configuration, methods, radii, clock), "costs": costs_of(cells)})
    write_claim(store.out)
    figures = draw_run(store.out)
    report = write_report(store.out, data_dir)
    units = render_original_units(summary, table) if table is not None else ""
    notes = "\n".join(note.capitalize() for note in run_notes(configuration))
    parts = [notes, render_summary(summary), units, closing_lines(store.out, report, figures)]
    return "\n\n".join(part for part in parts if part)


def method_metadata(suite: Suite) -> dict[str, dict[str, Any]]:
    """What figures and reports say about each method, in the order of the legends."""
    return {
        entry.name: method_facts(entry.method_class, entry.title or entry.method_class.title, entry.family)
        for entry in suite.methods
    }


def method_facts(method: type[Method], title: str, family: str = "") -> dict[str, Any]:
    """What run.json keeps of a method."""
    return {
        "method": method.name,
        "title": title,
        "reference": method.reference,
        "guarantee": method.guarantee,
        "family": family,
        "kind": method.kind,
        "slot": method.slot,
        "apart": method.apart,
    }


def closing_lines(out: Path, report: Path, figures: Sequence[Path]) -> str:
    """Where everything is."""
    lines = [
        f"Rows, curves and summary: {out}/radii.parquet, {out}/curves.csv, {out}/summary.csv (.tex for LaTeX)",
        f"Report: {report}",
        "Figures:",
    ]
    return "\n".join(lines + [f"  {path}" for path in figures if path.suffix == ".png"])
