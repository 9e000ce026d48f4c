"""The paper's central claim, computed from a run's rows: how far FCNN's radii stand above the best competitor's.

For each data set, norm and certified accuracy q of 25, 50 and 75 % the *radius at q* of a curve is the largest r at
which the certified accuracy is at least q: a share q of all sensitive test inputs is certified with radius >= r. The
factor is the best FCNN curve's radius at q over that of the best other method, both chosen at this q on the test
inputs. Only certificates of the free domain, at one operating point, and of methods that have learned
(:mod:`bench.report.tables.chance`) take part. FCNN appears twice: with the closed form alone, as published, and
refined.

``python -m bench.claim OUT`` writes ``claim.csv``, ``claim.md`` and ``claim.tex`` into a finished run; a run writes
them itself.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.basics.files import write_atomic
from bench.basics.seeds import derive_seed
from bench.calibration import shown_point
from bench.contract import NORMS, Outcome
from bench.kept.store import CLAIM, CLAIM_LATEX, CLAIM_TEXT, Store
from bench.report.figures.identity import family_and_slot
from bench.report.tables.chance import near_chance
from bench.report.tables.latex import markdown_latex
from bench.report.tables.notes import run_notes
from bench.report.tables.summary import floor_digits, shown_factor

LEVELS = (0.25, 0.5, 0.75)
# The family whose curves are FCNN's: with our networks, with the published ones, behind learned maps.
OURS = "feature_convex"
# Name of the comparison -> the only one of the family's certificates that takes part in it; None: all of them.
COMPARISONS = {"closed form": "closed_form", "refined": None}
RESAMPLES = 1000
CONFIDENCE = 0.95
NORM_NAMES = {"l1": "ℓ1", "l2": "ℓ2", "linf": "ℓ∞"}


@dataclass(frozen=True)
class Panel:
    """One data set and norm: names of the free curves (C,) and their radii (C, N), 0 where not certified."""

    names: tuple[tuple[str, str], ...]
    radii: np.ndarray

    @classmethod
    def of_rows(cls, rows: pd.DataFrame) -> "Panel":
        """Line the curves up by seed and test input; raise ValueError if they were run on different ones."""
        certified = rows["radius"].where(rows["outcome"] == Outcome.CERTIFIED).astype(float)
        table = rows.assign(radius=certified.fillna(0.0)).pivot(
            index=["method", "certificate"], columns=["seed", "index"], values="radius"
        )
        if table.isna().any(axis=None):
            raise ValueError("the methods of a run were tested on different inputs: no comparison is fair")
        return cls(tuple(table.index), table.to_numpy(dtype=float))

    def best(self, chosen: np.ndarray, levels: Sequence[float]) -> tuple[np.ndarray, list[str]]:
        """Return the best radius at each level among the chosen curves (C,), and whose it is ("" if 0)."""
        at = radius_at(self.radii[chosen], levels)
        names = [name for name, taken in zip(self.names, chosen, strict=True) if taken]
        winners = [names[k][0] if at[k, column] > 0 else "" for column, k in enumerate(at.argmax(axis=0))]
        return at.max(axis=0), winners


def radius_at(radii: np.ndarray, levels: Iterable[float]) -> np.ndarray:
    """Return (C, L): the largest radius that a share ``level`` of the inputs has at least; radii is (C, N)."""
    ordered = -np.sort(-radii, axis=1)
    count = radii.shape[1]
    # A tiny slack, so that 0.5 of 100 inputs is the 50th and not, by rounding, the 51st.
    ranks = [max(1, math.ceil(level * count - 1e-9)) for level in levels]
    return np.stack([ordered[:, rank - 1] for rank in ranks], axis=1)


def central_claim(
    radii: pd.DataFrame,
    methods: Mapping[str, Mapping[str, Any]],
    left_out: Collection[tuple[str, str, str]] = (),
) -> pd.DataFrame:
    """Return a row for each data set, operating point, norm, comparison and level; empty with nobody to compare.

    radii: columns of :mod:`bench.kept.rows`; methods: id -> {"method": registered name}, as in run.json; left_out:
    the (dataset, method, operating point) that are no opponents, see bench.report.tables.chance; FCNN itself always
    stays.
    Columns: dataset, operating_point, norm, comparison, level, fcnn, fcnn_radius, competitor, competitor_radius,
    factor, factor_lower, factor_upper (percentiles of a bootstrap over the test inputs), seeds, inputs. A factor is inf
    where only FCNN reaches the level, and missing where nobody does.
    """
    free = radii[radii["domain"] == "free"]
    places = zip(*(free[name] for name in ("dataset", "method", "operating_point")), strict=True)
    free = free[[place not in left_out or _is_ours(place[1], methods) for place in places]]
    rows: list[dict[str, Any]] = []
    for (dataset, point), own in free.groupby(["dataset", "operating_point"], sort=True):
        for norm in (norm for norm in NORMS if norm in set(own["norm"])):
            part = own[own["norm"] == norm]
            sizes = {"seeds": part["seed"].nunique(), "inputs": part["index"].nunique()}
            for row in _one_panel(Panel.of_rows(part), methods, f"{dataset}/{norm}"):
                rows.append({"dataset": dataset, "operating_point": point, "norm": norm, **row, **sizes})
    return pd.DataFrame(rows)


def _is_ours(method: str, methods: Mapping[str, Mapping[str, Any]]) -> bool:
    return family_and_slot(method, methods)[0] == OURS


def _one_panel(panel: Panel, methods: Mapping[str, Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    ours = np.array([_is_ours(method, methods) for method, _ in panel.names])
    rows = []
    for comparison, only in COMPARISONS.items():
        fcnn = ours & np.array([only in (None, certificate) for _, certificate in panel.names])
        if not fcnn.any() or ours.all():
            continue
        radius, winners = panel.best(fcnn, LEVELS)
        other, competitors = panel.best(~ours, LEVELS)
        lower, upper = _band(panel.radii[fcnn], panel.radii[~ours], derive_seed("claim", name))
        for place, level in enumerate(LEVELS):
            rows.append(
                {
                    "comparison": comparison,
                    "level": level,
                    "fcnn": winners[place],
                    "fcnn_radius": radius[place],
                    "competitor": competitors[place],
                    "competitor_radius": other[place],
                    "factor": _quotient(radius, other)[place],
                    "factor_lower": lower[place],
                    "factor_upper": upper[place],
                }
            )
    return rows


def _band(ours: np.ndarray, others: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return percentiles (L,) of the factor when the test inputs are drawn anew, the same ones for every curve."""
    rng = np.random.default_rng(seed)
    count = ours.shape[1]
    factors = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(count, size=count)
        best = [radius_at(radii[:, drawn], LEVELS).max(axis=0) for radii in (ours, others)]
        factors.append(_quotient(*best))
    tail = (1 - CONFIDENCE) / 2
    columns = np.array(factors).T
    lower, upper = (
        np.array([_percentile(column, share) for column in columns]) for share in (tail, 1 - tail)
    )
    return lower, upper


