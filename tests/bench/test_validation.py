"""The validation measure of a cell: what it counts, and that neither test data nor the rows have a part in it."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from synthetic import MeanSettings, MeanThreshold, blobs, plan

from bench.basics.space import SearchSpace
from bench.calibration import Calibration, ThresholdedScore
from bench.compare import main
from bench.contract import Curve, LinearScore
from bench.kept.store import Store
from bench.methods.linear import Linear, LinearSettings
from bench.running.validation import MAX_INPUTS, MIN_INPUTS, validated_inputs, validation_measures

GIVEN = [Calibration("given", None)]


def trained(method_class: type[MeanThreshold] = MeanThreshold, **settings: float) -> MeanThreshold:
    method = method_class(MeanSettings(**settings))
    method.build((4,), seed=0)
    return method


def test_it_is_the_median_radius_of_sensitive_validation_inputs_and_reads_no_test_data():
    data = blobs()
    hidden = replace(data, x_test=np.full_like(data.x_test, np.nan))
    rows = validation_measures(trained(level=0.68), hidden, plan(), GIVEN, tested=1000)
    means = data.x_val[data.y_val == 1].astype(float).mean(axis=1)
    exact = np.maximum(0.0, means - 0.68)
    assert 0 < (exact == 0).sum() < len(exact) / 2  # a missed input counts as radius 0
    assert {row["norm"] for row in rows} == {"l1", "l2", "linf"} and len(rows) == 3
    for row in rows:
        factor = {"l1": 4.0, "l2": 2.0, "linf": 1.0}[row["norm"]]
        assert row["median_radius"] == pytest.approx(factor * np.median(exact), rel=1e-4)
        assert (row["inputs"], row["operating_point"], row["seed"]) == (len(exact), "given", 0)


def test_inputs_are_a_fixed_fifth_of_those_tested_within_limits():
    data = blobs(count=3000)
    sensitive = set(np.flatnonzero(data.y_val == 1))
    for tested, count in {0: MIN_INPUTS, 200: 40, 10_000: MAX_INPUTS}.items():
        chosen = validated_inputs(data, tested)
        assert len(set(chosen)) == count and set(chosen) <= sensitive
        assert np.array_equal(chosen, validated_inputs(data, tested))


class Coarse(MeanThreshold):
    """Half the radius where it is judged."""

    name = "coarse"
    space = SearchSpace(judging={"scale": 0.5})


class BoxOnly(MeanThreshold):
    name = "box_only"

    def curves(self):
        return [Curve("exact", domain="box")]


def test_settings_of_judging_are_laid_over_a_copy_of_the_method():
    method, data = trained(Coarse), blobs()
    (coarse,) = validation_measures(method, data, plan(norms=("l2",)), GIVEN, tested=0)
    (exact,) = validation_measures(trained(), data, plan(norms=("l2",)), GIVEN, tested=0)
    assert coarse["median_radius"] == pytest.approx(exact["median_radius"] / 2)
    assert method.settings.scale == 1.0


class Told(MeanThreshold):
    """Has a threshold to set, and tells the seed of every batch that it certifies."""

    name = "told"
    batch_size = 4
    seeds: ClassVar[list[int]] = []

    def network(self, input_shape):
        return ThresholdedScore(LinearScore(torch.full(input_shape, 1 / input_shape[0]), 0.0))

    def score(self, x):
        return self.model(x)

    def certify(self, x, curve, norms, seed):
        self.seeds.append(seed)
        return super().certify(x, curve, norms, seed)


def test_each_operating_point_is_measured_at_its_own_threshold_batch_by_batch():
    method, data = trained(Told), blobs()
    method.set_threshold(0.9)
    points = [Calibration("balanced", 0.6), Calibration("other_recall=0.9", 0.66)]
    Told.seeds.clear()
    rows = validation_measures(method, data, plan(norms=("linf",)), points, tested=1000)
    means = data.x_val[data.y_val == 1].astype(float).mean(axis=1)
    assert (means < 0.66).any() and len(means) % 4
    assert [row["operating_point"] for row in rows] == ["balanced", "other_recall=0.9"]
    expected = [np.median(np.maximum(means - point.threshold, 0)) for point in points]
    assert [row["median_radius"] for row in rows] == pytest.approx(expected, rel=1e-5)
    assert len(set(Told.seeds)) == -(-len(means) // 4)  # draws are not those of the batch before
    assert method.threshold == pytest.approx(0.9)  # left as it was


def test_features_that_nobody_can_change_are_fixed_there_too():
    data, weight = blobs(), torch.tensor([1.0, 3.0, 2.0, 1.0])
    method = Linear(LinearSettings())
    method.build((4,), seed=0)
    method.use_linear(weight, -3.5)
    method.mutable = torch.tensor([True, False, True, False])
    (row,) = validation_measures(method, data, plan(norms=("linf",)), GIVEN, tested=1000)
    margin = data.x_val[data.y_val == 1].astype(float) @ weight.double().numpy() - 3.5
    assert row["median_radius"] == pytest.approx(np.median(np.maximum(margin, 0)) / (1 + 2), rel=1e-6)
    assert row["median_radius"] > 0


def test_a_method_without_a_free_certificate_has_no_measure():
    assert validation_measures(trained(BoxOnly), blobs(), plan(), GIVEN, tested=9) == []


def test_a_run_keeps_them_for_each_operating_point_and_older_cells_have_none(tmp_path: Path) -> None:
    suite, out = tmp_path / "suite.toml", tmp_path / "out"
    suite.write_text(
        'datasets = ["circles"]\nnorms = ["l2", "linf"]\noperating_points = ["balanced", "other_recall=0.9"]\n'
        '[[methods]]\nmethod = "linear"\nsettings.train.epochs = 1\n'
    )
    assert main(["--suite", str(suite), "--out", str(out), "--jobs", "1"]) == 0
    store = Store(out)
    table = store.read_validation()
    assert len(table) == 4 and set(table["operating_point"]) == {"balanced", "other_recall=0.9"}
    assert store.cell("circles", "linear", 0).record()["meta"]["seconds"]["validate"] > 0

    class Older:
        def record(self):
            return {"meta": {}}

    store.write_validation([Older()])
    assert not (out / "validation.csv").exists() and store.read_validation().empty
