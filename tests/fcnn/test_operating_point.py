"""Thresholds and probabilities from held-out scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnn.operating_point import Probability, choose_threshold


def scores_of(seed: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    sensitive = rng.random(rows) < 0.3
    sensitive[:2] = True, False
    scores = np.round(rng.standard_normal(rows) + sensitive, 1)  # with ties
    return scores, sensitive, rng.integers(1, 4, rows).astype(float)


def recalls(threshold, scores, sensitive, weight):
    caught = scores > threshold
    return (
        np.average(caught[sensitive], weights=weight[sensitive]),
        np.average(~caught[~sensitive], weights=weight[~sensitive]),
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_other_recall_is_reached_and_no_lower_threshold_reaches_it(seed, wanted):
    scores, sensitive, weight = scores_of(seed)
    threshold = choose_threshold(scores, sensitive, weight, wanted)
    assert recalls(threshold, scores, sensitive, weight)[1] >= wanted - 1e-9
    lower = np.unique(scores)[np.unique(scores) < threshold]
    if len(lower):
        below = recalls(np.nextafter(lower[-1], -np.inf), scores, sensitive, weight)[1]
        assert below < wanted or threshold < scores.min()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_balanced_recalls_are_as_close_as_any_up_to_half_a_row(seed):
    scores, sensitive, weight = scores_of(seed)
    caught, other = recalls(choose_threshold(scores, sensitive, weight), scores, sensitive, weight)
    values = np.unique(scores)
    tried = [recalls(t, scores, sensitive, weight) for t in [values[0] - 1, *values]]
    tolerance = 0.5 / min(sensitive.sum(), (~sensitive).sum())
    assert abs(caught - other) <= min(abs(one - two) for one, two in tried) + tolerance + 1e-9


def test_in_an_empty_gap_the_place_is_as_far_from_both_in_deviations():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.standard_normal(500), 20 + 3 * rng.standard_normal(20)])
    sensitive = np.arange(520) >= 500
    assert choose_threshold(scores, sensitive, np.ones(520)) == pytest.approx(5, abs=1)


def test_platt_finds_the_logistic_law_that_made_the_labels():
    rng = np.random.default_rng(0)
    scores = 50 * rng.standard_normal(20_000)
    sensitive = rng.random(20_000) < 1 / (1 + np.exp(-(0.04 * scores - 1.5)))
    found = Probability.fit(scores, sensitive, np.ones(20_000))
    assert (found.slope, found.offset) == (pytest.approx(0.04, rel=0.05), pytest.approx(-1.5, rel=0.05))
    assert found.score_of(float(found.of(np.array([12.0]))[0])) == pytest.approx(12)


def test_rows_count_by_their_weight_in_the_place_within_a_gap():
    """Means 11 and 1 with deviations sqrt(3) and 1: three rows of four lie at 10, one at 14."""
    scores, sensitive = np.array([10.0, 14.0, 0.0, 2.0]), np.array([True, True, False, False])
    place = choose_threshold(scores, sensitive, np.array([3.0, 1.0, 5.0, 5.0]))
    assert place == pytest.approx((11 + np.sqrt(3)) / (1 + np.sqrt(3)))
    # A place outside the gap is moved to its edge, 5 % of the gap away from the score there.
    wide = np.array([10.0, 10.0, -30.0, 9.0])
    assert choose_threshold(wide, sensitive, np.ones(4)) == pytest.approx(9.95)


@pytest.mark.parametrize("through_zero", [False, True])
def test_weighted_probabilities_are_the_most_likely_ones_for_platts_targets(through_zero):
    """Where the likelihood is largest its derivatives in slope and offset vanish."""
    scores, sensitive, weight = scores_of(3)
    found = Probability.fit(scores, sensitive, weight, through_zero)
    ours, others = sensitive.sum(), (~sensitive).sum()
    target = np.where(sensitive, (ours + 1) / (ours + 2), 1 / (others + 2))
    excess = weight * (found.of(scores) - target)
    assert abs(excess @ scores) < 1e-2 * (weight @ np.abs(scores))
    if through_zero:
        assert found.offset == 0
    else:
        assert abs(excess.sum()) < 1e-2 * weight.sum()


@pytest.mark.parametrize("scores", [np.array([3.0, 3.0, 3.0, 3.0]), np.array([4.0, 3.0, 1.0, 0.0])])
def test_useless_or_reversed_scores_still_give_a_rising_probability(scores):
    found = Probability.fit(scores, np.array([False, False, True, True]), np.ones(4))
    assert found.slope > 0 and np.isfinite(found.of(np.array([-1e9, 0, 1e9]))).all()
