"""Which curve stands for its family in the main figure: at most one of each family and norm, never by test data."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.kept.rows import LINE
from bench.report.figures.identity import family_and_slot, registered

CHOICE = "one method per family, learned maps apart, by declared order (not by results): native radii first"
# Of a method's certificates, what the strongest is called; others follow by name.
STRONGEST = ("refined", "separable", "closed_form")
# Methods that stand beside the others of their family: a learned map is another idea than none, with its own opponents.
APART = {"fcnn_learned": ", learned map", "fcnn_union": ", learned map"}


def leaders(summary: pd.DataFrame, methods: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows of one data set's and operating point's summary that lead their family in their norm.

    Free domain only; a method that certifies nothing or is near chance never leads. Native radii come first, then the
    slot that the method declares, the order of the suite, and the strongest certificate.
    """
    rows = summary[(summary["domain"] == "free") & (summary["certified"] > 0) & ~summary["near_chance"]]
    if rows.empty:
        return rows
    order = list(dict.fromkeys([*methods, *summary["method"]]))
    identity = [family_and_slot(name, methods) for name in rows["method"]]
    # A method of no family is a family of its own.
    families = [
        f"{kind}{APART.get(registered(name, methods), '')}" if kind else name
        for (kind, _), name in zip(identity, rows["method"], strict=True)
    ]
    ranked = rows.assign(
        family=families,
        converted=~rows["native"].astype(bool),
        slot=[slot for _, slot in identity],
        place=[order.index(name) for name in rows["method"]],
        strength=[_strength(certificate) for certificate in rows["certificate"]],
    ).sort_values(["norm", "converted", "slot", "place", "strength", *LINE], kind="stable")
    return ranked.drop_duplicates(["norm", "family"])[[*summary.columns, "family"]]


def _strength(certificate: str) -> int:
    return STRONGEST.index(certificate) if certificate in STRONGEST else len(STRONGEST)
