"""The report's file: what is in it is exact, safe whatever the names, small, and there is one for every run."""

import base64
import gzip
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from report_page import content, embedded
from report_runs import INPUTS, NASTY, curve, failed_rows, predictions_of, radii_of, write_images, write_run
from synthetic import MeanSettings, MeanThreshold

from bench.compare import main as compare
from bench.kept.points import curve_file
from bench.kept.rows import check_radii
from bench.kept.store import Store
from bench.report import page
from bench.report.__main__ import main
from bench.report.adversarial import Adversarials, extremes, nearest
from bench.report.content import radii_limit
from bench.report.packing import packed, steps
from bench.report.page import write_report
from bench.report.pictures import png_address


@pytest.fixture(scope="module", autouse=True)
def _short_library() -> Iterator[None]:
    """Compressing the real one a dozen times takes long; the tests in the browser have it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plotly.offline.get_plotlyjs", lambda: "// charts")
        yield


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = [*radii_of("tiny", (0, 1)), *radii_of(NASTY), failed_rows("failed")]
    predictions = [predictions_of("tiny", seeds=(0, 1)), predictions_of(NASTY)]
    return write_run(tmp_path_factory.mktemp("report") / "out", frames, predictions)


@pytest.fixture(scope="module")
def html(run: Path, data_folder: Path) -> str:
    return write_report(run, data_folder).read_text(encoding="utf-8")


def line(html: str, dataset: str, certificate: str, norm: str) -> dict:
    (found,) = (entry for entry in content(html)["datasets"] if entry["name"] == dataset)
    (mine,) = (entry for entry in found["curves"] if entry["certificate"] == certificate)
    return mine["norms"][norm]


def unpacked(part: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(part["values"]), dtype="<f8")


def test_the_radii_in_the_page_are_the_rows_radii_to_the_last_bit(run, html):
    rows = Store(run).read_run()[1]
    mine = rows[(rows["dataset"] == "tiny") & (rows["certificate"] == "in_domain") & (rows["norm"] == "linf")]
    shown = line(html, "tiny", "in_domain", "linf")
    assert shown["radii"]["block"] == 1
    assert unpacked(shown["radii"]).tolist() == sorted(mine["radius"].astype(float))
    # Upper ends: an input for which no attack is known stands for infinity.
    assert unpacked(shown["uppers"]).tolist() == sorted(mine["radius_upper"].astype(float).fillna(np.inf))
    assert line(html, "tiny", "closed_form", "linf")["uppers"] is None


@pytest.mark.parametrize("count", [0, 1, 7, 100, 101, 999])
@pytest.mark.parametrize("upward", [False, True])
def test_packing_many_radii_errs_to_the_safe_side_only(count, upward):
    values = np.random.default_rng(count).lognormal(size=count)
    short = packed(values, limit=10, upward=upward)
    kept = unpacked(short)
    assert len(kept) <= 10 and short["count"] == count and set(kept) <= set(values)
    for radius in [0.0, *values, 99.0]:
        exact = (values >= radius).sum()
        counted = min(count, short["block"] * (kept >= radius).sum())
        assert 0 <= (counted - exact if upward else exact - counted) < short["block"]


def test_radii_are_joined_only_when_there_are_too_many(run, monkeypatch):
    rows = Store(run).read_run()[1]
    assert radii_limit(rows) == 60
    monkeypatch.setattr("bench.report.content.MAX_RADII", 320)
    # 12 + 12 + 1 curves, 6 of them with upper ends: 31 lists of numbers.
    assert radii_limit(rows) == 10


def test_bands_are_rounded_outwards():
    band = {"lower": pd.Series([0.0, 0.12349]), "upper": pd.Series([0.12341, 1.0])}
    assert steps(band) == {"lower": [0.0, 0.1234], "upper": [0.1235, 1.0]}


def test_names_from_the_run_cannot_leave_their_place(html):
    assert NASTY in [entry["name"] for entry in content(html)["datasets"]]
    assert "window.hacked" not in html
    # Data, library, rows and the page's own script, and none from a name.
    assert html.count("<script") == html.count("</script>") == 4


def test_the_title_is_escaped(tmp_path):
    out = write_run(tmp_path / "out", radii_of("tiny"), [predictions_of("tiny")], title="</title><b>{{data}}")
    assert "<title>&lt;/title&gt;&lt;b&gt;{{data}}</title>" in write_report(out).read_text()


def test_the_page_loads_nothing_and_is_small(run, html):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html).group(1)
    assert policy.startswith("default-src 'none'") and "http" not in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2]
    outside = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["']?(http|//)""", outside)
    assert (run / "report.html").stat().st_size < 6_000_000


