"""The main figure: one curve per family and norm, chosen without its results, no text below 6 pt."""

import pandas as pd
import pytest
from matplotlib.text import Text
from test_plots import predictions_frame, radii_frame

from bench.report.figures.leaders import leaders
from bench.report.figures.leaders_figure import leaders_figure
from bench.report.figures.run_figures import leader_row
from bench.report.tables.curves import certified_curves
from bench.report.tables.summary import summarise

METHODS = {
    "crown": {"method": "crown"},
    "ibp": {"method": "ibp"},
    "fcnn": {"method": "fcnn"},
    "learned_l2": {"method": "fcnn_learned"},
    "theirs": {"method": "theirs"},
}


def table(*rows: tuple) -> pd.DataFrame:
    names = ("method", "certificate", "domain", "norm", "native", "certified", "near_chance", "median_radius")
    return pd.DataFrame(rows, columns=names)


def test_one_leader_per_family_and_norm_native_first_and_never_by_its_radius() -> None:
    summary = table(
        ("crown", "c", "free", "l1", False, 9, False, 9.0),
        ("ibp", "c", "free", "l1", True, 9, False, 1.0),
        ("crown", "c", "free", "l2", True, 9, False, 1.0),
        ("ibp", "c", "free", "l2", True, 9, False, 9.0),
        ("fcnn", "closed_form", "free", "l2", True, 9, False, 9.0),
        ("fcnn", "refined", "free", "l2", True, 9, False, 1.0),
        ("fcnn", "refined", "box", "l2", True, 9, False, 9.0),
        ("learned_l2", "closed_form", "free", "l2", True, 9, False, 9.0),
        ("theirs", "c", "free", "l2", True, 9, False, 1.0),
    )
    found = {
        (row.norm, row.family): (row.method, row.certificate)
        for row in leaders(summary, METHODS).itertuples()
    }
    assert found == {
        ("l1", "bounds"): ("ibp", "c"),
        ("l2", "bounds"): ("crown", "c"),
        ("l2", "feature_convex"): ("fcnn", "refined"),
        ("l2", "feature_convex, learned map"): ("learned_l2", "closed_form"),
        ("l2", "theirs"): ("theirs", "c"),
    }


@pytest.mark.parametrize("change", [{"near_chance": True}, {"certified": 0}])
def test_who_has_not_learned_or_certifies_nothing_never_leads(change: dict) -> None:
    summary = table(
        ("crown", "c", "free", "l2", True, 9, False, 9.0), ("ibp", "c", "free", "l2", True, 9, False, 1.0)
    )
    first = summary["method"] == "crown"
    for name, value in change.items():
        summary.loc[first, name] = value
    assert list(leaders(summary, METHODS)["method"]) == ["ibp"]


def test_panels_show_the_leaders_and_no_text_is_too_small_to_print() -> None:
    radii = radii_frame()
    summary = summarise(radii, predictions_frame()).assign(near_chance=False)
    row = leader_row("a:b", "balanced", certified_curves(radii), summary, {})
    figure = leaders_figure([row, row], "heading")
    panels = [ax for ax in figure.axes if ax.axison]
    assert [len(ax.lines) for ax in panels] == [2, 3, 0] * 2
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 6
    assert 5.5 <= figure.get_size_inches()[0] <= 7
