"""The experiments end to end on small data, and that their figures show what their rows say."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.patches import Polygon

from bench.basics.settings import from_table
from bench.data import load_dataset
from bench.experiments import (
    _cifar,
    decision_regions,
    feature_map,
    noise_levels,
    regulariser,
    runtime,
    separability_data,
    training_fit,
)
from bench.experiments._shared import Options
from bench.kept.store import Store
from bench.report.tables.summary import summarise
from bench.suites.suite import Suite

ORDERS = {"l1": 1, "l2": 2, "linf": np.inf}


@pytest.fixture(scope="module")
def cats_and_dogs(tmp_path_factory) -> Path:
    """A data folder whose cats are bright on the left and whose dogs are so on the right, with noise."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    arrays = {}
    for part, count in (("train", 90), ("test", 40)):
        y = np.arange(count) % 2
        x = rng.integers(60, 130, (count, 3, 32, 32))
        x[y == 1, :, :, :16] += 60
        x[y == 0, :, :, 16:] += 60
        images = x.transpose(0, 2, 3, 1).astype(np.uint8)
        arrays |= {f"x_{part}": images, f"y_{part}": np.where(y == 1, 3, 5)}
    np.savez(folder / "cifar10_catsdogs.npz", **arrays)
    return folder


@pytest.fixture
def small(monkeypatch) -> None:
    """Two epochs of the ablations' network and few test inputs."""
    real = _cifar.settings
    monkeypatch.setattr(
        _cifar, "settings", lambda options: {**real(options), "train": {"epochs": 2, "batch_size": 16}}
    )
    monkeypatch.setattr(_cifar, "TEST_INPUTS", 6)


def options(out: Path, data_dir: Path | None = None) -> Options:
    return Options(out, data_dir=data_dir, jobs=1, device="cpu", reduced=True)


@pytest.mark.parametrize("norm", ORDERS)
def test_a_drawn_ball_is_the_ball_of_its_norm(norm):
    centre, radius = np.array([0.4, 0.6]), 0.3
    ball = decision_regions._ball(centre, radius, norm)
    points = centre + np.random.default_rng(0).uniform(-0.4, 0.4, (500, 2))
    inside = np.linalg.norm(points - centre, ord=ORDERS[norm], axis=1) <= radius
    (outline,) = ball.get_path().transformed(ball.get_patch_transform()).to_polygons()
    assert 50 < inside.sum() < 450
    # The outline of a circle has corners: points this close to the boundary are left out.
    clear = np.abs(np.linalg.norm(points - centre, ord=ORDERS[norm], axis=1) - radius) > 0.01
    assert (Polygon(outline).get_path().contains_points(points) == inside)[clear].all()


@pytest.mark.slow
def test_certified_balls_in_the_plane_stay_in_the_region_that_is_drawn(tmp_path):
    out = options(tmp_path / "out")
    decision_regions.run(out)
    _, radii, _ = Store(out.out).read_run()
    data, generator = load_dataset(decision_regions.DATASET), np.random.default_rng(0)
    for name in decision_regions.MAPS:
        model = decision_regions.trained(out.out, name, data, 0).frozen()
        shown = decision_regions.spread_by_angle(data)
        assert len(shown) > 5 and (data.y_test[shown] == 1).all()
        for norm, order in ORDERS.items():
            rows = radii[(radii["method"] == name) & (radii["norm"] == norm) & radii["index"].isin(shown)]
            rows = rows.dropna(subset="radius")
            assert set(rows["certificate"]) == {"closed_form", "refined"}
            moves = generator.normal(size=(200, 2))
            moves /= np.linalg.norm(moves, ord=order, axis=1, keepdims=True)
            for index, radius in zip(rows["index"], rows["radius"].astype(float), strict=True):
                points = data.x_test[index].astype(float) + 0.999 * radius * moves
                assert bool((model.score(torch.from_numpy(points)) > 0).all())


@pytest.mark.slow
def test_the_regulariser_figure_shows_the_medians_of_its_rows(cats_and_dogs, small, tmp_path):
    out = options(tmp_path / "out", cats_and_dogs)
    written = regulariser.run(out)
    assert {path.suffix for path in written} == {".png", ".pdf"}
    _, radii, predictions = Store(out.out).read_run()
    assert sorted(set(radii["method"])) == sorted(f"weight_{weight:g}" for weight in regulariser.STRENGTHS)
    summary = summarise(radii, predictions)
    summary["strength"] = summary["method"].str.removeprefix("weight_").astype(float)
    axes = regulariser.figure(summary, "trial").axes
    for ax, norm in zip(axes[1:], ORDERS, strict=True):
        for line, certificate in zip(ax.lines, regulariser.CERTIFICATES, strict=True):
            assert line.get_xdata().tolist() == list(regulariser.STRENGTHS)
            for strength, shown in zip(line.get_xdata(), line.get_ydata(), strict=True):
                rows = radii[
                    (radii["method"] == f"weight_{strength:g}")
                    & (radii["norm"] == norm)
                    & (radii["certificate"] == certificate)
                ]
                assert shown == pytest.approx(np.median(rows["radius"].astype(float).fillna(0.0)))


@pytest.mark.slow
def test_the_feature_map_figure_has_both_maps_and_certificates(cats_and_dogs, small, tmp_path):
    out = options(tmp_path / "out", cats_and_dogs)
    feature_map.run(out)
    record, radii, predictions = Store(out.out).read_run()
    maps = {entry["id"]: entry["settings"]["feature_map"] for entry in record["configuration"]["methods"]}
    assert maps == {"centered_abs": "centered_abs", "identity": "identity"}
    figure = feature_map.figure(radii, summarise(radii, predictions), "trial")
    for ax, norm in zip(figure.axes, ORDERS, strict=True):
        largest = [line.get_xdata().max() for line in ax.lines]
        expected = [
            radii[
                (radii["method"] == method) & (radii["certificate"] == certificate) & (radii["norm"] == norm)
            ]
            for method, certificate in feature_map.LOOK
        ]
        # Inputs that are not certified count as 0: with the few images of this test a network may find none sensitive.
        assert largest == [pytest.approx(rows["radius"].astype(float).fillna(0.0).max()) for rows in expected]
        assert max(largest) > 0