def test_the_rows_are_in_the_page(run, html):
    rows = Store(run).read_run()[1]
    text = gzip.decompress(base64.b64decode(embedded(html, "rows")))
    read = pd.read_csv(io.BytesIO(text), keep_default_na=False)
    assert len(read) == len(rows) and content(html)["rows_beside"] == ""
    radius = pd.to_numeric(read["radius"]).to_numpy()
    assert np.array_equal(radius, rows["radius"].astype(float).to_numpy(), equal_nan=True)


def test_many_rows_stay_beside_the_page(run, html, tmp_path, monkeypatch):
    out = write_run(tmp_path / "out", radii_of("tiny"), [predictions_of("tiny")])
    monkeypatch.setattr(page, "MAX_ROWS_BYTES", 10)
    html = write_report(out).read_text()
    assert embedded(html, "rows") == "" and content(html)["rows_beside"] == "radii.parquet"


def test_the_same_run_gives_the_same_page(run, html, data_folder):
    assert write_report(run, data_folder).read_text(encoding="utf-8") == html


def test_inputs_are_shown_where_there_are_images_and_else_it_says_why_not(html):
    tiny, nasty, failed = sorted(
        content(html)["datasets"], key=lambda entry: ["tiny", NASTY, "failed"].index(entry["name"])
    )
    cards = tiny["curves"][0]["norms"]["l2"]["ends"]
    radii = [card["radius"] for card in cards["smallest"]]
    assert radii == sorted(radii) and max(radii) <= min(card["radius"] for card in cards["largest"])
    assert all(tiny["pictures"][card["picture"]].startswith("data:image/png") for card in cards["smallest"])
    assert "bad data set name" in nasty["picture_note"] and not nasty["pictures"]
    assert failed["curves"][0]["norms"]["l2"]["ends"] == {"smallest": [], "largest": []}


def test_another_data_set_of_the_same_name_is_not_taken_for_the_runs(run, tmp_path):
    folder = write_images(tmp_path)
    with np.load(folder / "tiny.npz") as arrays:
        arrays = dict(arrays)
    np.savez(folder / "tiny.npz", **{**arrays, "y_test": 1 - arrays["y_test"]})
    datasets = content(write_report(run, folder).read_text())["datasets"]
    (tiny,) = (entry for entry in datasets if entry["name"] == "tiny")
    assert "not the one of this run" in tiny["picture_note"] and not tiny["pictures"]


def test_extremes_are_of_one_seed_and_none_is_shown_twice():
    rows = check_radii(pd.concat([curve("d", "m", "c", "l2", seed) for seed in (3, 4)]))
    ends = extremes(rows)
    assert set(ends["smallest"]["seed"]) == {3}
    few = extremes(rows[(rows["seed"] == 3) & (rows["index"] < 10)])
    assert [len(part) for part in few.values()] == [2, 2]
    assert not set(few["smallest"]["index"]) & set(few["largest"]["index"])
    assert len(extremes(rows.iloc[:1])["smallest"]) == 1


