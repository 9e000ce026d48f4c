"""The figures show every curve once, tell them apart without colour, and are the same files every time."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from tables import USUAL_FACTS

from bench.kept.rows import check_predictions, check_radii
from bench.kept.store import Store
from bench.plots import main
from bench.report.figures.curve_figure import curve_figure
from bench.report.figures.line_styles import legend_styles, log_axis
from bench.report.figures.run_figures import draw_figures, draw_run
from bench.report.figures.seconds_figure import seconds_figure
from bench.report.tables.curves import certified_curves, envelopes
from bench.report.tables.summary import summarise
from bench.running.provenance import RunClock, run_record

NAN = float("nan")
CONFIGURATION = {"title": "Costs $5, or $6", "reduced": "40 test inputs"}
METHODS = {"smoothing": {"title": "Gaussian smoothing"}, "fcnn": {"title": "Feature-convex"}}


def rows(method: str, certificate: str, norm: str, **change: object) -> pd.DataFrame:
    """Rows of 40 inputs on one curve, all certified."""
    radius = np.random.default_rng(len(method + certificate)).lognormal(size=40)
    facts = {
        "dataset": "a:b",
        "method": method,
        "certificate": certificate,
        "norm": norm,
        **USUAL_FACTS,
        "seed": 0,
        "index": range(40),
        "predicted": 1,
        "outcome": "certified",
        "radius": radius,
        "seconds": 0.01,
        "norms_in_call": 1,
    }
    return pd.DataFrame({**facts, **change})


def radii_frame() -> pd.DataFrame:
    """Two methods, four curves; one is converted, one in the box, one does not apply in l1; nothing in linf."""
    nothing = {"outcome": "unsupported", "radius": NAN}
    frames = [rows("fcnn", "closed_form", norm) for norm in ("l1", "l2")]
    frames += [rows("fcnn", "in_domain", norm, domain="box") for norm in ("l1", "l2")]
    frames += [rows("smoothing", "gaussian", norm, native=norm == "l2") for norm in ("l1", "l2")]
    frames += [rows("other", "lipschitz", "l1", **nothing), rows("other", "lipschitz", "l2")]
    frames += [rows(name, "x", "linf", outcome="unknown", radius=NAN) for name in ("fcnn", "other")]
    return check_radii(pd.concat(frames))


def predictions_frame() -> pd.DataFrame:
    frames = [
        pd.DataFrame({"index": range(4), "label": [1, 1, 0, 0], "predicted": [1, 1, 0, 1]}).assign(
            dataset="a:b", method=method, operating_point="balanced", score=0.1, seed=0, seconds=0.0
        )
        for method in ("fcnn", "smoothing", "other")
    ]
    return check_predictions(pd.concat(frames))


@pytest.fixture(scope="module")
def drawing() -> tuple[matplotlib.figure.Figure, dict]:
    radii = radii_frame()
    summary = summarise(radii, predictions_frame())
    styles = legend_styles(summary, METHODS)
    none = certified_curves(radii).iloc[:0]
    return curve_figure(certified_curves(radii), none, summary, styles, "heading"), styles


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(tmp_path_factory.mktemp("run"))
    radii, predictions = radii_frame(), predictions_frame()
    for method in ("fcnn", "smoothing", "other"):
        pick = [frame[frame["method"] == method] for frame in (radii, predictions)]
        store.cell("a:b", method, 0).write("key", *pick)
    store.merge(store.cell("a:b", method, 0) for method in ("fcnn", "smoothing", "other"))
    store.write_run(run_record(CONFIGURATION, METHODS, radii, RunClock()))
    return store.out


def test_a_panel_for_each_norm_with_a_certificate_and_a_line_for_each_curve(drawing: tuple) -> None:
    figure, _ = drawing
    assert len(figure.axes) == 4  # l1 and l2, linear and logarithmic; nothing is certified in linf
    assert [len(ax.lines) for ax in figure.axes] == [3, 4, 3, 4]
    assert [ax.get_xscale() for ax in figure.axes] == ["linear", "linear", "log", "log"]
    assert r"$\ell_\infty$" in figure.get_suptitle().splitlines()[1]
    titles = [ax.get_title() for ax in figure.axes]
    assert "not certified in this norm: other" in titles[0] and "not certified" not in titles[1]


def test_lines_are_the_curves(drawing: tuple) -> None:
    figure, styles = drawing
    curves = certified_curves(radii_frame())
    style = styles["smoothing", "gaussian", "free"]
    line = next(line for line in figure.axes[1].lines if line.get_marker() == style.marker)
    curve = curves[(curves["norm"] == "l2") & (curves["method"] == "smoothing")]
    shown = dict(zip(*line.get_data(), strict=True))
    expected = dict(zip(curve["radius"], curve["certified_accuracy"], strict=True))
    assert all(expected[radius] == share for radius, share in shown.items())
    assert {radius for radius, share in expected.items() if share > 0} <= shown.keys()


def test_converted_curves_have_hollow_markers_only_where_converted(drawing: tuple) -> None:
    figure, styles = drawing
    style = styles["smoothing", "gaussian", "free"]
    faces = [
        line.get_markerfacecolor()
        for ax in figure.axes[:2]
        for line in ax.lines
        if line.get_marker() == style.marker
    ]
    assert faces == ["white", style.color]


def test_legend_follows_the_suite_and_tells_clean_accuracy_and_box(drawing: tuple) -> None:
    figure, _ = drawing
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [label.split(";")[0] for label in labels] == [
        "Gaussian smoothing",
        "Feature-convex, closed form",
        "Feature-convex, x",
        "Feature-convex, in domain (box)",
        "other, lipschitz",
        "other, x",
    ]
    assert all(label.endswith("clean 100.0 / 50.0 %") for label in labels)


def test_curves_differ_without_colour() -> None:
    """Thirty curves: no two share marker and dashes, and no box curve has the dashes of a free one."""
    summary = pd.concat(
        [
            summarise(check_radii(rows(f"m{n}", "c", "l2", domain=domain)), predictions_frame())
            for n in range(15)
            for domain in ("free", "box")
        ]
    )
    styles = legend_styles(summary, {})
    assert len({(style.marker, style.dashes) for style in styles.values()}) == 30
    assert len({(style.color, style.dashes) for style in styles.values()}) == 30
    by_domain = [
        {style.dashes for key, style in styles.items() if key[2] == domain} for domain in ("free", "box")
    ]
    assert not by_domain[0] & by_domain[1]


def test_colours_differ_when_methods_outnumber_the_palette() -> None:
    curves = [("first", "closed_form"), ("first", "refined"), *((f"m{place:02}", "c") for place in range(12))]
    summary = summarise(
        check_radii(pd.concat([rows(method, certificate, "l2") for method, certificate in curves])),
        predictions_frame(),
    )
    styles = legend_styles(summary, {})
    assert len({style.color for style in styles.values()}) == len(curves)


def test_redrawing_gives_the_same_files_and_changes_no_global_setting(finished_run: Path) -> None:
    before = dict(matplotlib.rcParams)
    written = draw_run(finished_run)
    assert dict(matplotlib.rcParams) == before
    # On so few test inputs everybody is near chance, so nobody leads.
    assert [path.name for path in written] == [
        f"a%3Ab_{what}.{kind}"
        for what in ("certified_accuracy", "seconds", "certified_roc", "median_radius")
        for kind in ("png", "pdf")
    ]
    first = [path.read_bytes() for path in written]
    assert main([str(finished_run)]) == 0
    assert [path.read_bytes() for path in written] == first


def test_a_folder_without_a_run_is_bad_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(tmp_path) in error and "bench.compare --out" in error


def test_a_run_in_which_nothing_was_certified_still_says_so(tmp_path: Path) -> None:
    failed = rows("fcnn", "c", "l2", outcome="error", radius=NAN, predicted=NAN, seconds=0.0, reason="broken")
    run = {"configuration": {}, "methods": {}}
    files = draw_figures(
        run, check_radii(failed), predictions_frame().iloc[:0], tmp_path, Store(tmp_path).read_validation()
    )
    assert [path.suffix for path in files] == [".png", ".pdf"]  # no chart of seconds: nothing was timed


def test_panels_with_infinite_radii_only_are_drawn(tmp_path: Path) -> None:
    everywhere = check_radii(rows("fcnn", "c", "l2", domain="box", radius=float("inf")))
    summary = summarise(everywhere, predictions_frame())
    curves = certified_curves(everywhere)
    figure = curve_figure(curves, curves.iloc[:0], summary, legend_styles(summary, {}), "heading")
    figure.savefig(tmp_path / "x.png")
    assert set(figure.axes[0].lines[0].get_ydata()) == {1.0}


def test_seconds_are_drawn_per_call_and_only_equal_calls_look_equal(drawing: tuple) -> None:
    _, styles = drawing
    summary = summarise(radii_frame(), predictions_frame())
    ax = seconds_figure(summary, styles, "heading").axes[0]
    assert ax.get_yticklabels()[0].get_text() == "Gaussian smoothing"
    assert {value for line in ax.lines for value in line.get_xdata()} == {0.01}
    assert len(ax.lines) == len(styles)  # norms of one call are one marker
    one = summary["method"] == "fcnn"
    figure = seconds_figure(summary.assign(norms_in_call=np.where(one, 1, 3)), styles, "heading")
    markers = {line.get_marker() for line in figure.axes[0].lines}
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert markers == {"o", "^"} and labels == ["a call for one norm", "one call for 3 norms"]


@pytest.mark.parametrize("limits", [(0.9, 1.2), (1e-2, 1.0), (1e-5, 1e3)])
def test_logarithmic_axes_have_a_few_plain_numbers(limits: tuple[float, float]) -> None:
    figure = matplotlib.figure.Figure()
    ax = figure.subplots()
    ax.set_xlim(*limits)
    log_axis(ax)
    figure.canvas.draw()
    labels = [label.get_text() for label in ax.get_xticklabels(which="both") if label.get_text()]
    assert 1 <= len(labels) <= 14 and all(float(label) > 0 for label in labels)


def test_a_family_gets_its_envelope_and_a_line_in_the_legend() -> None:
    radii = radii_frame()
    summary = summarise(radii, predictions_frame())
    curves = certified_curves(radii)
    best = envelopes(curves, {"fcnn": "both", "smoothing": "both"})
    styles = legend_styles(summary, METHODS)
    plain = curve_figure(curves, curves.iloc[:0], summary, styles, "heading")
    figure = curve_figure(curves, best, summary, styles, "heading")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("both: best at each radius" in label for label in labels)
    groups = best[best["norm"] == "l1"].groupby(["method", "domain"]).ngroups
    assert len(figure.axes[0].lines) == len(plain.axes[0].lines) + groups
