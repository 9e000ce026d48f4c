"""The verdict of a run in words and one small table: who leads in each norm, by what factor, and what attacks found."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.calibration import shown_point
from bench.contract import NORMS
from bench.kept.points import POINT
from bench.kept.store import CLAIM
from bench.report.claim import CONFIDENCE, LEVELS, NORM_NAMES, Panel, central_claim
from bench.report.figures.line_styles import curve_title
from bench.report.tables.chance import near_chance
from bench.report.tables.summary import shown_factor

# The comparison and the level that the verdict speaks of; a lower level stands in where nobody reaches it.
COMPARISON, LEVEL = "refined", 0.5
AHEAD, EVEN, BEHIND = "ahead", "even", "behind"
WORDS = {AHEAD: "leads", EVEN: "is level", BEHIND: "is behind"}


def claim_of(
    out: Path, run: Mapping[str, Any], radii: pd.DataFrame, predictions: pd.DataFrame
) -> pd.DataFrame:
    """Return the run's claim, from claim.csv where this version wrote it, else from the rows; perhaps no rows."""
    names = dict.fromkeys(("dataset", POINT, "norm", "comparison", "fcnn", "competitor"), str)
    try:
        table = pd.read_csv(out / CLAIM, dtype=names, keep_default_na=False, na_values=["", "nan"])
        if set(names) <= set(table.columns):
            return table.fillna({"fcnn": "", "competitor": ""})
    except (OSError, ValueError):
        pass
    return central_claim(radii, run["methods"], near_chance(predictions))


def verdict(
    run: Mapping[str, Any],
    radii: pd.DataFrame,
    predictions: pd.DataFrame,
    claim: pd.DataFrame,
    attacked: pd.DataFrame,
    points: Sequence[str],
) -> dict[str, Any]:
    """Return sentences, a table of leaders, all factors, and the attack's result, as JSON can hold them.

    claim: as ``claim_of``; attacked: counts by curve, no rows where nothing was attacked; points: in their order.
    """
    cells = _claimed(claim, run["methods"]) if len(claim) else _leading(run, radii, predictions)
    named = [point for point in points if any(cell[POINT] == point for cell in cells)]
    sentences = [
        {"point": shown_point(point), "text": sentence}
        for point in named
        for sentence in _sentences([cell for cell in cells if cell[POINT] == point], bool(len(claim)))
    ]
    return {
        "sentences": sentences,
        "cells": cells,
        "compared": bool(len(claim)),
        "level": LEVEL,
        "confidence": CONFIDENCE,
        "factors": _factors(claim, run["methods"]),
        "attack": _attack(attacked),
    }


