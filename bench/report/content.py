"""What a report shows, as one value that JSON can hold."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.calibration import BALANCED, GIVEN, shown_point
from bench.contract import NORMS, Outcome
from bench.kept.points import POINT, points_in_order, with_points
from bench.kept.rows import CURVE_KEY, LINE
from bench.kept.store import BRACKET, CANDIDATES, ORIGINAL_UNITS, Store
from bench.report.figures.identity import family_and_slot
from bench.report.figures.leaders import leaders
from bench.report.figures.line_styles import CurveId, LineStyle, curve_title, legend_styles
from bench.report.packing import packed, steps
from bench.report.pictures import Pictures
from bench.report.tables.curves import certified_curves
from bench.report.tables.notes import run_notes
from bench.report.tables.summary import named_radii, summarise
from bench.report.verdict import claim_of, verdict

# Together at most 1.6 MB of the page; of more, neighbouring radii share the smallest of them.
MAX_RADII = 150_000
LINE_WIDTH = 2.0
OURS = "feature_convex"
SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
    "<": "triangle-left",
    ">": "triangle-right",
    "*": "star",
    "p": "pentagon",
    "h": "hexagon",
}
SHOWN_FACTS = ("guarantee", "native", "calibrated_on", "near_chance", "resolved", "seeds", "inputs")
SHOWN_NUMBERS = (
    "recall_sensitive",
    "recall_other",
    "mean_radius",
    "median_radius",
    "seconds_per_certificate",
    "norms_in_call",
)
# Of more curves than this, those that lead their family in a norm are shown first, the others on request.
CROWDED = 8


def report_content(
    out: Path, run: Mapping[str, Any], radii: pd.DataFrame, predictions: pd.DataFrame, pictures: Pictures
) -> dict[str, Any]:
    """Return everything the page shows.

    run, radii, predictions: as ``Store.read_run`` returns them. Numbers are plain JSON, except that a missing one is
    null and an infinite one the string "Infinity". Radii are exact: base64 of float64, see :mod:`packing`.
    """
    configuration = run["configuration"]
    datasets, opening = [], {}
    if len(radii):
        radii = with_bracket(radii, out)
        tables = {
            "radii": radii,
            "curves": certified_curves(radii),
            "summary": summarise(radii, predictions),
            "attacked": attacks(out),
            "validation": Store(out).read_validation(),
        }
        limit = radii_limit(radii)
        points = points_in_order(configuration, radii[POINT])
        claim = claim_of(out, run, radii, predictions)
        opening = verdict(run, radii, predictions, claim, tables["attacked"], points)
        for name in dict.fromkeys([*configuration.get("datasets", []), *radii["dataset"]]):
            for point in points:
                mine = {
                    key: table[(table["dataset"] == name) & (table[POINT] == point)]
                    for key, table in tables.items()
                }
                if len(mine["radii"]):
                    datasets.append(_dataset(str(name), point, run, mine, pictures, limit))
    return {
        "title": str(configuration.get("title") or configuration.get("name") or "Comparison"),
        "notes": run_notes(configuration),
        "verdict": opening,
        "units": text_table(out / ORIGINAL_UNITS),
        "candidates": text_table(out / CANDIDATES),
        "outcomes": run["outcomes"],
        "advice": {str(outcome): outcome.advice for outcome in Outcome},
        "record": {
            key: run.get(key, {}) for key in ("times", "hardware", "versions", "code", "configuration")
        },
        "methods": run["methods"],
        "datasets": datasets,
        "rows_beside": "",
    }


def text_table(path: Path) -> dict[str, Any]:
    """Return a CSV file beside the page as a list of columns and one of rows of text; empty where there is none."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError):
        return {"columns": [], "rows": []}
    return {"columns": list(table.columns), "rows": table.to_numpy().tolist()}


def radii_limit(radii: pd.DataFrame) -> int:
    """Return how many radii, and how many upper ends, each curve may keep in each norm: all if they fit."""
    with_uppers = radii.loc[radii["radius_upper"].notna(), CURVE_KEY].drop_duplicates()
    curves = radii.groupby(CURVE_KEY).size()
    numbers = curves.sum() + curves.reindex(pd.MultiIndex.from_frame(with_uppers)).sum()
    return int(curves.max()) if numbers <= MAX_RADII else MAX_RADII // (len(curves) + len(with_uppers))


def with_bracket(radii: pd.DataFrame, out: Path) -> pd.DataFrame:
    """Return the rows, radius_upper lowered to the adversarial perturbations that ``bench.falsify`` has found."""
    key = ["dataset", "method", "domain", "norm", POINT, "seed", "index"]
    try:
        table = pd.read_csv(out / BRACKET, dtype=dict.fromkeys(key[:5], str), keep_default_na=False)
        table = with_points(table)
        smallest = table.groupby(key)["adversarial"].min()
    except (OSError, ValueError, KeyError):
        return radii
    found = smallest.reindex(pd.MultiIndex.from_frame(radii[key])).to_numpy(dtype=float)
    known = np.where(np.isfinite(found), found, np.nan)
    upper = np.fmin(radii["radius_upper"].to_numpy(dtype=float, na_value=np.nan), known)
    return radii.assign(radius_upper=pd.Series(upper, index=radii.index).astype("Float64"))