def _percentile(factors: np.ndarray, share: float) -> float:
    """Return a percentile of the factors that exist; NaN where no draw has one, as nobody reaches the level."""
    factors = factors[~np.isnan(factors)]
    # Infinite factors have ranks, but cannot be interpolated.
    return float(np.quantile(factors, share, method="inverted_cdf")) if len(factors) else math.nan


def _quotient(ours: np.ndarray, others: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return ours / others


def claim_text(
    claim: pd.DataFrame,
    methods: Mapping[str, Mapping[str, Any]],
    heading: str,
    left_out: Collection[tuple[str, str, str]] = (),
) -> str:
    """Return the claim as Markdown: a table for each operating point and comparison, radii cut, never rounded up."""
    lines = [
        f"# FCNN against the best competitor: {heading}",
        "",
        "Factor of FCNN's radius over the best other method's at equal certified accuracy, free domain. In brackets:",
        f"both radii and the competitor; then the {CONFIDENCE:.0%} band of the factor over the choice of test inputs.",
        "`p`: probabilistic competitor. `-`: nobody certifies that share; `only FCNN`: no competitor does.",
    ]
    for (point, comparison), table in claim.groupby(["operating_point", "comparison"], sort=False):
        lines += ["", f"## FCNN, {comparison}: {shown_point(point)}", ""]
        lines += ["| Data set | Norm | " + " | ".join(f"at {level:.0%}" for level in LEVELS) + " |"]
        lines += ["| --- | --- |" + " --- |" * len(LEVELS)]
        for (dataset, norm), row in table.groupby(["dataset", "norm"], sort=False):
            cells = [_cell(entry, methods) for entry in row.itertuples()]
            lines.append(f"| {dataset} | {NORM_NAMES[norm]} | {' | '.join(cells)} |")
    for dataset, method, point in sorted(left_out):
        title = methods.get(method, {}).get("title") or method
        what = "Near chance, or far below the others" if _is_ours(method, methods) else "No competitor"
        lines += ["", f"{what} on {dataset} ({shown_point(point)}): {title}."]
    if left_out:
        lines += [
            "",
            "A classifier near chance, or with less than half of what the best stands above it, is no competitor.",
        ]
    return "\n".join(lines) + "\n"


def _cell(entry: Any, methods: Mapping[str, Mapping[str, Any]]) -> str:
    if not entry.competitor:
        return f"only FCNN ({floor_digits(entry.fcnn_radius, 3):g})" if entry.fcnn else "-"
    facts = methods.get(entry.competitor, {})
    mark = " p" if facts.get("guarantee") == "probabilistic" else ""
    radii = f"{floor_digits(entry.fcnn_radius, 3):g} / {floor_digits(entry.competitor_radius, 3):g}"
    title = facts.get("title") or entry.competitor
    band = f"{shown_factor(entry.factor_lower)} to {shown_factor(entry.factor_upper)}"
    return f"**{shown_factor(entry.factor)}** ({radii}, {title}{mark}; {band})"


def write_claim(out: Path) -> pd.DataFrame:
    """Write the claim into a finished run's folder, three files; nothing where there is no one to compare with.

    Raises UsageError if ``out`` is not the output folder of a finished run.
    """
    run, radii, predictions = Store(out).read_run()
    left_out = near_chance(predictions)
    claim = central_claim(radii, run["methods"], left_out)
    if len(claim):
        configuration = run["configuration"]
        heading = configuration.get("title") or configuration.get("name") or "comparison"
        if notes := run_notes(configuration):
            heading += f" ({'; '.join(notes)})"
        Store(out).write_table(CLAIM, claim)
        text = claim_text(claim, run["methods"], heading, left_out)
        write_atomic(out / CLAIM_TEXT, text.encode())
        write_atomic(out / CLAIM_LATEX, markdown_latex(text).encode())
    return claim