def test_pictures_show_the_pixels():
    from PIL import Image

    image = np.linspace(-0.5, 1.5, 12, dtype=np.float32).reshape(1, 3, 4)
    picture = Image.open(io.BytesIO(base64.b64decode(png_address(image).partition(",")[2])))
    assert np.array_equal(np.asarray(picture), (image[0].clip(0, 1) * 255).round())
    wide = Image.open(io.BytesIO(base64.b64decode(png_address(np.zeros((3, 90, 300))).partition(",")[2])))
    assert wide.size == (64, 19) and wide.mode == "RGB"


def test_a_search_ends_just_outside_the_exact_radius():
    """The mean of d numbers is lowered by its margin at an exactly known distance in every norm."""
    method = MeanThreshold(MeanSettings(level=0.5))
    x = torch.full((3, 16), 0.6) + 0.05 * torch.arange(3)[:, None]
    margin = method.score(x).double()
    for norm, factor in {"l1": 16.0, "l2": 4.0, "linf": 1.0}.items():
        points, found = nearest(method, x, 0.5 * factor * margin, norm, "free", seed=0)
        order = {"l1": 1, "l2": 2, "linf": np.inf}[norm]
        distance = torch.linalg.vector_norm(points - x, ord=order, dim=1).double()
        assert found.all() and (method.predict(points, 0) == 0).all()
        assert (distance > factor * margin * (1 - 1e-4)).all()
        assert (distance < factor * margin * 1.3).all()


def test_counterexamples_of_falsify_are_shown_as_such(run, data_folder, tmp_path):
    rows = Store(run).read_run()[1]
    out = write_run(tmp_path / "out", radii_of("tiny"), [predictions_of("tiny")])
    first = rows[(rows["dataset"] == "tiny") & (rows["certificate"] == "complete") & (rows["norm"] == "linf")]
    index = int(first.dropna(subset="radius").sort_values("radius", kind="stable")["index"].iloc[0])
    (out / "counterexamples").mkdir()
    name = "tiny_verifier_complete_free_linf_0.npz"
    np.savez(out / "counterexamples" / name, index=[index], adversarial=np.zeros((1, 1, 8, 8), np.float32))
    table = "dataset,method,certificate,domain,norm,seed,guarantee,attacked,broken,allowed\n"
    (out / "falsify.csv").write_text(f"{table}tiny,verifier,complete,free,linf,0,deterministic,26,1,0\n")
    shown = line(write_report(out, data_folder).read_text(), "tiny", "complete", "linf")
    assert shown["attacked"] == [26, 1, 0]
    attack = content((out / "report.html").read_text())["verdict"]["attack"]
    assert attack == {
        "text": "26 certificates were attacked inside their radius: 1 were broken, on 1 curve more than the guarantee "
        "allows.",
        "bad": True,
    }
    (card,) = [card for card in shown["ends"]["smallest"] if card["index"] == index]
    assert card["adversarial"]["breaks"] and card["adversarial"]["distance"] > 0.5


def test_a_damaged_file_of_examples_is_as_good_as_none(tmp_path, data_folder):
    out = write_run(tmp_path / "out", radii_of("tiny"), [predictions_of("tiny")])
    (out / "adversarial").mkdir()
    for norm in ("l1", "l2", "linf"):
        (out / "adversarial" / f"tiny_fcnn_closed_form_free_{norm}_0.npz").write_bytes(b"PK\x03\x04 no")
    (out / "falsify.csv").write_text("no,table\n1\n")
    shown = line(write_report(out, data_folder).read_text(), "tiny", "closed_form", "l2")
    assert "adversarial" not in shown["ends"]["smallest"][0] and shown["attacked"] is None


def test_a_run_with_failed_cells_only_has_a_report(tmp_path):
    out = write_run(tmp_path / "out", [failed_rows("failed")], [])
    shown = line(write_report(out).read_text(), "failed", "closed_form", "l2")
    assert shown["outcomes"]["error"] == 30 and shown["radii"]["count"] == 0
    assert shown["recall_sensitive"] is None
    assert shown["reasons"] == [["error", "RuntimeError: <b>out of luck</b>", 30]]


