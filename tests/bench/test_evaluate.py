"""Cells: complete rows, the right outcome for each input, errors as rows."""

import numpy as np
import pytest
from synthetic import MeanThreshold, blobs, plan

from bench.contract import Curve, Outcome, Radii
from bench.kept.batches import spread
from bench.kept.rows import check_predictions, check_radii
from bench.running.evaluate import Evaluation, chosen_test_inputs, describe, failed


def evaluate(method: MeanThreshold, **changes: object):
    result = Evaluation(method, blobs(), plan(**changes)).run()
    return check_radii(result.radii), check_predictions(result.predictions), result


def test_one_row_per_sensitive_input_and_norm_with_its_exact_radius():
    data = blobs()
    radii, predictions, result = evaluate(MeanThreshold())
    sensitive = np.flatnonzero(data.y_test)
    assert len(radii) == 3 * len(sensitive)
    assert list(predictions["index"]) == list(range(len(data.y_test)))
    row = radii[(radii["norm"] == "l1") & (radii["index"] == sensitive[0])].iloc[0]
    margin = data.x_test[sensitive[0]].astype(float).mean() - 0.5
    assert row["radius"] == pytest.approx(4 * margin, rel=1e-5)
    assert not result.errors


def test_misclassified_inputs_have_no_radius():
    from synthetic import MeanSettings

    radii, _, _ = evaluate(MeanThreshold(MeanSettings(level=0.72)))
    missed = radii["outcome"] == Outcome.MISCLASSIFIED
    assert 0 < missed.sum() < len(radii)
    assert radii.loc[missed, "radius"].isna().all()
    assert (radii.loc[missed, "predicted"] == 0).all()


class Abstaining(MeanThreshold):
    def predict(self, x, seed):
        predicted = super().predict(x, seed)
        predicted[::2] = -1
        return predicted


def test_an_abstention_is_a_missing_prediction():
    radii, predictions, _ = evaluate(Abstaining())
    assert (radii["outcome"] == Outcome.ABSTAINED).any()
    assert predictions["predicted"].isna().sum() == len(predictions) / 2


class AbstainingLate(MeanThreshold):
    def certify(self, x, curve, norms, seed):
        return {norm: Radii.without(len(x), Outcome.ABSTAINED, "") for norm in norms}


def test_an_abstention_of_the_certificate_also_counts_as_one_of_the_prediction():
    radii, predictions, _ = evaluate(AbstainingLate())
    assert radii["predicted"].isna().all()
    assert predictions.loc[predictions["label"] == 1, "predicted"].isna().all()
    assert predictions.loc[predictions["label"] == 0, "predicted"].notna().all()


def test_what_was_not_certified_has_no_draws_and_no_upper_end():
    one = Radii(np.array([2.0]), np.array([Outcome.CERTIFIED]), np.array([3.0]), np.array([500.0]))
    found = spread(one, np.array([1]), np.array([0, 1, -1]))
    assert found.outcome.tolist() == [Outcome.MISCLASSIFIED, Outcome.CERTIFIED, Outcome.ABSTAINED]
    assert found.radius.tolist() == [0.0, 2.0, 0.0] and found.uppers.tolist() == [np.inf, 3.0, np.inf]
    np.testing.assert_array_equal(found.counted, [np.nan, 500.0, np.nan])


class OneNorm(MeanThreshold):
    def curves(self):
        return [Curve("exact", norms=("l2",), native=())]


def test_a_norm_that_is_not_offered_is_unsupported_with_a_reason():
    radii, _, _ = evaluate(OneNorm())
    by_norm = radii.groupby("norm")["outcome"].unique()
    assert list(by_norm["l1"]) == list(by_norm["linf"]) == [Outcome.UNSUPPORTED]
    assert "l1" in radii.loc[radii["norm"] == "l1", "reason"].iloc[0]
    assert not radii["native"].any()