def test_a_convex_score_fits_a_few_images_and_accuracy_is_counted_right(cats_and_dogs):
    arguments = (40, 12, 4, 0, str(cats_and_dogs), "", "cpu")
    rows = training_fit.fit("mlp", *arguments)
    assert [row["epoch"] for row in rows] == [4, 8, 12] and {row["images"] for row in rows} == {40}
    assert rows[-1]["accuracy"] == 1.0
    data = load_dataset("cifar10_catsdogs", cats_and_dogs)
    x, y = torch.from_numpy(data.x_train[:20]), torch.from_numpy(data.y_train[:20])
    model = training_fit.untrained("mlp_abs", x, 0)
    with torch.no_grad():
        model.threshold.fill_(-1e6)  # calls everything a cat
    cats = float((y == 1).double().mean())
    expected = {"accuracy": cats, "recall_sensitive": 1.0, "recall_other": 0.0}
    assert training_fit.accuracies(model, x, y) == pytest.approx(expected)


def test_noise_levels_are_the_multiples_of_the_base(tmp_path):
    for reduced in (True, False):
        table = noise_levels.suite_table(Options(tmp_path, reduced=reduced))
        suite = from_table(Suite, {"name": "noise_levels", "title": "trial", "seeds": [0], **table}, "trial")
        assert len(suite.methods) == 16
        for dataset in suite.datasets:
            found = {entry.id: entry.settings_for(dataset).sigma for entry in suite.methods}
            assert found == {
                f"{kind}_{times}": times * noise_levels.BASE[dataset]
                for kind in ("gaussian", "laplace", "uniform", "splitting")
                for times in (1, 2, 3, 4)
            }


def test_the_noise_figure_draws_each_level_in_its_panel():
    rows = [
        {"method": f"{kind}_{times}", "norm": norm, "native": norm == "l2", "radius": radius * times}
        for kind in noise_levels.KINDS
        for times in noise_levels.TIMES
        for norm in ORDERS
        for radius in (0.1, 0.2)
    ]
    figure = noise_levels.figure(pd.DataFrame(rows).astype({"radius": "Float64"}), "trial", 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    assert len(figure.axes) == 12
    for ax in figure.axes:
        assert [line.get_xdata().max() for line in ax.lines] == [pytest.approx(0.2 * t) for t in (1, 2, 3, 4)]
        assert [line.get_label() for line in ax.lines] == ["0.5", "1", "1.5", "2"]
    assert [ax.get_title().endswith("converted") for ax in figure.axes] == [True, False, True] * 4


def test_runtime_compares_calls_and_keeps_the_order_of_the_legend():
    key = {"dataset": "digits_38", "certificate": "crown", "norms_in_call": 3}
    summary = pd.DataFrame(
        [
            {**key, "method": "late", "domain": "box", "seconds_per_certificate": 5.0, "norms_in_call": 1},
            {**key, "method": "late", "domain": "box", "seconds_per_certificate": np.nan, "norms_in_call": 0},
            {**key, "method": "late", "domain": "free", "seconds_per_certificate": 1.0},
            {**key, "method": "late", "domain": "free", "seconds_per_certificate": 3.0},
            {**key, "method": "early", "domain": "box", "seconds_per_certificate": 9.0},
            {**key, "method": "early", "domain": "free", "seconds_per_certificate": 7.0},
        ]
    )
    rows = runtime.table(summary, {"early": {"title": "Early"}, "late": {}})
    assert rows["title"].tolist() == ["Early", "Early", "late", "late"]
    assert rows["domain"].tolist() == ["free", "box", "free", "box"]
    assert rows["seconds_per_certificate"].tolist() == [7.0, 9.0, 2.0, 5.0]
    assert rows["norms_in_call"].tolist() == [3, 3, 3, 1]
    read = {"hardware": {"gpus": ["One"]}, "title": "Suite", "reduced": ""}
    (ax,) = runtime.figure(rows, read).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "Early, crown, 3 norms",
        "Early, crown (box), 3 norms",
        "late, crown, 3 norms",
        "late, crown (box), 1 norm",
    ]
    assert "1 or 3 norms" in ax.get_xlabel()


def test_distances_to_the_hull_are_measured_for_every_image_in_both_directions(cats_and_dogs, tmp_path):
    out = options(tmp_path / "out", cats_and_dogs)
    separability_data.run(out)
    rows = pd.read_csv(out.out / "rows.csv")
    assert len(rows) == 90 and (rows["separated"]).all()
    data = load_dataset("cifar10_catsdogs", cats_and_dogs)
    x, y = separability_data.whole_train(data)
    cats, dogs = map(int, data.classes)
    assert set(zip(rows["target"], rows["hull"], strict=True)) == {(cats, dogs), (dogs, cats)}
    for row in rows.to_dict("records"):
        own = int(row["target"] == cats)
        assert y[row["index"]] == own
        # The nearest of the points is no nearer than their hull.
        nearest = np.linalg.norm(x[y != own] - x[row["index"]], axis=1).min()
        assert 0 < row["distance_lower"] <= row["distance_upper"] <= nearest + 1e-9
        assert row["distance_upper"] <= 1.02 * row["distance_lower"]