def _claimed(claim: pd.DataFrame, methods: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The leader of each data set, operating point and norm, with FCNN's factor over the best other method."""
    cells = []
    rows = claim[claim["comparison"] == COMPARISON]
    for (dataset, point, norm), levels in rows.groupby(["dataset", POINT, "norm"], sort=False):
        row = _decisive(levels)
        if row is None:
            continue
        alone = not row["competitor"]
        standing = AHEAD if alone or row["factor_lower"] > 1 else BEHIND if row["factor_upper"] < 1 else EVEN
        leader = row["fcnn"] if row["fcnn_radius"] >= row["competitor_radius"] else row["competitor"]
        cells.append(
            {
                **{"dataset": dataset, POINT: point, "norm": norm},
                "leader": leader,
                "title": _title(leader, methods),
                "standing": standing,
                "other": _title(row["competitor"], methods) if row["competitor"] else "",
                "factor": "" if alone else shown_factor(row["factor"]),
                "band": ""
                if alone
                else f"{shown_factor(row['factor_lower'])} to {shown_factor(row['factor_upper'])}",
                "level": float(row["level"]),
            }
        )
    return cells


def _decisive(levels: pd.DataFrame) -> dict[str, Any] | None:
    """Return the row of LEVEL, or of the highest level below it that anybody reaches; None where nobody does."""
    reached = levels[
        (levels["level"] <= LEVEL) & (levels[["fcnn_radius", "competitor_radius"]].max(axis=1) > 0)
    ]
    return None if reached.empty else reached.sort_values("level").iloc[-1].to_dict()


def _leading(run: Mapping[str, Any], radii: pd.DataFrame, predictions: pd.DataFrame) -> list[dict[str, Any]]:
    """The leaders of a run in which FCNN has nobody to compare with: the largest free radius at LEVEL."""
    left_out, cells = near_chance(predictions), []
    free = radii[radii["domain"] == "free"]
    places = zip(*(free[name] for name in ("dataset", "method", POINT)), strict=True)
    free = free[[place not in left_out for place in places]]
    for (dataset, point), rows in free.groupby(["dataset", POINT], sort=False):
        for norm in (norm for norm in NORMS if norm in set(rows["norm"])):
            try:
                panel = Panel.of_rows(rows[rows["norm"] == norm])
            except ValueError:  # tested on different inputs
                continue
            levels = [level for level in LEVELS if level <= LEVEL]
            found = panel.best(np.ones(len(panel.names), dtype=bool), levels)
            reached = [one for one in zip(levels, *found, strict=True) if one[1] > 0]
            if reached:
                level, _, leader = reached[-1]
                title = _title(leader, run["methods"])
                none = dict.fromkeys(("standing", "other", "factor", "band"), "")
                place = {"dataset": dataset, POINT: point, "norm": norm, "level": level}
                cells.append({**place, "leader": leader, "title": title, **none})
    return cells


def _sentences(cells: Sequence[Mapping[str, Any]], compared: bool) -> list[str]:
    """Say for each norm, in one sentence, on which data sets FCNN leads, is level or behind, or who leads."""
    return [
        f"{NORM_NAMES[norm]}: " + (_standings(mine) if compared else _leaders(mine)) + "."
        for norm in NORMS
        if (mine := [cell for cell in cells if cell["norm"] == norm])
    ]


def _standings(cells: Sequence[Mapping[str, Any]]) -> str:
    if len(cells) == 1:
        (cell,) = cells
        text = f"FCNN {WORDS[cell['standing']]}"
        if not cell["factor"]:
            return f"{text}: no other method certifies {cell['level']:.0%} of the sensitive inputs"
        return (
            f"{text}, its radius at {cell['level']:.0%} certified accuracy is {cell['factor']} times "
            f"({cell['band']}) that of the best other method, {cell['other']}"
        )
    parts = []
    for standing, words in WORDS.items():
        mine = [cell for cell in cells if cell["standing"] == standing]
        if mine:
            names = ", ".join(f"{cell['dataset']} {_factor_note(cell)}" for cell in mine)
            parts.append(f"{words} on {len(mine)} of {len(cells)} data sets ({names})")
    return f"FCNN {'; '.join(parts)}"


def _factor_note(cell: Mapping[str, Any]) -> str:
    return f"× {cell['factor']}" if cell["factor"] else "alone"


def _leaders(cells: Sequence[Mapping[str, Any]]) -> str:
    if len(cells) == 1:
        return f"{cells[0]['title']} has the largest radius at {cells[0]['level']:.0%} certified accuracy"
    return "largest radii: " + ", ".join(f"{cell['title']} on {cell['dataset']}" for cell in cells)


def _factors(claim: pd.DataFrame, methods: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every factor of the claim as text, a row for each data set, operating point, norm and comparison."""
    table: list[dict[str, Any]] = []
    if not len(claim):
        return table
    for key, rows in claim.groupby(["dataset", POINT, "norm", "comparison"], sort=False):
        place = dict(zip(("dataset", "point", "norm", "comparison"), key, strict=True))
        place["point"] = shown_point(place["point"])
        factors = {f"{row['level']:.0%}": _factor_text(row, methods) for row in rows.to_dict("records")}
        table.append({**place, "factors": factors})
    return table


def _factor_text(row: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]]) -> str:
    if not row["competitor"]:
        return "only FCNN" if row["fcnn"] else "–"
    band = f"{shown_factor(row['factor_lower'])} to {shown_factor(row['factor_upper'])}"
    return f"{shown_factor(row['factor'])} ({band}; {_title(row['competitor'], methods)})"


def _title(method: str, methods: Mapping[str, Mapping[str, Any]]) -> str:
    return curve_title((method, "", "free"), [], methods)


def _attack(attacked: pd.DataFrame) -> dict[str, Any]:
    """Say what attacks inside the certified radii found; ``bad`` where more was broken than is allowed."""
    if attacked.empty:
        text = "The certificates were not attacked: python -m bench.falsify OUT does."
        return {"text": text, "bad": False}
    count, broken = int(attacked["attacked"].sum()), int(attacked["broken"].sum())
    bad = int((attacked["broken"] > attacked["allowed"]).sum())
    text = f"{count:,} certificates were attacked inside their radius: "
    if not broken:
        text += "none was broken."
    elif bad:
        text += f"{broken:,} were broken, on {bad} curve{'s' * (bad > 1)} more than the guarantee allows."
    else:
        text += f"{broken:,} were broken, no more than the probabilistic guarantees allow."
    return {"text": text, "bad": bool(bad)}
