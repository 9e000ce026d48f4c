"""Certified ROC: the usual one at radius 0, never above the attacked one elsewhere, and cut where rows are cut."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from report_runs import METHODS, predictions_of, radii_of
from sklearn.metrics import roc_curve
from synthetic import blobs, plan
from undrawn import compare as undrawn

from bench.attacking.attacks import AttackSettings, norm_exact
from bench.attacking.targets import FinishedRun
from bench.basics.errors import UsageError
from bench.compare import main as compare
from bench.contract import Outcome
from bench.data import load_dataset
from bench.falsify import main as falsify
from bench.kept.finished import load_method
from bench.kept.roc import (
    LEVELS,
    certified_share,
    cut_radii,
    grid_of_thresholds,
    median_radius,
    roc_from_parquet,
    roc_rows,
    roc_to_parquet,
)
from bench.kept.rows import (
    PREDICTION_COLUMNS,
    RADII_COLUMNS,
    check_predictions,
    check_radii,
    to_parquet,
)
from bench.kept.store import Store
from bench.methods import registered_methods
from bench.methods.cayley import Cayley
from bench.methods.fcnn import FCNN
from bench.plots import main as plots
from bench.report.figures.roc_figure import (
    Thresholds,
    certified_roc_figure,
    median_figure,
    usual_roc,
)
from bench.report.tables.roc_table import mean_over_seeds, roc_table
from bench.running.evaluate import Evaluation
from bench.running.provenance import RunClock, run_record

CURVE = {"dataset": "d", "method": "m", "certificate": "c", "domain": "free", "norm": "l2", "seed": 0}
radii_lists = st.lists(st.one_of(st.just(0.0), st.floats(0.01, 9.0)), min_size=1, max_size=700)


@given(radii_lists, st.floats(0.01, 9.0))
def test_a_share_read_off_cut_radii_is_never_too_large_and_exact_where_none_were_cut(radii, radius):
    radii = np.array(radii)
    exact = (radii >= radius).mean()
    found = certified_share(cut_radii(radii), len(radii), radius)
    assert found <= exact + 1e-12
    assert found >= exact - 1 / LEVELS - 1e-12
    if len(radii) <= LEVELS:
        assert found == pytest.approx(exact)
        if (radii > 0).mean() > 0.5:
            reached = median_radius(cut_radii(radii), len(radii))
            assert (radii >= reached).mean() >= 0.5
            assert (radii > reached).mean() < 0.5 or (radii >= reached).mean() == pytest.approx(0.5)


@pytest.mark.parametrize("count", [LEVELS + 1, 450, 3 * LEVELS + 17])
def test_a_share_read_off_cut_radii_is_never_too_large_where_many_were_cut(count):
    radii = np.random.default_rng(count).random(count)
    for radius in np.linspace(0.0, 1.0, 57):
        exact = (radii >= radius).mean()
        assert exact - 1 / LEVELS - 1e-12 <= certified_share(cut_radii(radii), count, radius) <= exact + 1e-12


def test_the_grid_runs_from_no_false_positive_to_all():
    others = np.random.default_rng(0).normal(size=1000)
    counts = [(others > threshold).sum() for threshold in grid_of_thresholds(others)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 1000 and counts[-2:] == [1, 0]
    assert len(grid_of_thresholds(np.full(5, np.nan))) == 0
    assert len(grid_of_thresholds(np.ones(4))) == 2  # ties: all or nothing


def test_the_tables_keep_their_radii_on_disk_and_shares_at_named_radii():
    rows = roc_rows(
        CURVE, [-1.0, 0.5], np.array([0.0, 1.0, 2.0]), [np.array([3.0, 1.0]), np.array([0.0, 0.0])]
    )
    again = roc_from_parquet(roc_to_parquet(rows))
    assert [list(radii) for radii in again["radii"]] == [[3.0, 1.0], []]
    assert again["false_positives"].tolist() == [3, 2]
    radii = pd.DataFrame({"dataset": ["d"], "norm": ["l2"], "radius": [2.0]})
    table = roc_table(again, radii, {"l2": [1.0, 2.0]})
    assert table["certified_recall_1"].tolist() == [1.0, 0.0] and table["certified_recall_2"].tolist() == [
        0.5,
        0.0,
    ]
    assert table["median_radius"].tolist() == [3.0, 0.0] and table["radius_2"].tolist() == [2.0, 2.0]


def test_the_table_counts_inputs_without_a_certificate():
    rows = roc_rows(CURVE, [0.5], np.array([0.0, 1.0]), [np.array([3.0, 0.0, 0.0])])
    radii = pd.DataFrame({"dataset": ["d"], "norm": ["l2"], "radius": [3.0]})
    table = roc_table(rows, radii, {"l2": [2.0]})
    assert table["median_radius"].tolist() == [0.0]
    assert table["certified_recall_1"].tolist() == pytest.approx([1 / 3])


def test_seeds_are_averaged_where_all_have_the_same_false_positives():
    def rows(seed: int, radius: float, thresholds: list[float]) -> pd.DataFrame:
        others = np.array([0.0, 1.0, 2.0])
        facts = {**CURVE, "seed": seed}
        return roc_rows(facts, thresholds, others, [np.array([radius, 0.0])] * len(thresholds))

    both = pd.concat([rows(0, 2.0, [0.5, 1.5]), rows(1, 4.0, [0.5])], ignore_index=True)
    table = roc_table(both, pd.DataFrame({"dataset": ["d"], "norm": ["l2"], "radius": [1.0]}), {"l2": [3.0]})
    means = mean_over_seeds(table)
    assert means["false_positives"].tolist() == [2]
    assert means["median_radius"].tolist() == [3.0] and means["certified_recall_1"].tolist() == [0.25]


def test_of_thresholds_with_as_many_false_positives_the_lowest_counts():
    """It certifies the most, and costs no false positive more."""
    others, radii = np.array([1.0, 5.0]), {2.0: [0.5, 1.5], 3.0: [0.5, 0.0], 4.0: [0.0, 0.0]}
    tied = roc_rows(CURVE, list(radii), others, [np.array(found) for found in radii.values()])
    table = roc_table(tied, pd.DataFrame({"dataset": ["d"], "norm": ["l2"], "radius": [1.0]}), {"l2": [0.1]})
    means = mean_over_seeds(table.sample(frac=1, random_state=0))
    assert means["false_positives"].tolist() == [1] and means["certified_recall_1"].tolist() == [1.0]


@pytest.fixture(scope="module", params=[FCNN, Cayley])
def evaluated(request):
    method, data = request.param(), blobs(shift=0.1, count=360)
    return method, data, Evaluation(method, data, plan(norms=("l2", "linf"))).run()


def test_the_roc_at_radius_0_is_scikit_learns(evaluated):
    _, data, result = evaluated
    scores = result.predictions["score"].astype(float).to_numpy()
    rate, recall, _ = roc_curve(data.y_test, scores, drop_intermediate=False)
    ours = usual_roc(result.predictions)
    np.testing.assert_array_equal(ours[0], rate)
    np.testing.assert_array_equal(ours[1], recall)
    # A positive radius is what is predicted sensitive, so the certified recalls at any radius start on this curve.
    for row in result.roc.itertuples():
        mine = recall[rate == row.false_positives / row.others]
        share = certified_share(row.radii, row.inputs, 0.0)
        assert min(abs(mine - share)) < 1e-12


def test_the_certified_roc_never_lies_above_the_attacked_one(evaluated):
    """At each false positive rate, inputs that an attack brings to the threshold cannot be certified there."""
    method, data, result = evaluated
    x = torch.from_numpy(data.x_test[data.y_test == 1])
    attack = AttackSettings(steps=20, restarts=1)
    reached = 0
    for norm, radius in (("l2", 0.08), ("linf", 0.05)):
        rows = result.roc[(result.roc["norm"] == norm) & (result.roc["domain"] == "free")]
        for row in rows.iloc[:: max(1, len(rows) // 5)].itertuples():
            method.set_threshold(row.threshold)
            ball = torch.full((len(x),), radius, dtype=torch.float64)
            points = norm_exact(method.score, x, ball, norm, "free", attack, 0).points
            attacked = min((method.predict(part, 0) == 1).double().mean() for part in (x, points))
            certified = certified_share(row.radii, row.inputs, radius)
            assert certified <= attacked + 1e-12
            reached += certified > 0
    assert reached > 2, "the comparison is empty where nothing is certified"


def test_methods_that_share_no_work_have_no_line():
    method, data = registered_methods()["crown"](), blobs(count=60)
    result = Evaluation(method, data, plan(norms=("l2",))).run()
    assert (result.radii["outcome"] == Outcome.CERTIFIED).any() and result.roc.empty


SUITE = """
datasets = ["circles"]
norms = ["l2"]
[[methods]]
method = "cayley"
settings.train.epochs = 2
[[methods]]
method = "crown"
settings.hidden = [4]
settings.train.epochs = 1
"""


def test_the_figures_are_redrawn_from_the_folder(tmp_path):
    (tmp_path / "small.toml").write_text(SUITE)
    out = tmp_path / "out"
    assert compare(["--suite", str(tmp_path / "small.toml"), "--out", str(out), "--jobs", "1"]) == 0
    names = [f"circles_{kind}.{end}" for kind in ("certified_roc", "median_radius") for end in ("png", "pdf")]
    before = {name: (out / "figures" / name).read_bytes() for name in names}
    for name in names:
        (out / "figures" / name).unlink()
    assert plots([str(out)]) == 0
    assert {name: (out / "figures" / name).read_bytes() for name in names} == before
    table = Store(out).read_roc_table()
    assert set(table["method"]) == {"cayley"} and (table["certified_recall_1"] <= 1).all()
    # Recalls fall with the radius, and rise with the false positives allowed.
    assert (table["certified_recall_1"] >= table["certified_recall_2"]).all()
    assert table.sort_values("false_positives")["certified_recall_1"].is_monotonic_increasing


def test_kept_models_are_opened_at_the_threshold_of_each_row(tmp_path):
    (tmp_path / "small.toml").write_text(SUITE.replace('"circles"', '"breast_cancer"'))
    out = tmp_path / "out"
    points = ["--operating-points", "balanced", "--other-recall", "0.95"]
    arguments = [
        "--suite",
        str(tmp_path / "small.toml"),
        "--methods",
        "cayley",
        "--out",
        str(out),
        "--jobs",
        "1",
    ]
    assert undrawn([*arguments, *points]) == 0
    _, _, predictions = Store(out).read_run()
    data = load_dataset("breast_cancer")
    recalls = {}
    for point, rows in predictions.groupby("operating_point"):
        method = load_method(Store(out), data, "breast_cancer", "cayley", 0, point)
        found = method.predict(torch.from_numpy(data.x_test[rows["index"]]), 0)
        assert (found.numpy() == rows["predicted"].to_numpy(dtype=int)).all()
        recalls[point] = (rows.loc[rows["label"] == 0, "predicted"] == 0).mean()
    assert recalls["other_recall=0.95"] != recalls["balanced"], (
        "the points are the same, and so is the test empty"
    )
    record, radii, _ = Store(out).read_run()
    attacked = FinishedRun(Store(out), record["configuration"], None)
    for point, rows in radii.groupby("operating_point"):
        own = load_method(Store(out), data, "breast_cancer", "cayley", 0, point)
        assert attacked.target(rows, rows.iloc[0].to_dict()).method.threshold == own.threshold
    with pytest.raises(UsageError, match=r"no operating point 'other_recall=0.5'"):
        load_method(Store(out), data, "breast_cancer", "cayley", 0, "other_recall=0.5")
    assert falsify([str(out), "--limit", "5", "--bracket", "0"]) == 0
    attacked = pd.read_csv(out / "falsify.csv")
    assert set(attacked["operating_point"]) == {"balanced", "other_recall=0.95"}
    assert (attacked["broken"] == 0).all() and (attacked["attacked"] == 5).all()


def test_a_run_of_schema_version_1_is_read_and_drawn(tmp_path, monkeypatch):
    """Published results have one operating point and no scores."""
    rows = check_radii(pd.concat(radii_of("tiny")))
    later = {"operating_point", "calibration_others", "norms_in_call", "score"}
    for module in ("bench.kept.rows", "bench.basics.files"):
        monkeypatch.setattr(f"{module}.SCHEMA_VERSION", 1)
    old = [
        {name: kind for name, kind in columns.items() if name not in later}
        for columns in (RADII_COLUMNS, PREDICTION_COLUMNS)
    ]
    tables = (rows, check_predictions(predictions_of("tiny")))
    for name, table, columns in zip(("radii", "predictions"), tables, old, strict=True):
        (tmp_path / f"{name}.parquet").write_bytes(to_parquet(table, columns))
    Store(tmp_path).write_run(run_record({"title": "Old"}, METHODS, rows, RunClock()))
    monkeypatch.undo()
    run, radii, predictions = Store(tmp_path).read_run()
    assert run["schema_version"] == 1
    assert set(radii["operating_point"]) == set(predictions["operating_point"]) == {"balanced"}
    assert predictions["score"].isna().all() and radii["calibration_others"].isna().all()
    assert plots([str(tmp_path)]) == 0
    assert not list((tmp_path / "figures").glob("*roc*"))


def test_lines_are_of_the_table_and_markers_of_the_chosen_thresholds():
    predictions = pd.DataFrame(
        {
            "dataset": "d",
            "method": "m",
            "operating_point": "balanced",
            "seed": 0,
            "index": range(4),
            "label": [1, 1, 0, 0],
            "score": pd.array([2.0, 1.0, 0.5, -1.0], dtype="Float64"),
        }
    )
    summary = pd.DataFrame(
        {
            **{name: [value] for name, value in CURVE.items() if name != "seed"},
            "operating_point": ["balanced"],
            "recall_sensitive": [1.0],
            "recall_other": [0.5],
            "median_radius": [1.5],
            "certified": [2],
            "native": [True],
            "radius_1": [1.0],
            "certified_accuracy_1": [0.5],
        }
    )
    rows = roc_rows(CURVE, [-2.0, 0.5], np.array([0.5, -1.0]), [np.array([4.0, 3.0]), np.array([1.5, 0.5])])
    table = roc_table(rows, pd.DataFrame({"dataset": ["d"], "norm": ["l2"], "radius": [1.0]}), {"l2": [1.0]})
    shown = Thresholds.of_run(predictions, table, summary)
    from bench.report.figures.line_styles import LineStyle

    styles = {("m", "c", "free"): LineStyle(0, "M", "M", (0.1, 0.2, 0.3), "-", "o")}
    panel = certified_roc_figure(shown, styles, "h").axes[2]
    line, marker = panel.lines
    np.testing.assert_allclose(
        line.get_xdata(), [0.25, 1.0]
    )  # no false positive stands at half the smallest rate
    np.testing.assert_allclose(line.get_ydata(), [0.5, 1.0])
    assert (marker.get_xdata()[0], marker.get_ydata()[0]) == (0.5, 0.5)
    assert panel.get_xscale() == "log"
    line, marker = median_figure(shown, styles, "h").axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), [1.5, 4.0])
    assert marker.get_ydata()[0] == 1.5
    assert Thresholds.of_run(predictions.assign(score=pd.NA), None, summary) is None
