"""Figures as a page prints them: no text below 6 pt, curves told apart, PDF files that hold what was drawn."""

import dataclasses
import io
import re
import zlib
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from fontTools.ttLib import TTFont
from matplotlib.figure import Figure
from matplotlib.text import Text
from report_runs import METHODS, predictions_of, radii_of
from test_identity import VISION, lab

from bench.basics.files import unseal
from bench.data import load_dataset
from bench.experiments import (
    approximation,
    decision_regions,
    digit_pairs,
    feature_map,
    malware_families,
    noise_levels,
    regulariser,
    runtime,
    separability_data,
    separability_random,
    training_fit,
)
from bench.kept.points import POINT
from bench.kept.rows import LINE, check_predictions, check_radii
from bench.kept.store import Store
from bench.report.figures.bracket_figure import bracket_figure
from bench.report.figures.curve_figure import curve_figure
from bench.report.figures.leaders import leaders
from bench.report.figures.leaders_figure import leaders_figure
from bench.report.figures.line_styles import in_seconds, legend_styles, log_axis
from bench.report.figures.looks import PAGE, PAGE_HEIGHT, SMALL, house_look
from bench.report.figures.roc_figure import Thresholds, certified_roc_figure, median_figure
from bench.report.figures.roc_leaders_figure import roc_leaders_figure
from bench.report.figures.run_figures import leader_row
from bench.report.figures.seconds_figure import seconds_figure
from bench.report.figures.small_pdf import small_pdf
from bench.report.tables.curves import certified_curves
from bench.report.tables.summary import summarise
from fcnn import ConvexMLP, FeatureConvexClassifier

RESULTS = Path(__file__).parents[2] / "results"
EXPERIMENTS = RESULTS / "paper_cpu" / "experiments"
HEADING = "Everything a report shows: tiny\nreduced: 30 inputs"


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    return check_radii(pd.concat(radii_of("tiny"))), check_predictions(predictions_of("tiny"))


def run_figure(kind: str) -> Figure:
    """One kind of figure of a run, of drawn rows."""
    radii, predictions = tables()
    curves, summary = certified_curves(radii), summarise(radii, predictions)
    styles = legend_styles(summary, METHODS)
    row = leader_row("tiny", "balanced", curves, summary, METHODS, Store(Path()).read_validation())
    shown = Thresholds.of_run(predictions, None, summary)
    certified = {"certified": [0.1, 0.2], "adversarial": [0.2, 0.3]}
    bracket = pd.DataFrame({"method": "fcnn", "domain": "free", "norm": ["l1", "l2"], **certified})
    draw = {
        "certified_accuracy": lambda: curve_figure(curves, curves.iloc[:0], summary, styles, HEADING),
        "leaders": lambda: leaders_figure([row, row], HEADING),
        "seconds": lambda: seconds_figure(summary, styles, HEADING),
        "certified_roc": lambda: certified_roc_figure(shown, styles, HEADING),
        "median_radius": lambda: median_figure(shown, styles, HEADING),
        "certified_roc_leaders": lambda: roc_leaders_figure(shown, row, HEADING),
        "bracket": lambda: bracket_figure(bracket, {"fcnn": "Feature-convex network"}, HEADING),
    }
    return draw[kind]()


def published(experiment: str) -> pd.DataFrame:
    return pd.read_csv(EXPERIMENTS / experiment / "rows.csv")


def certified(experiment: str) -> pd.DataFrame:
    return Store(EXPERIMENTS / experiment).read_run()[1]


def regions() -> Figure:
    torch.manual_seed(0)
    models = {
        name: FeatureConvexClassifier(ConvexMLP(2, (4,)), threshold=-1.0) for name in decision_regions.MAPS
    }
    rows = certified("decision_regions")
    return decision_regions.figure(rows, load_dataset("circles"), models, HEADING, 0)


def malware() -> pd.DataFrame:
    names = np.repeat([f"Family.{n}" for n in range(24)] + [malware_families.HARMLESS], 3)
    radii = {f"radius_{norm}": np.linspace(0, 1, len(names)) for norm in ("l1", "l2", "linf")}
    return pd.DataFrame({"family": names, "predicted": names, **radii})