def attacks(out: Path) -> pd.DataFrame:
    """Return what ``bench.falsify`` found, summed over the seeds; empty where it has not been run."""
    path = out / "falsify.csv"
    counts = ["attacked", "broken", "allowed"]
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(CURVE_KEY, str), keep_default_na=False)
        return with_points(table).groupby(CURVE_KEY, as_index=False)[counts].sum()
    except (OSError, ValueError, KeyError):
        return pd.DataFrame(columns=[*CURVE_KEY, *counts])


def _dataset(
    name: str,
    point: str,
    run: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    pictures: Pictures,
    limit: int,
) -> dict[str, Any]:
    """What is shown of a data set at one operating point; what follows the data set's name says which."""
    summary, radii = tables["summary"], tables["radii"]
    methods = run["methods"]
    norms = [norm for norm in NORMS if norm in set(summary["norm"])]
    named = run["configuration"].get("radii") or {}
    panels = {norm: radii[radii["norm"] == norm] for norm in norms}
    grids = {norm: tables["curves"].loc[tables["curves"]["norm"] == norm, "radius"] for norm in norms}
    styles = legend_styles(summary, methods)
    first = leaders(summary, methods, tables["validation"])
    leading = {tuple(key) for key in first[LINE].to_numpy().tolist()}
    curves = []
    for key, style in styles.items():
        mine = {what: _rows_of(table, key) for what, table in tables.items() if what != "validation"}
        curves.append(
            {
                "method": key[0],
                "certificate": key[1],
                "domain": key[2],
                "title": curve_title(key, styles, methods),
                **_look(style),
                "ours": family_and_slot(key[0], methods)[0] == OURS,
                "shown": key in leading or len(styles) <= CROWDED or not leading,
                "norms": {
                    norm: _line({what: table[table["norm"] == norm] for what, table in mine.items()}, limit)
                    | {"ends": pictures.ends(mine["radii"][mine["radii"]["norm"] == norm])}
                    for norm in norms
                    if norm in set(mine["summary"]["norm"])
                },
            }
        )
    return {
        "name": name if point in (BALANCED, GIVEN) else f"{name}, {shown_point(point)}",
        "dataset": name,
        "operating_point": point,
        "point": shown_point(point),
        "norms": norms,
        "grids": {norm: sorted(set(grid)) for norm, grid in grids.items()},
        "named": {norm: list(named_radii(named, name, norm, panels[norm])) for norm in norms},
        "curves": curves,
        **pictures.take(name),
    }


def _rows_of(table: pd.DataFrame, key: CurveId) -> pd.DataFrame:
    method, certificate, domain = key
    return table[
        (table["method"] == method) & (table["certificate"] == certificate) & (table["domain"] == domain)
    ]


def _look(style: LineStyle) -> dict[str, Any]:
    dashes = (
        "solid"
        if isinstance(style.dashes, str)
        else ",".join(f"{LINE_WIDTH * part:g}px" for part in style.dashes[1])
    )
    return {
        "color": [round(255 * channel) for channel in style.color],
        "dash": dashes,
        "symbol": SYMBOLS[style.marker],
    }


def _line(mine: Mapping[str, pd.DataFrame], limit: int) -> dict[str, Any]:
    """One curve in one norm: its facts, exact radii, band, outcomes and reasons."""
    facts, rows, curve = mine["summary"].iloc[0], mine["radii"], mine["curves"]
    right = rows["predicted"].eq(1).fillna(False)
    uppers = rows.loc[right, "radius_upper"].astype(float).fillna(math.inf)
    band = {"lower": curve["lower"], "upper": curve["upper"]}
    line = {
        **{key: facts[key].item() if hasattr(facts[key], "item") else facts[key] for key in SHOWN_FACTS},
        **{key: number(facts[key]) for key in SHOWN_NUMBERS},
        "alpha": number(rows["alpha"].astype(float).max()),
        "draws": number(rows["draws"].astype(float).max()),
        "rows": len(rows),
        "radii": packed(rows["radius"].dropna().to_numpy(dtype=float), limit),
        "uppers": packed(uppers.to_numpy(), limit, upward=True) if (uppers < math.inf).any() else None,
        "outcomes": {str(outcome): int(facts[str(outcome)]) for outcome in Outcome},
        "reasons": _reasons(rows),
        "attacked": None,
    } | steps(band)
    if len(mine["attacked"]):
        line["attacked"] = [int(mine["attacked"].iloc[0][key]) for key in ("attacked", "broken", "allowed")]
    return line


def _reasons(rows: pd.DataFrame) -> list[list[Any]]:
    counts = rows[rows["reason"] != ""].groupby(["outcome", "reason"], sort=True).size()
    return [[outcome, reason, int(count)] for (outcome, reason), count in counts.items()]


def number(value: float) -> float | str | None:
    """Return a number that JSON can hold: null where it is missing, "Infinity" where it is infinite."""
    value = float(value)
    return None if math.isnan(value) else value if math.isfinite(value) else "Infinity"
