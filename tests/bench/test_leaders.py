"""The main figure: one curve per family and norm, chosen without its results, no text below 6 pt."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from test_plots import predictions_frame, radii_frame

from bench.report.figures.curve_names import NamedCurve, name_curves
from bench.report.figures.identity import READABLE, contrast, family_color, readable, shade
from bench.report.figures.leaders import leaders
from bench.report.figures.leaders_figure import leaders_figure
from bench.report.figures.looks import house_look, save_figure
from bench.report.figures.radius_axis import knee_of, linear_radii
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


NOTHING = pd.DataFrame(columns=["method", "norm", "median_radius"])


def measures(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(NOTHING.columns))


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
        for row in leaders(summary, METHODS, NOTHING).itertuples()
    }
    assert found == {
        ("l1", "bounds"): ("ibp", "c"),
        ("l2", "bounds"): ("crown", "c"),
        ("l2", "feature_convex"): ("fcnn", "refined"),
        ("l2", "feature_convex, learned map"): ("learned_l2", "closed_form"),
        ("l2", "theirs"): ("theirs", "c"),
    }


def test_validation_data_choose_where_every_native_rival_was_measured() -> None:
    summary = table(
        ("crown", "c", "free", "l2", True, 9, False, 9.0),
        ("ibp", "c", "free", "l2", True, 9, False, 1.0),
        ("fcnn", "closed_form", "free", "l2", True, 9, False, 9.0),
        ("fcnn", "refined", "free", "l2", True, 9, False, 1.0),
    )
    known = measures(("crown", "l2", 0.1), ("ibp", "l2", 0.2), ("ibp", "l2", 0.4), ("fcnn", "l2", 1.0))
    found = leaders(summary, METHODS, known).set_index("family")
    assert found.loc["bounds", "method"] == "ibp" and found["validated"].all()
    # A method's measure is of its cheapest certificate, and its strongest one is shown.
    assert found.loc["feature_convex", "certificate"] == "refined"
    # A rival that was not measured (a cell of before) may be better: then the declared order decides.
    found = leaders(summary, METHODS, known[known["method"] != "crown"]).set_index("family")
    assert found.loc["bounds", "method"] == "crown" and not found.loc["bounds", "validated"]
    # A converted radius never stands before a native one, whatever was measured.
    summary.loc[summary["method"] == "ibp", "native"] = False
    assert "ibp" not in set(leaders(summary, METHODS, known)["method"])


@pytest.mark.parametrize("change", [{"near_chance": True}, {"certified": 0}])
def test_who_has_not_learned_or_certifies_nothing_never_leads(change: dict) -> None:
    summary = table(
        ("crown", "c", "free", "l2", True, 9, False, 9.0), ("ibp", "c", "free", "l2", True, 9, False, 1.0)
    )
    first = summary["method"] == "crown"
    for name, value in change.items():
        summary.loc[first, name] = value
    assert list(leaders(summary, METHODS, NOTHING)["method"]) == ["ibp"]


def test_panels_show_the_leaders_and_no_text_is_too_small_to_print() -> None:
    radii = radii_frame()
    summary = summarise(radii, predictions_frame()).assign(near_chance=False)
    row = leader_row("a:b", "balanced", certified_curves(radii), summary, {}, NOTHING)
    figure = leaders_figure([row, row], "heading")
    panels = [ax for ax in figure.axes if ax.axison]
    assert [len(ax.lines) for ax in panels] == [2, 3, 0] * 2
    check_print(figure)


def check_print(figure: Figure) -> None:
    """No text is too small, past an edge or upon a name; the page is as wide as a paper's."""
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 6
    assert 5.5 <= figure.get_size_inches()[0] <= 7
    page = figure.bbox.padded(1)
    for text in texts:
        box = text.get_window_extent()
        assert page.contains(box.x0, box.y0) and page.contains(box.x1, box.y1), text.get_text()
    for ax in (ax for ax in figure.axes if ax.axison):
        check_names(ax)


def check_names(ax: Axes) -> None:
    names = [text for text in ax.texts if text.get_bbox_patch()]
    inside = ax.get_window_extent().padded(1)
    for name in names:
        box = name.get_window_extent()
        assert inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1)
        assert not any(other is not name and overlap(box, other.get_window_extent()) for other in names)


def overlap(one: Bbox, other: Bbox) -> bool:
    shared = Bbox.intersection(one, other)
    return shared is not None and shared.width > 1 and shared.height > 1


def test_names_of_crowded_curves_stay_in_the_panel_and_apart() -> None:
    figure = Figure(figsize=(2.2, 1.8))
    ax = figure.subplots()
    ax.set(xlim=(0, 1), ylim=(0, 1))
    x = np.linspace(0, 1, 50)
    curves = [NamedCurve(f"A long name, number {k}", x, np.clip(1 - x - k / 50, 0, 1), {}) for k in range(5)]
    figure.draw_without_rendering()
    name_curves(ax, curves, 6)
    assert [text.get_text() for text in ax.texts] == [curve.name for curve in curves]
    check_names(ax)