def of_suite(experiment: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    _, radii, predictions = Store(EXPERIMENTS / experiment).read_run()
    return radii, summarise(radii, predictions)


def strengths(summary: pd.DataFrame) -> pd.DataFrame:
    return summary.assign(strength=summary["method"].str.removeprefix("weight_").astype(float))


DRAWN = {
    **{f"run/{kind}": partial(run_figure, kind) for kind in (
        "certified_accuracy", "leaders", "seconds", "certified_roc", "median_radius", "certified_roc_leaders", "bracket"
    )},
    "approximation": lambda: approximation.figure(published("approximation"), HEADING),
    "decision_regions": regions,
    "digit_pairs": lambda: digit_pairs.figure(published("digit_pairs"), HEADING),
    "feature_map": lambda: feature_map.figure(*of_suite("feature_map"), HEADING),
    "malware_families": lambda: malware_families.confusion_figure(malware(), HEADING),
    "malware_radii": lambda: malware_families.radii_figure(malware(), HEADING),
    "noise_levels": lambda: noise_levels.figure(certified("noise_levels"), HEADING, 0.75),
    "regulariser": lambda: regulariser.figure(strengths(of_suite("regulariser")[1]), HEADING),
    "runtime": lambda: runtime.figure(
        published("runtime").assign(norms_in_call=3),
        {"hardware": {"gpus": ["One"]}, "title": "Suite", "reduced": ""},
    ),
    "separability_data": lambda: separability_data.figure(published("separability_data"), HEADING),
    "separability_random": lambda: separability_random.figure(published("separability_random"), HEADING),
    "training_fit": lambda: training_fit.figure(published("training_fit"), HEADING),
}  # fmt: skip


def printed_sizes(figure: Figure) -> dict[str, float]:
    """Every text that is seen -> its size in points where the figure is a page wide at most."""
    for ax in figure.axes:
        ax.get_xticklabels(which="both"), ax.get_yticklabels(which="both")  # written when they are asked for
    scale = min(1.0, PAGE / figure.get_figwidth())
    return {
        text.get_text(): scale * text.get_fontsize()
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip()
    }


SLOW = pytest.mark.slow  # figures of experiments are redrawn seldom


@pytest.mark.parametrize(
    "kind", [kind if kind.startswith("run/") else pytest.param(kind, marks=SLOW) for kind in DRAWN]
)
def test_no_text_is_below_six_points_in_print(kind: str) -> None:
    with house_look():
        sizes = printed_sizes(DRAWN[kind]())
    assert len(sizes) > 5
    assert {text: size for text, size in sizes.items() if size < SMALL - 1e-9} == {}


def test_each_experiments_figure_is_measured() -> None:
    assert {path.name for path in EXPERIMENTS.iterdir()} <= set(DRAWN)


def test_a_text_that_is_printed_too_small_is_found() -> None:
    figure = Figure(figsize=(2 * PAGE, 2))
    figure.text(0.5, 0.5, "small", fontsize=11)
    assert printed_sizes(figure) == {"small": 5.5}


@pytest.mark.parametrize("name", ["run/certified_roc", "run/certified_accuracy"])
def test_no_legend_lies_on_a_panel_or_its_title(name: str) -> None:
    with house_look():
        figure = DRAWN[name]()
        figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    for ax in figure.axes:
        assert not ax.axison or not box.overlaps(ax.get_tightbbox()), ax.get_title()
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1


def test_a_bracket_of_many_methods_is_a_page_high_and_its_legend_hides_nothing() -> None:
    names = [f"Branch and bound (α,β-CROWN style) {k}" for k in range(18)]
    rows = [
        {"method": name, "domain": "free", "norm": norm, "certified": 0.1, "adversarial": 0.2}
        for name in names
        for norm in ("l1", "l2")
    ]
    with house_look():
        figure = bracket_figure(pd.DataFrame(rows), dict(zip(names, names, strict=True)), HEADING)
        figure.draw_without_rendering()
    assert figure.get_figheight() <= PAGE_HEIGHT
    box = figure.legends[0].get_window_extent()
    assert not any(box.overlaps(ax.get_tightbbox()) for ax in figure.axes)
    labels = [ax.yaxis.label.get_window_extent() for ax in figure.axes[::2]]
    assert not any(upper.overlaps(lower) for upper, lower in pairwise(labels))


@pytest.mark.parametrize("others", [106, 974, 1000, 20_000])
@pytest.mark.parametrize("draw", ["median", "rate"])
def test_rates_stand_apart_from_each_other(others: int, draw: str) -> None:
    _, predictions = tables()
    summary = summarise(*tables())
    shown = dataclasses.replace(Thresholds.of_run(predictions, None, summary), others=others)
    styles = legend_styles(summary, METHODS)
    with house_look():
        figure = (median_figure if draw == "median" else certified_roc_figure)(shown, styles, HEADING)
        figure.draw_without_rendering()
    for ax in (ax for ax in figure.axes if ax.axison):
        low, high = sorted(ax.get_xlim())
        ticks = [tick for tick in ax.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
        boxes = sorted((tick.label1.get_window_extent() for tick in ticks), key=lambda box: box.x0)
        assert len(boxes) >= 4
        # An n's width between two.
        assert all(one.x1 + 0.5 * SMALL < other.x0 for one, other in pairwise(boxes))


@pytest.mark.parametrize("limits", [(1e-4, 0.45), (3e-4, 30.0), (0.05, 5.0), (1e-5, 1e3)])
def test_numbers_of_logarithmic_axes_stand_apart(limits: tuple[float, float]) -> None:
    with house_look():
        figure = Figure(figsize=(PAGE, 2), layout="constrained")
        for ax in figure.subplots(1, 3):
            ax.set_xlim(*limits)
            log_axis(ax)
            ax.tick_params(labelsize=SMALL, pad=1)
        figure.draw_without_rendering()
    ticks = [tick for tick in ax.xaxis.get_major_ticks() if limits[0] <= tick.get_loc() <= limits[1]]
    boxes = [tick.label1.get_window_extent() for tick in ticks if tick.label1.get_text()]
    assert len(boxes) >= 2 and all(one.x1 + 1 < other.x0 for one, other in pairwise(boxes))


def test_seconds_have_units_and_a_power_of_ten_at_least() -> None:
    summary = summarise(*tables()).assign(seconds_per_certificate=5e-5)
    styles = legend_styles(summary, METHODS)
    with house_look():
        figure = seconds_figure(summary, styles, HEADING)
        figure.draw_without_rendering()
    (ax,) = figure.axes
    low, high = ax.get_xlim()
    assert high / low >= 9.99 and low < 5e-5 < high
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert "50 µs" in labels and not any("e-" in label for label in labels)
    assert [in_seconds(value) for value in (2.0, 0.03, 1e-3, 2e-7)] == ["2 s", "30 ms", "1 ms", "0.2 µs"]


def test_a_legend_says_once_what_many_methods_share() -> None:
    radii, predictions = tables()
    curves = certified_curves(radii)
    for doubtful in (True, False):
        summary = summarise(radii, predictions).assign(near_chance=doubtful)
        with house_look():
            figure = curve_figure(curves, curves.iloc[:0], summary, legend_styles(summary, METHODS), HEADING)
        (legend,) = figure.legends
        assert ("(?): near chance" in legend.get_title().get_text()) == doubtful
        assert all(("(?)" in text.get_text()) == doubtful for text in legend.get_texts())


PUBLISHED = [path.parent for path in sorted(RESULTS.glob("*/summary.csv"))]


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_published_curves_are_told_apart_without_colour_and_the_main_ones_with_any_colours(
    folder: Path,
) -> None:
    run, summary = unseal((folder / "run.json").read_bytes()), pd.read_csv(folder / "summary.csv")
    for name, usual in ((POINT, "balanced"), ("near_chance", False)):
        summary[name] = summary.get(name, usual)
    for _, panel in summary.groupby(["dataset", POINT]):
        styles = legend_styles(panel, run["methods"])
        assert len({(style.marker, style.dashes) for style in styles.values()}) == len(styles)
        best = leaders(panel, run["methods"], Store(Path()).read_validation())
        for _, rows in best.groupby("norm") if len(best) else ():
            looks = [styles[tuple(key)] for key in rows[LINE].to_numpy().tolist()]
            for (one, other), vision in ((pair, name) for pair in combinations(looks, 2) for name in VISION):
                assert np.linalg.norm(lab(one.color, vision) - lab(other.color, vision)) >= 5, (
                    one,
                    other,
                    vision,
                )


def test_a_smaller_pdf_has_the_curve_within_a_tenth_of_a_point_and_everything_else_as_it_was() -> None:
    figure = Figure(figsize=(3, 2))
    x = np.linspace(0, 1, 400)
    ax = figure.subplots()
    ax.plot(x, np.round(np.exp(-5 * x), 3), drawstyle="steps-pre", marker="o", markevery=50)
    ax.fill_between(x, 0, np.exp(-4 * x), step="pre", alpha=0.3)
    sink = io.BytesIO()
    figure.savefig(sink, format="pdf")
    before, after = sink.getvalue(), small_pdf(sink.getvalue())
    assert len(after) < 0.7 * len(before)
    # Every entry of the table of places names the object that stands there.
    start = int(re.search(rb"startxref\n(\d+)", after)[1])
    entries = re.findall(rb"(\d{10}) \d{5} ([nf]) \n", after[start:])
    for number, (place, kind) in enumerate(entries):
        assert kind == b"f" or after[int(place) :].startswith(b"%d 0 obj" % number)
    old, new = drawing(before), drawing(after)
    curve = re.compile(rb"^(-?[\d.]+) (-?[\d.]+) l\n", re.MULTILINE)
    assert curve.sub(b"", old) == curve.sub(b"", new)
    points = [np.array(curve.findall(text), dtype=float) for text in (old, new)]
    assert 10 < len(points[1]) < len(points[0])
    # What is left out lies on the straight lines between what is kept.
    for point in points[0]:
        ends = points[1]
        low, high = np.minimum(ends[:-1], ends[1:]) - 0.051, np.maximum(ends[:-1], ends[1:]) + 0.051
        assert ((low <= point) & (point <= high)).all(axis=1).any()
    assert small_pdf(b"no pdf") == b"no pdf"


def test_a_stream_that_ends_with_a_carriage_return_is_read_whole() -> None:
    curve = b"".join(b"%d %d l\n" % (k, k % 7) for k in range(50))
    comments = (b"%" + b"a" * length for length in range(256))  # each changes the checksum, which comes last
    packed = next(text for comment in comments if (text := zlib.compress(curve + comment)).endswith(b"\r"))
    parts = [
        b"1 0 obj\n<< /Filter /FlateDecode /Length 2 0 R >>\nstream\n%s\nendstream\nendobj\n" % packed,
        b"2 0 obj\n%d\nendobj\n" % len(packed),
    ]
    head = b"%PDF-1.4\n"
    places = [len(head), len(head) + len(parts[0])]
    body = head + b"".join(parts)
    table = b"xref\n0 3\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    whole = body + table + b"trailer\n<< /Size 3 >>\nstartxref\n%d\n%%%%EOF\n" % len(body)
    assert drawing(small_pdf(whole)).startswith(curve)


def drawing(pdf: bytes) -> bytes:
    """The largest stream: what is drawn on the page."""
    streams = re.findall(rb"/FlateDecode.*?stream\r?\n(.*?)\nendstream", pdf, re.DOTALL)
    return max((zlib.decompress(stream) for stream in streams), key=lambda text: text.count(b" l\n"))


def test_a_smaller_pdf_has_no_object_twice_and_fonts_with_their_letters_only() -> None:
    figure = Figure(figsize=(3, 2))
    for ax in figure.subplots(1, 2):
        ax.plot([0.0, 1.0, 2.0], marker="o")
    figure.text(0.1, 0.5, "Words")
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        sink = io.BytesIO()
        figure.savefig(sink, format="pdf")
    before, after = sink.getvalue(), small_pdf(sink.getvalue())
    objects = re.findall(rb"\d+ 0 obj\n(.*?)endobj", after, re.DOTALL)
    assert len(set(objects)) == len(objects) < len(re.findall(rb"\d+ 0 obj\n", before)) - 1
    assert {int(number) for number in re.findall(rb"\b(\d+) 0 R", after)} <= set(range(1, len(objects) + 1))
    for part in objects:
        if length := re.search(rb"/Length (\d+)", part):
            stream = part.partition(b"stream\n")[2].rpartition(b"\nendstream")[0]
            assert len(stream) == int(length[1])
    (old,), (new,) = fonts(before), fonts(after)
    assert old.getGlyphOrder() == new.getGlyphOrder() and old["hmtx"].metrics == new["hmtx"].metrics
    for name in old.getGlyphOrder():
        assert old["glyf"][name].getCoordinates(old["glyf"]) == new["glyf"][name].getCoordinates(new["glyf"])
    assert "fpgm" in old and "fpgm" not in new


def fonts(pdf: bytes) -> list[TTFont]:
    """The TrueType fonts that a file holds."""
    found = re.findall(rb"/Length1 (\d+).*?stream\r?\n(.*?)\nendstream", pdf, re.DOTALL)
    data = [(int(size), zlib.decompress(stream)) for size, stream in found]
    assert all(size == len(font) for size, font in data)
    return [TTFont(io.BytesIO(font)) for _, font in data]