def test_seconds_are_those_of_the_call_however_many_norms_it_covers(monkeypatch):
    """On a clock that only the method moves: 12 s for a batch of certificates, 3 s for one of predictions."""
    now = [0.0]
    monkeypatch.setattr("bench.running.batch_runner.time.perf_counter", lambda: now[0])

    class Slow(MeanThreshold):
        batch_size = 10

        def curves(self):
            return [Curve("exact", norms=("l1", "linf"))]

        def predict(self, x, seed):
            now[0] += 3.0
            return super().predict(x, seed)

        def certify(self, x, curve, norms, seed):
            now[0] += 12.0
            return super().certify(x, curve, norms, seed)

    radii, predictions, result = evaluate(Slow())
    certified, sensitive = (predictions["predicted"] == 1) & (predictions["label"] == 1), blobs().y_test.sum()
    assert certified.sum() == sensitive > 10
    each = 12.0 * -(-sensitive // 10) / sensitive
    by_norm = dict(list(radii.groupby("norm")))
    for norm in ("l1", "linf"):
        assert by_norm[norm]["seconds"].to_numpy() == pytest.approx(each)
        assert (by_norm[norm]["norms_in_call"] == 2).all()
    assert (by_norm["l2"]["seconds"] == 0).all() and (by_norm["l2"]["norms_in_call"] == 0).all()
    batches = -(-len(predictions) // 10)
    assert predictions["seconds"].to_numpy() == pytest.approx(3.0 * batches / len(predictions))
    assert result.seconds["certify"] == 12.0 * -(-sensitive // 10)
    assert result.seconds["predict"] == 3.0 * batches


BROKEN = {
    "NaN radii": lambda x, norms: {
        norm: Radii(np.full(len(x), np.nan), np.full(len(x), Outcome.CERTIFIED)) for norm in norms
    },
    "wrong shape": lambda x, norms: {norm: Radii.from_radius(np.ones(len(x) + 1)) for norm in norms},
    "two dimensions": lambda x, norms: {norm: Radii.from_radius(np.ones((len(x), 1))) for norm in norms},
    "negative": lambda x, norms: {
        norm: Radii(-np.ones(len(x)), np.full(len(x), Outcome.CERTIFIED)) for norm in norms
    },
    "certified zero": lambda x, norms: {
        norm: Radii(np.zeros(len(x)), np.full(len(x), Outcome.CERTIFIED)) for norm in norms
    },
    "invented outcome": lambda x, norms: {norm: Radii(np.ones(len(x)), ["fine"] * len(x)) for norm in norms},
    "missing norm": lambda x, norms: {},
    "an exception": lambda x, norms: 1 / 0,
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_breaks_the_contract_becomes_error_rows(what):
    class Broken(MeanThreshold):
        def certify(self, x, curve, norms, seed):
            return BROKEN[what](x, norms)

    radii, _, result = evaluate(Broken())
    assert (radii["outcome"] == Outcome.ERROR).all()
    assert radii["radius"].isna().all()
    assert (radii["reason"].str.len() > 10).all()
    assert result.errors


def test_predictions_that_break_the_contract_are_refused():
    class Broken(MeanThreshold):
        def predict(self, x, seed):
            return super().predict(x, seed)[:-1]

    with pytest.raises(RuntimeError, match="predict returned shape"):
        evaluate(Broken())


def test_failed_cells_have_all_their_rows():
    result = failed(MeanThreshold(), blobs(), plan(), Outcome.ERROR, "it broke")
    radii = check_radii(result.radii)
    assert len(radii) == 3 * blobs().y_test.sum()
    assert set(radii["outcome"]) == {Outcome.ERROR}
    check_predictions(result.predictions)


def test_reasons_are_one_line_and_name_no_folders():
    error = OSError("cannot read '/home/someone/data/x.npz'\nratio 3/4 of a/b")
    assert describe(error) == "OSError: cannot read 'x.npz' ratio 3/4 of a/b"


def test_the_chosen_test_inputs_keep_the_classes_shares_and_their_order():
    data = blobs(count=900)
    chosen = chosen_test_inputs(data, 90)
    assert len(chosen) == 90
    assert data.y_test[chosen].mean() == pytest.approx(data.y_test.mean(), abs=0.01)
    assert (np.diff(chosen) > 0).all()
    assert (chosen == chosen_test_inputs(data, 90)).all()
    assert len(chosen_test_inputs(data, 0)) == len(data.y_test)


def test_calibration_sees_the_split_it_is_told():
    seen = []

    class Noting(MeanThreshold):
        def calibrations(self, x, y, seed, points):
            seen.append(len(x))
            return super().calibrations(x, y, seed, points)

    data = blobs(count=240)
    for choice in ("validation", "test", "none"):
        radii = Evaluation(Noting(), data, plan(calibrate=choice, test_inputs=30)).run().radii
        assert set(radii["calibrated_on"]) == {choice}
    assert seen == [len(data.y_val), 30]


class Seeing(MeanThreshold):
    def calibrations(self, x, y, seed, points):
        self.seen = x, y
        return super().calibrations(x, y, seed, points)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_thresholds_are_chosen_on_the_inputs_of_the_split_with_their_own_labels(split):
    data, method = blobs(), Seeing()
    Evaluation(method, data, plan(calibrate=split, test_inputs=20)).run()
    index = chosen_test_inputs(data, 20)
    chosen = {"validation": (data.x_val, data.y_val), "test": (data.x_test[index], data.y_test[index])}
    assert all(np.array_equal(seen, own) for seen, own in zip(method.seen, chosen[split], strict=True))


def test_methods_have_random_numbers_in_common_and_nothing_else_does():
    seed = plan("fcnn").seed_for("fit")
    assert plan("cayley").seed_for("fit") == seed
    others = [plan(seed=1), plan(suite_seed=1), plan(dataset="moons")]
    seeds = {seed, plan().seed_for("build"), *(other.seed_for("fit") for other in others)}
    assert len(seeds) == 5
