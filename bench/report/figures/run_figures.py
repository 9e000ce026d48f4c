"""All figures of a run: certified accuracy over the radius, seconds per certificate, and what other thresholds give."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bench.basics.files import safe_name
from bench.calibration import BALANCED, GIVEN, shown_point
from bench.kept.points import POINT, file_part, points_in_order
from bench.kept.rows import LINE
from bench.kept.store import FIGURES, Store
from bench.report.figures.curve_figure import curve_figure
from bench.report.figures.leaders import leaders
from bench.report.figures.leaders_figure import LeaderRow, leaders_figure
from bench.report.figures.line_styles import legend_styles
from bench.report.figures.looks import house_look, save_figure
from bench.report.figures.roc_figure import Thresholds, certified_roc_figure, median_figure
from bench.report.figures.roc_leaders_figure import roc_leaders_figure
from bench.report.figures.seconds_figure import seconds_figure
from bench.report.tables.curves import certified_curves, envelopes
from bench.report.tables.notes import run_notes
from bench.report.tables.summary import summarise

# The leaders of all data sets in one file: the grid of a paper. Data sets' own files have their name before it.
ALL_LEADERS = "all_leaders"


def draw_run(out: Path) -> list[Path]:
    """Draw all figures of a finished run from its rows; return the files written, PNG and PDF.

    Raises UsageError if ``out`` is not the output folder of a finished run, or its tables are damaged.
    """
    run, radii, predictions = Store(out).read_run()
    roc, validation = Store(out).read_roc_table(), Store(out).read_validation()
    written = draw_figures(run, radii, predictions, out / FIGURES, validation)
    return written + draw_thresholds(run, radii, predictions, roc, validation, out / FIGURES)


def draw_figures(
    run: Mapping[str, Any],
    radii: pd.DataFrame,
    predictions: pd.DataFrame,
    folder: Path,
    validation: pd.DataFrame,
) -> list[Path]:
    """Draw each data set's curves and seconds into the folder; ``run`` gives titles and the order of methods.

    validation: by what the main figure chooses, see ``Store.read_validation``.
    """
    curves, summary = certified_curves(radii), summarise(radii, predictions)
    families = {name: method["family"] for name, method in run["methods"].items() if method.get("family")}
    best = envelopes(curves, families)
    folder.mkdir(parents=True, exist_ok=True)
    written, rows = [], []
    points = points_in_order(run["configuration"], summary[POINT])
    for (dataset, point), panel in summary.groupby(["dataset", POINT], sort=True):
        styles = legend_styles(panel, run["methods"])
        heading = _heading(run["configuration"], str(dataset), point)
        stem = f"{safe_name(str(dataset))}{file_part(point, points)}"
        with house_look():
            own, own_best = [
                table[(table["dataset"] == dataset) & (table[POINT] == point)] for table in (curves, best)
            ]
            colors = {families[key[0]]: style.color for key, style in styles.items() if key[0] in families}
            lines = curve_figure(own, own_best, panel, styles, heading, colors)
            written += save_figure(lines, folder / f"{stem}_certified_accuracy")
            measures = validation[(validation["dataset"] == dataset) & (validation[POINT] == point)]
            leading = leader_row(str(dataset), point, own, panel, run["methods"], measures)
            # One family alone has nobody to lead.
            if leading.families > 1:
                alone = leaders_figure([leading], _heading(run["configuration"], "", GIVEN))
                written += save_figure(alone, folder / f"{stem}_leaders")
                rows += [leading] if point == points[0] else []
            # What a certificate costs does not depend on the threshold.
            if point == points[0] and (panel["seconds_per_certificate"] > 0).any():
                seconds = seconds_figure(panel, styles, heading)
                written += save_figure(seconds, folder / f"{stem}_seconds")
    if len(rows) > 1:
        with house_look():
            together = _heading(run["configuration"], "", GIVEN)
            written += save_figure(leaders_figure(rows, together), folder / ALL_LEADERS)
    return written


def leader_row(
    dataset: str,
    point: str,
    curves: pd.DataFrame,
    summary: pd.DataFrame,
    methods: Mapping[str, Mapping[str, Any]],
    validation: pd.DataFrame,
) -> LeaderRow:
    """Return what the main figure shows of one data set at one operating point; all tables are of it alone."""
    fair = summary.loc[
        (summary["domain"] == "free") & ~summary["near_chance"], [*LINE, "norm"]
    ].drop_duplicates()
    title = f"{dataset}: {shown_point(point)}"
    leading = leaders(summary, methods, validation)
    return LeaderRow(title, curves.merge(fair), leading, legend_styles(summary, methods))


def draw_thresholds(
    run: Mapping[str, Any],
    radii: pd.DataFrame,
    predictions: pd.DataFrame,
    roc: pd.DataFrame | None,
    validation: pd.DataFrame,
    folder: Path,
) -> list[Path]:
    """Draw each data set's certified ROC, of all and of the leaders, and median radius over the other class's recall.

    roc: ``roc_table``'s rows, None where the run has none; validation: by what leaders are chosen. A data set whose
    predictions have no scores is left out.
    """
    summary = summarise(radii, predictions, run["configuration"].get("radii"))
    curves = certified_curves(radii)
    written = []
    for dataset, panel in summary.groupby("dataset", sort=True):
        own = roc[roc["dataset"] == dataset] if roc is not None else None
        shown = Thresholds.of_run(predictions[predictions["dataset"] == dataset], own, panel)
        if shown is None or not panel["certified"].any():
            continue
        styles = legend_styles(panel.drop_duplicates([*LINE, "norm"]), run["methods"])
        heading = _heading(run["configuration"], str(dataset), GIVEN)
        stem = folder / safe_name(str(dataset))
        with house_look():
            for name, draw in (("certified_roc", certified_roc_figure), ("median_radius", median_figure)):
                written += save_figure(draw(shown, styles, heading), stem.with_name(f"{stem.name}_{name}"))
            point = points_in_order(run["configuration"], panel[POINT])[0]
            own = [
                table[(table["dataset"] == dataset) & (table[POINT] == point)]
                for table in (curves, summary, validation)
            ]
            leading = leader_row(str(dataset), point, own[0], own[1], run["methods"], own[2])
            main = roc_leaders_figure(shown, leading, heading) if leading.families > 1 else None
            if main is not None:
                written += save_figure(main, stem.with_name(f"{stem.name}_certified_roc_leaders"))
    return written


def _heading(configuration: Mapping[str, Any], dataset: str, point: str) -> str:
    """Title of the suite, data set and operating point, and what must be known of the run."""
    heading = f"{configuration.get('title') or configuration.get('name') or 'Comparison'}"
    heading += f": {dataset}" if dataset else ""
    heading += "" if point in (BALANCED, GIVEN) else f", {shown_point(point)}"
    return "\n".join([heading, *run_notes(configuration)])