def test_a_run_without_rows_has_a_report(tmp_path):
    assert content(write_report(write_run(tmp_path / "out", [], [])).read_text())["datasets"] == []


@pytest.mark.parametrize("damage", ["no run", "changed", "library", "not writable"])
def test_bad_usage_and_refusals_are_one_line_with_their_exit_code(damage, tmp_path, capsys, monkeypatch):
    out = write_run(tmp_path / "out", radii_of("tiny"), [predictions_of("tiny")])
    word = "bench.compare"
    if damage == "no run":
        (out / "run.json").unlink()
    elif damage == "changed":
        (out / "radii.parquet").write_bytes(b"x")
    elif damage == "library":
        monkeypatch.setitem(sys.modules, "plotly.offline", None)
        word = "plotly"
    else:
        (out / "report.html").mkdir()
        word = "report.html"
    # The system's refusal to write is no bad usage.
    assert main([str(out)]) == (1 if damage == "not writable" else 2)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and word in said


def test_a_point_inside_the_radius_is_shown_before_one_outside(tmp_path):
    """Both attacks left an example of input 3: the one that breaks its certificate must not be hidden."""
    curve = ["set", "fcnn", "closed_form", "free", "l2", "balanced", 0]
    for folder, index, value in (("adversarial", [3, 5], 0.9), ("counterexamples", [3], 0.1)):
        (tmp_path / folder).mkdir()
        points = np.full((len(index), 2), value)
        np.savez(tmp_path / folder / f"{curve_file(curve)}.npz", index=index, adversarial=points)
    found = Adversarials.of(tmp_path, curve)
    assert found.breaking == {3} and sorted(found.points) == [3, 5]
    assert found.distance(3, np.zeros(2), "linf") == pytest.approx(0.1)


def test_a_real_run_has_a_report_with_adversarial_examples(tmp_path, capsys):
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'datasets = ["digits_38", "circles"]\nnorms = ["l2"]\noperating_points = ["other_recall=0.9"]\n'
        '[[methods]]\nmethod = "fcnn"\nsettings.train.epochs = 1\n'
    )
    out = tmp_path / "out"
    assert compare(["--suite", str(suite), "--out", str(out), "--jobs", "1"]) == 0
    assert main([str(out), "--attack"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "report.html")
    digits, circles = content((out / "report.html").read_text())["datasets"]
    assert digits["classes"] == ["3", "8"] and "tables" in circles["picture_note"]
    for one in digits["curves"]:
        cards = [card for end in one["norms"]["l2"]["ends"].values() for card in end]
        assert cards
        for card in cards:
            assert card["adversarial"]["distance"] > card["radius"] and not card["adversarial"]["breaks"]


def test_attacks_that_found_something_give_the_empirical_upper_end(tmp_path, data_folder):
    out = write_run(tmp_path / "out", radii_of("tiny"), [predictions_of("tiny")])
    table = "dataset,method,domain,norm,seed,index,certified,adversarial\n"
    rows = [
        "tiny,smoothing,free,l2,0,0,0.1,0.7",
        "tiny,smoothing,free,l2,0,2,0.1,inf",
        "tiny,fcnn,box,l2,0,2,0.1,1e-3",
    ]
    (out / "bracket.csv").write_text(table + "\n".join(rows) + "\n")
    shown = write_report(out, data_folder).read_text(encoding="utf-8")
    uppers = unpacked(line(shown, "tiny", "gaussian", "l2")["uppers"]).tolist()
    assert uppers == [0.7] + [np.inf] * (INPUTS - 1)
    # The smaller of two known perturbations counts.
    assert unpacked(line(shown, "tiny", "in_domain", "l2")["uppers"]).min() == 1e-3
    assert line(shown, "tiny", "gaussian", "l1")["uppers"] is None
    (out / "bracket.csv").write_text("no,table\n1\n")
    assert (
        line(write_report(out, data_folder).read_text(encoding="utf-8"), "tiny", "gaussian", "l2")["uppers"]
        is None
    )
