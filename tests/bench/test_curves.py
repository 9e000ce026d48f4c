"""Certified accuracy and its band, against counting by hand and against the binomial distribution."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.report.tables.curves import (
    CURVE_COLUMNS,
    ENVELOPE,
    accuracy_by_seed,
    certified_curves,
    clopper_pearson,
    confidence_band,
    envelopes,
    radius_grid,
)

CURVE = {
    "dataset": "d",
    "method": "m",
    "certificate": "c",
    "norm": "l2",
    "domain": "free",
    "operating_point": "balanced",
}


def rows(radii: list[float | None], seed: int = 0, **change: str) -> pd.DataFrame:
    """Rows of one curve and seed; None stands for an input that is not certified."""
    frame = pd.DataFrame(
        {"radius": pd.array(radii, dtype="Float64"), "seed": seed, "index": range(len(radii))}
    )
    frame["outcome"] = np.where(frame["radius"].isna(), "timeout", "certified")
    return frame.assign(**{**CURVE, **change})


def test_share_counts_every_sensitive_input_and_a_radius_equal_to_r() -> None:
    shares, inputs = accuracy_by_seed(rows([1.0, 2.0, float("inf"), None]), [0.0, 1.0, 1.5, 2.0, 2.1, 1e300])
    assert inputs == 4
    assert shares.tolist() == [[0.75, 0.75, 0.5, 0.5, 0.25, 0.25]]


def test_rows_that_are_not_certified_never_count() -> None:
    failed = pd.concat([rows([None, None]), rows([1.0]).assign(index=2)])
    shares, _ = accuracy_by_seed(failed, [0.0])
    assert shares.tolist() == [[1 / 3]]


def test_seeds_with_different_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[1, 2\] rows"):
        accuracy_by_seed(pd.concat([rows([1.0]), rows([1.0, 2.0], seed=1)]), [0.0])


@pytest.mark.parametrize("successes", [0, 1, 7, 19, 20])
def test_clopper_pearson_ends_are_where_the_tail_is_two_and_a_half_percent(successes: int) -> None:
    lower, upper = clopper_pearson(np.array(successes), 20)
    if successes:
        assert stats.binom.sf(successes - 1, 20, lower) == pytest.approx(0.025)
    else:
        assert lower == 0
    if successes < 20:
        assert stats.binom.cdf(successes, 20, upper) == pytest.approx(0.025)
    else:
        assert upper == 1


def test_clopper_pearson_covers_at_least_as_often_as_it_says() -> None:
    lower, upper = clopper_pearson(np.arange(31), 30)
    for truth in np.linspace(0.01, 0.99, 50):
        covered = (lower <= truth) & (truth <= upper)
        assert stats.binom.pmf(np.arange(31), 30, truth)[covered].sum() >= 0.95


def test_band_over_seeds_contains_both_sources_and_stays_in_the_unit_interval() -> None:
    shares = np.array([[0.2, 0.5, 1.0], [0.4, 0.5, 1.0], [0.3, 0.5, 0.9]])
    lower, upper = confidence_band(shares, 100)
    over_inputs = clopper_pearson(shares.mean(axis=0) * 100, 100)
    between = stats.t.ppf(0.975, 2) * shares.std(axis=0, ddof=1) / np.sqrt(3)
    assert (lower <= over_inputs[0]).all() and (upper >= over_inputs[1]).all()
    assert (lower <= np.maximum(shares.mean(axis=0) - between, 0)).all()
    assert np.allclose((lower[1], upper[1]), (over_inputs[0][1], over_inputs[1][1]))  # the seeds agree there
    assert lower.min() >= 0 and upper.max() <= 1


def test_band_over_seeds_covers_the_truth() -> None:
    """Training noise and the draw of test inputs together, simulated."""
    rng, hits, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        difficulty = rng.uniform(size=200)  # one test set, shared by the seeds
        levels = 0.6 + 0.05 * rng.standard_normal(5)  # five trained networks
        shares = (difficulty < levels[:, None]).mean(axis=1)[:, None]
        lower, upper = confidence_band(shares, 200)
        hits += lower[0] <= 0.6 <= upper[0]
    assert hits / trials >= 0.93


def test_grid_is_shared_by_the_methods_of_a_norm_and_reaches_past_the_largest_radius() -> None:
    frame = pd.concat([rows([1.0, 3.0]), rows([0.01, float("inf")], method="other"), rows([8.0], norm="l1")])
    curves = certified_curves(frame)
    assert tuple(curves.columns) == CURVE_COLUMNS
    grids = {key: curve["radius"].tolist() for key, curve in curves.groupby(["norm", "method"])}
    assert grids["l2", "m"] == grids["l2", "other"] != grids["l1", "m"]
    assert {0.0, 0.01, 3.0} <= set(grids["l2", "m"]) and 3.0 < max(grids["l2", "m"]) < 3.1
    last = curves.groupby(["norm", "method"])["certified_accuracy"].last()
    assert last.to_dict() == {("l1", "m"): 0.0, ("l2", "m"): 0.0, ("l2", "other"): 0.5}


def test_curves_never_rise_and_stay_inside_their_band() -> None:
    radii = np.random.default_rng(0).exponential(size=300).tolist() + [None] * 30
    curve = certified_curves(pd.concat([rows(radii), rows(radii[::-1], seed=1)]))
    assert (curve["certified_accuracy"].diff().dropna() <= 0).all()
    assert (curve["lower"] <= curve["certified_accuracy"]).all()
    assert (curve["certified_accuracy"] <= curve["upper"]).all()
    assert set(curve["seeds"]) == {2} and set(curve["inputs"]) == {330}


@pytest.mark.parametrize("radii", [[], [float("inf")]])
def test_grid_without_a_finite_radius_still_has_a_width(radii: list[float]) -> None:
    grid = radius_grid(np.array(radii))
    assert grid[0] == 0 and grid[-1] > 0 and (np.diff(grid) > 0).all()


def test_no_rows_give_no_curves() -> None:
    empty = rows([]).assign(index=[])
    assert certified_curves(empty).empty


def test_an_envelope_takes_the_best_member_at_every_radius():
    radii = [0.0, 1.0, 2.0]
    rows = []
    for method, shares in (("low", [0.9, 0.5, 0.0]), ("high", [0.7, 0.6, 0.4]), ("other", [1.0, 1.0, 1.0])):
        for radius, share in zip(radii, shares, strict=True):
            rows.append(
                {
                    **CURVE,
                    "method": method,
                    "radius": radius,
                    "certified_accuracy": share,
                    "lower": share - 0.1,
                }
            )
    best = envelopes(pd.DataFrame(rows), {"low": "noise", "high": "noise"})
    assert list(best["method"].unique()) == ["noise"]
    assert list(best["certificate"].unique()) == [ENVELOPE]
    assert list(best["certified_accuracy"]) == [0.9, 0.6, 0.4]
    assert list(best["lower"]) == pytest.approx([0.8, 0.5, 0.3])
    assert envelopes(pd.DataFrame(rows), {}).empty
