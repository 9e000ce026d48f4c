"""Operating points: the threshold by hand, what a split resolves, texts, and one network at several points."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from synthetic import MeanThreshold, blobs, plan, tensor

from bench.basics.errors import UsageError
from bench.calibration import (
    BALANCED_POINT,
    Calibration,
    OperatingPoint,
    ThresholdedScore,
    calibrated_threshold,
    parse_points,
    resolves,
    shown_point,
)
from bench.contract import Curve, LinearScore, Method, Outcome, Radii
from bench.kept.points import file_part
from bench.kept.rows import check_predictions, check_radii
from bench.running.evaluate import Evaluation

POINTS = ("balanced", "other_recall=0.9", "other_recall=0.99")
scores_and_labels = st.lists(st.tuples(st.integers(-20, 20), st.booleans()), min_size=2, max_size=60).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


def test_texts_are_read_and_written_in_one_form():
    assert parse_points(["balanced", "other_recall=0.990", "other_recall=.99"]) == (
        "balanced",
        "other_recall=0.99",
    )
    assert OperatingPoint.parse("other_recall=0.999") == OperatingPoint(0.999)
    assert shown_point("other_recall=0.99") == "other class's recall >= 0.99"


@pytest.mark.parametrize(
    "text", ["", "best", "other_recall", "other_recall=1", "other_recall=0", "other_recall=nan", "recall=0.9"]
)
def test_other_texts_are_one_line_of_bad_usage(text):
    with pytest.raises(UsageError, match=r"operating point .*: write balanced, or other_recall=Q"):
        OperatingPoint.parse(text)
    with pytest.raises(UsageError, match="no operating point given"):
        parse_points([])


def test_the_threshold_for_a_recall_by_hand():
    others, sensitive = [0.0, 1.0, 2.0, 3.0], [2.5, 6.0]
    scores, y = tensor(*others, *sensitive), tensor(0, 0, 0, 0, 1, 1)
    # Three of four others must stay at or below it; the next higher score of either class is 2.5.
    assert calibrated_threshold(scores, y, OperatingPoint(0.75)) == 2.25
    assert calibrated_threshold(scores, y, OperatingPoint(0.5)) == 1.5
    assert calibrated_threshold(scores, y, OperatingPoint(0.76)) == 4.5
    # 0.7 of 10 is 7 and not, by rounding, 8.
    ten = tensor(*range(10), 20)
    assert calibrated_threshold(ten, tensor(*[0] * 10, 1), OperatingPoint(0.7)) == 6.5


def test_ties_are_kept_together():
    scores, y = tensor(0, 1, 1, 1, 2, 5), tensor(0, 0, 0, 0, 0, 1)
    assert calibrated_threshold(scores, y, OperatingPoint(0.4)) == 1.5
    # Sensitive inputs that share the score are lost with it.
    scores, y = tensor(0, 1, 1, 1), tensor(0, 0, 1, 1)
    assert calibrated_threshold(scores, y, OperatingPoint(0.9)) == 1.0


@given(scores_and_labels, st.sampled_from([0.5, 0.9, 0.99]))
def test_the_threshold_for_a_recall_is_the_smallest_that_keeps_it(rows, recall):
    scores, y = tensor(*(score for score, _ in rows)), tensor(*(float(label) for _, label in rows))
    threshold = calibrated_threshold(scores, y, OperatingPoint(recall))
    kept = (scores[y == 0] <= threshold).double().mean()
    assert kept >= recall - 1e-9
    lower = scores[scores < threshold]
    if len(lower):  # anything below the last score that it lies above keeps fewer
        assert (scores[y == 0] < lower.max()).double().mean() < recall


def test_balanced_recalls_come_first_then_the_higher_ones_then_the_wider_gap():
    scores, y = tensor(0.0, 1.0, 2.0, 3.0, 7.0, 8.0), tensor(0, 0, 0, 1, 1, 1)
    assert calibrated_threshold(scores, y, OperatingPoint()) == 2.5
    overlapping = tensor(0.0, 2.0, 1.0, 3.0)
    assert calibrated_threshold(overlapping, tensor(0, 0, 1, 1), OperatingPoint()) == 1.5
    for broken, message in ((tensor(1, 1, 1, 1), "both classes"), (tensor(0, 0, 1, 1), "NaN")):
        with pytest.raises(ValueError, match=message):
            calibrated_threshold(
                overlapping * (float("nan") if message == "NaN" else 1), broken, OperatingPoint()
            )


def test_what_a_split_resolves():
    assert resolves("other_recall=0.99", 100) and not resolves("other_recall=0.99", 99)
    assert resolves("other_recall=0.999", 1000) and not resolves("other_recall=0.999", 97)
    assert resolves("balanced", 1) and resolves("given", 0)


class Thresholded(MeanThreshold):
    """As its base, with a threshold that the suite may set."""

    calibrations = Method.calibrations

    def network(self, input_shape):
        size = int(np.prod(input_shape))
        return ThresholdedScore(LinearScore(torch.full((size,), 1 / size), -self.settings.level))

    def score(self, x):
        return self.model(x)


class Sharing(Thresholded):
    """Certifies at all thresholds in one call."""

    def shares_thresholds(self, curve):
        return True

    def certify_at(self, x, thresholds, wanted, curve, norms, seed):
        self.model.threshold.zero_()
        scores, size = self.score(x).double(), x[0].numel()
        factor = {"l1": size, "l2": size**0.5, "linf": 1.0}
        return [
            {norm: Radii.from_radius((scores[chosen] - at) * factor[norm]) for norm in norms}
            for at, chosen in zip(thresholds, wanted, strict=True)
        ]


def close_blobs():
    return blobs(shift=0.12, count=300)


@pytest.mark.parametrize("kind", [Thresholded, Sharing])
def test_several_points_of_one_run_are_those_of_separate_runs(kind):
    data = close_blobs()
    together = Evaluation(kind(), data, plan(points=POINTS)).run()
    radii, predictions = check_radii(together.radii), check_predictions(together.predictions)
    assert radii["operating_point"].nunique() == len(POINTS)
    recalls = []
    for point in POINTS:
        alone = Evaluation(kind(), data, plan(points=(point,))).run()
        for mine, other in (
            (radii, check_radii(alone.radii)),
            (predictions, check_predictions(alone.predictions)),
        ):
            mine = mine[mine["operating_point"] == point].reset_index(drop=True)
            pd.testing.assert_frame_equal(mine.drop(columns="seconds"), other.drop(columns="seconds"))
        others = predictions[(predictions["operating_point"] == point) & (predictions["label"] == 0)]
        recalls.append((others["predicted"] == 0).mean())
    assert recalls[1] < recalls[2]


def test_each_row_says_what_its_threshold_was_chosen_on():
    data = close_blobs()
    result = Evaluation(Thresholded(), data, plan(points=POINTS)).run()
    others = int((data.y_val == 0).sum())
    assert set(result.radii["calibration_others"]) == {others}
    by_point = {found.point: found for found in result.calibrations}
    assert by_point["other_recall=0.9"].false_positives <= 0.1 * others
    assert by_point["other_recall=0.9"].threshold < by_point["other_recall=0.99"].threshold
    for point, rows in result.predictions.groupby("operating_point"):
        # The score is what is above the threshold.
        assert ((rows["score"] > 0) == (rows["predicted"] == 1)).all(), point


@pytest.mark.parametrize("kind", [Thresholded, Sharing])
def test_a_radius_is_the_margin_above_the_threshold_that_predicts(kind):
    result = Evaluation(kind(), close_blobs(), plan(points=POINTS)).run()
    rows = check_radii(result.radii)
    rows = rows[(rows["norm"] == "linf") & (rows["outcome"] == Outcome.CERTIFIED)]
    scored = rows.merge(check_predictions(result.predictions), on=["operating_point", "index"])
    assert len(scored) == len(rows) > 30 and rows["operating_point"].nunique() == len(POINTS)
    np.testing.assert_allclose(scored["radius"].astype(float), scored["score"].astype(float), atol=1e-6)


class Between(Thresholded):
    """Abstains within 1/16 of its threshold."""

    def decision_range(self, x, seed):
        return x[:, 0] - 1 / 16, x[:, 0] + 1 / 16


def test_an_abstention_is_a_miss_and_a_score_at_the_threshold_no_false_positive():
    """Others count as right from 3/16, 5/16 and 7/16 on, sensitive ones up to 2/16 and 4/16."""
    method, x = Between(), tensor(2, 4, 6, 3, 5)[:, None] / 16
    method.build((1,), seed=0)
    y = tensor(0, 0, 0, 1, 1)
    half, all_of_them = method.calibrations(x, y, 0, [OperatingPoint(0.5), OperatingPoint(0.99)])
    assert (half.threshold, half.false_positives, half.others) == (6 / 16, 1, 3)
    assert (all_of_them.threshold, all_of_them.false_positives) == (7 / 16, 0)


def test_the_state_is_that_of_the_first_point():
    result = Evaluation(Thresholded(), close_blobs(), plan(points=POINTS[::-1])).run()
    assert float(result.state["threshold"]) == result.calibrations[0].threshold
    assert result.calibrations[0].point == POINTS[-1]


def test_a_threshold_never_falls_below_the_one_chosen_when_a_buffer_rounds_it():
    method = Thresholded()
    method.build((4,), seed=0)
    for value in (0.1, 1 / 3, -0.1, 1e-9):
        method.set_threshold(value)
        assert value <= method.threshold <= value + 1e-7


def test_an_error_at_one_point_leaves_the_others():
    two = plan(points=("balanced", "other_recall=0.99"))
    low, high = (
        found.threshold for found in Evaluation(Thresholded(), close_blobs(), two).run().calibrations
    )
    assert low < high

    class Broken(Thresholded):
        def certify(self, x, curve, norms, seed):
            if self.threshold == high:
                raise RuntimeError("too high")
            return super().certify(x, curve, norms, seed)

    result = Evaluation(Broken(), close_blobs(), two).run()
    outcomes = result.radii.groupby("operating_point")["outcome"].unique()
    assert Outcome.ERROR in outcomes["other_recall=0.99"] and Outcome.ERROR not in outcomes["balanced"]
    assert result.errors == ["RuntimeError: too high"]


def test_a_method_that_calibrates_itself_is_told_what_to_do_instead():
    with pytest.raises(UsageError, match=r"Old defines calibrate\(\).*decision_range"):

        class Old(MeanThreshold):
            def calibrate(self, x, y, seed):
                pass


def test_a_network_without_a_threshold_is_told_what_it_needs():
    class Bare(MeanThreshold):
        calibrations = Method.calibrations

    with pytest.raises(UsageError, match="no buffer named threshold"):
        Evaluation(Bare(), blobs(), plan()).run()


def test_calibrations_without_thresholds_and_the_given_one_are_points_too():
    rows = Evaluation(MeanThreshold(), blobs(), plan(calibrate="none", points=POINTS)).run().radii
    assert set(rows["operating_point"]) == {"given"} and rows["calibration_others"].isna().all()
    assert Calibration("given", None).others is None
    assert Curve("exact").norms


def test_of_two_thresholds_as_balanced_the_one_with_the_higher_smaller_recall_is_taken():
    # Half of the sensitive inputs are right on either side of 2, but all of the others only above it.
    scores, sensitive = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])
    assert calibrated_threshold(scores, sensitive, BALANCED_POINT) == 2.5


def test_seconds_are_those_of_the_call_however_many_thresholds_it_covers(monkeypatch):
    """One call of 12 s for ten inputs at all thresholds, those of the other recalls included."""
    now = [0.0]
    monkeypatch.setattr("bench.running.batch_runner.time.perf_counter", lambda: now[0])

    class Slow(Sharing):
        batch_size = 10

        def certify_at(self, *asked):
            now[0] += 12.0
            return super().certify_at(*asked)

    data = blobs()
    result = Evaluation(Slow(), data, plan(norms=("l2",), points=("balanced", "other_recall=0.9"))).run()
    radii, calls = check_radii(result.radii), -(-int(data.y_test.sum()) // 10)
    certified = radii[radii["outcome"] == Outcome.CERTIFIED]
    assert certified["operating_point"].nunique() == 2 and len(result.roc) > 2
    assert certified["seconds"].to_numpy() == pytest.approx(12.0 * calls / data.y_test.sum())
    assert result.seconds["certify"] == 12.0 * calls


def test_files_of_the_first_point_have_the_plain_names_whichever_it_is():
    points = ["other_recall=0.99", "balanced"]
    assert [file_part(point, points) for point in points] == ["", "_balanced"]