def crowded(*curves: NamedCurve) -> Figure:
    """Return a panel of a third of a page, drawn at another resolution than its names were placed at."""
    with house_look():
        figure = Figure(figsize=(2.2, 1.8))
        ax = figure.subplots()
        ax.set(xlim=(0, 1), ylim=(-0.02, 1.03))
        figure.draw_without_rendering()
        name_curves(ax, curves, 6)
        figure.dpi = 200
        figure.draw_without_rendering()
    return figure


STAIRS = np.linspace(0, 1, 50)


def test_names_stay_in_the_panel_at_every_resolution_and_long_ones_are_not_cut() -> None:
    long = "Branch and bound (α,β-CROWN style)"
    falls = [NamedCurve(f"{long} {k}", STAIRS, np.clip(1 - STAIRS - k / 3, 0, 1), {}) for k in range(3)]
    (ax,) = crowded(*falls).axes
    assert [text.get_text().replace("\n", " ") for text in ax.texts] == [f"{long} {k}" for k in range(3)]
    check_names(ax)


def test_curves_along_an_edge_and_points_that_stand_alone_have_their_names_beside_them_and_apart() -> None:
    flat = [NamedCurve(f"flat {k}", STAIRS, np.zeros(50), {}) for k in range(2)]
    points = (np.array([0.8, 0.1]), np.array([0.9, 0.3]))
    alone = NamedCurve("two points", *points, {}, marks=points, joined=False)
    (ax,) = crowded(*flat, alone).axes
    check_names(ax)
    *level, name = [text.get_window_extent() for text in ax.texts]
    bottom = ax.transData.transform((0, 0))[1]
    assert all(box.y0 - bottom < 30 * 200 / 72 for box in level)
    near = [
        name.padded(8 * 200 / 72).contains(*ax.transData.transform(point))
        for point in zip(*points, strict=True)
    ]
    assert sum(near) == 1


def test_names_of_pale_curves_can_be_read() -> None:
    pale = shade(family_color("bounds"), 0.46)
    assert contrast(pale) < READABLE <= contrast(readable(pale))
    (ax,) = crowded(NamedCurve("pale", STAIRS, 1 - STAIRS, {"color": pale})).axes
    assert contrast(to_rgb(ax.texts[0].get_color())) >= READABLE
    assert contrast((0, 0, 0)) == pytest.approx(21) and readable((0, 0, 0)) == (0, 0, 0)


def test_the_table_of_recalls_has_whole_names_that_touch_nothing() -> None:
    radii = radii_frame()
    summary = summarise(radii, predictions_frame()).assign(near_chance=False)
    title = "Branch and bound (α,β-CROWN style)"
    methods = {name: {"title": title} for name in summary["method"].unique()}
    row = leader_row("a", "balanced", certified_curves(radii), summary, methods, NOTHING)
    with house_look():
        figure = leaders_figure([row], "heading")
        figure.draw_without_rendering()
    texts = figure.axes[-1].texts
    assert [text.get_text() for text in texts if "/" not in text.get_text()] == [
        row.styles[key].name for key in row.shown
    ]
    boxes = [text.get_window_extent() for text in texts]
    assert not any(overlap(one, other) for one, other in combinations(boxes, 2))


def test_a_far_curve_does_not_squeeze_the_others_and_nothing_is_cut() -> None:
    assert knee_of([1.0, 2.0]) is None and knee_of([0.0, 5.0]) is None and knee_of([]) is None
    figure = Figure()
    near, far = figure.subplots(1, 2)
    assert not linear_radii(near, [1.0, 2.0]) and linear_radii(far, [1.0, 0.5, 10.0])
    assert near.get_xlim()[1] >= 2 and far.get_xlim()[1] >= 10
    figure.draw_without_rendering()
    places = far.transAxes.inverted().transform(far.transData.transform([(r, 0) for r in (0, 1, 2, 10)]))[
        :, 0
    ]
    assert places[1] > 0.6 and (np.diff(places) > 0).all() and places[3] <= 1
    assert len(far.lines) == 1  # the line at which the scale changes


def test_text_in_the_pdf_can_be_edited(tmp_path: Path) -> None:
    with house_look():
        figure = Figure(figsize=(2, 1))
        figure.text(0.5, 0.5, "edit me")
        save_figure(figure, tmp_path / "figure")
    content = (tmp_path / "figure.pdf").read_bytes()
    # A TrueType font file; glyphs drawn as shapes would be Type 3.
    assert b"/FontFile2" in content and b"/Type3" not in content
    with Image.open(tmp_path / "figure.png") as image:
        assert image.mode == "P"
