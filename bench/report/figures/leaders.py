"""Which curve stands for its family in the main figure: at most one of each family and norm, never by test data."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.kept.rows import LINE
from bench.report.figures.identity import apart, family_and_slot

BY_VALIDATION = (
    "of each family, learned maps apart, the method with the largest median radius on validation inputs, native radii "
    "first"
)
BY_ORDER = "one method per family, learned maps apart, by declared order (not by results): native radii first"
# Of a method's certificates, what the strongest is called; others follow by name.
STRONGEST = ("refined", "separable", "closed_form")


def leaders(
    summary: pd.DataFrame, methods: Mapping[str, Mapping[str, Any]], validation: pd.DataFrame
) -> pd.DataFrame:
    """Return the rows of one data set's and operating point's summary that lead their family in their norm.

    Free domain only; a method that certifies nothing or is near chance never leads. Native radii come first, then the
    larger median radius on validation inputs, where every candidate of the family has one (``Store.read_validation``;
    runs of before have none), then the slot that the method declares, the order of the suite, and the strongest
    certificate. Columns added: family, and validated, whether it was chosen by its radius on validation inputs.
    """
    rows = summary[(summary["domain"] == "free") & (summary["certified"] > 0) & ~summary["near_chance"]]
    if rows.empty:
        return rows
    order = list(dict.fromkeys([*methods, *summary["method"]]))
    identity = [family_and_slot(name, methods) for name in rows["method"]]
    measures = validation.groupby(["method", "norm"])["median_radius"].mean()
    ranked = rows.assign(
        # A method of no family is a family of its own.
        family=[
            f"{kind}{apart(name, methods)}" if kind else name
            for (kind, _), name in zip(identity, rows["method"], strict=True)
        ],
        converted=~rows["native"].astype(bool),
        measure=measures.reindex(pd.MultiIndex.from_frame(rows[["method", "norm"]])).to_numpy(dtype=float),
        slot=[slot for _, slot in identity],
        place=[order.index(name) for name in rows["method"]],
        strength=[_strength(certificate) for certificate in rows["certificate"]],
    )
    rivals = ranked.groupby(["norm", "converted", "family"])
    ranked["validated"] = rivals["measure"].transform(lambda measure: measure.notna().all())
    ranked["measure"] = ranked["measure"].where(ranked["validated"], 0.0)
    ranked = ranked.sort_values(
        ["norm", "converted", "measure", "slot", "place", "strength", *LINE],
        ascending=[True, True, False, True, True, True, *[True] * len(LINE)],
        kind="stable",
    )
    return ranked.drop_duplicates(["norm", "family"])[[*summary.columns, "family", "validated"]]


def _strength(certificate: str) -> int:
    return STRONGEST.index(certificate) if certificate in STRONGEST else len(STRONGEST)
