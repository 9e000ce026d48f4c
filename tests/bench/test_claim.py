"""The central claim: radii at equal certified accuracy, on rows small enough to count by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from bench.claim import main
from bench.report.claim import central_claim, claim_text, radius_at
from bench.report.tables.summary import shown_factor

METHODS = {
    "fcnn": {"method": "fcnn", "title": "FCNN"},
    "as_published": {"method": "fcnn_published", "title": "FCNN, as published"},
    "narrow": {"method": "crown", "title": "Narrow", "guarantee": "deterministic"},
    "voting": {"method": "smoothing_gaussian", "title": "Voting", "guarantee": "probabilistic"},
}


def rows(
    method: str,
    certificate: str,
    radii: list[float],
    domain: str = "free",
    norm: str = "l1",
    point: str = "balanced",
):
    """One curve; a radius of 0 stands for an input that is not certified."""
    values = np.array(radii, dtype=float)
    return pd.DataFrame(
        {
            "dataset": "set",
            "method": method,
            "certificate": certificate,
            "norm": norm,
            "domain": domain,
            "operating_point": point,
            "seed": 0,
            "index": range(len(values)),
            "outcome": np.where(values > 0, "certified", "misclassified"),
            "radius": pd.array(np.where(values > 0, values, np.nan), dtype="Float64"),
        }
    )


def entry(claim: pd.DataFrame, comparison: str, level: float) -> pd.Series:
    return claim[(claim["comparison"] == comparison) & (claim["level"] == level)].iloc[0]


def test_the_radius_at_a_level_is_what_that_share_of_inputs_reaches():
    at = radius_at(np.array([[4.0, 1.0, 3.0, 2.0], [0.0, 0.0, 5.0, 0.0]]), (0.25, 0.5, 0.75, 1.0))
    assert at.tolist() == [[4.0, 3.0, 2.0, 1.0], [5.0, 0.0, 0.0, 0.0]]
    # Half of three inputs are two of them, never one.
    assert radius_at(np.array([[3.0, 2.0, 1.0]]), (0.25, 0.5, 0.75)).tolist() == [[3.0, 2.0, 1.0]]


def test_factors_by_hand():
    table = pd.concat(
        [
            rows("fcnn", "closed_form", [8, 6, 4, 0]),
            rows("fcnn", "refined", [9, 7, 5, 0]),
            rows("fcnn", "refined", [90, 70, 50, 40], domain="box"),
            rows("narrow", "crown", [2, 2, 2, 2]),
            rows("voting", "smoothing", [4, 0, 0, 0]),
        ]
    )
    claim = central_claim(table, METHODS)
    assert entry(claim, "closed form", 0.25)[["factor", "competitor"]].tolist() == [2.0, "voting"]
    assert entry(claim, "closed form", 0.5)[["factor", "competitor"]].tolist() == [3.0, "narrow"]
    assert entry(claim, "refined", 0.75)[["factor", "fcnn_radius"]].tolist() == [2.5, 5.0]
    band = entry(claim, "closed form", 0.5)
    assert band["factor_lower"] <= band["factor"] <= band["factor_upper"]
    text = claim_text(claim, METHODS, "by hand")
    assert "**2** (8 / 4, Voting p;" in text and "**3** (6 / 2, Narrow;" in text


def test_the_band_draws_the_same_inputs_for_both_sides():
    """Twice the competitor's radius on every input: whichever are drawn, the factor is 2."""
    radii = np.random.default_rng(0).permutation(np.arange(1.0, 41.0))
    table = pd.concat([rows("fcnn", "closed_form", list(2 * radii)), rows("narrow", "crown", list(radii))])
    claim = central_claim(table, METHODS)
    assert (claim[["factor_lower", "factor", "factor_upper"]] == 2.0).all(axis=None)
    # Of other orders it has a width: inputs are drawn at all.
    table = pd.concat([rows("fcnn", "closed_form", list(radii)), rows("narrow", "crown", list(radii[::-1]))])
    assert (central_claim(table, METHODS).query("factor_upper > factor_lower")["level"].nunique()) == 3


def test_the_published_networks_are_no_competitors():
    table = pd.concat(
        [
            rows("fcnn", "closed_form", [6, 6]),
            rows("as_published", "closed_form", [8, 8]),
            rows("narrow", "crown", [2, 2]),
        ]
    )
    best = entry(central_claim(table, METHODS), "closed form", 0.5)
    assert best[["fcnn", "factor", "competitor"]].tolist() == ["as_published", 4.0, "narrow"]


def test_a_level_that_only_one_side_reaches():
    table = pd.concat(
        [rows("fcnn", "closed_form", [8, 6, 0, 0]), rows("narrow", "crown", [2, 0, 0, 0])], ignore_index=True
    )
    claim = central_claim(table, METHODS)
    assert math.isinf(entry(claim, "closed form", 0.5)["factor"])
    assert math.isnan(entry(claim, "closed form", 0.75)["factor"])
    assert "only FCNN (6)" in claim_text(claim, METHODS, "one side")


def test_each_operating_point_is_compared_for_itself():
    table = pd.concat(
        [
            rows("fcnn", "closed_form", [8, 8], point="balanced"),
            rows("narrow", "crown", [2, 2], point="balanced"),
            rows("fcnn", "closed_form", [3, 3], point="other_recall=0.99"),
            rows("narrow", "crown", [1, 1], point="other_recall=0.99"),
        ]
    )
    claim = central_claim(table, METHODS)
    factors = claim[(claim["level"] == 0.5) & (claim["comparison"] == "closed form")]
    assert dict(zip(factors["operating_point"], factors["factor"], strict=True)) == {
        "balanced": 4.0,
        "other_recall=0.99": 3.0,
    }
    text = claim_text(claim, METHODS, "two points")
    assert "## FCNN, closed form: balanced recalls" in text
    assert "## FCNN, closed form: other class's recall >= 0.99" in text


def test_a_method_near_chance_is_never_the_best_competitor():
    table = pd.concat(
        [
            rows("fcnn", "closed_form", [6, 6]),
            rows("narrow", "crown", [2, 2]),
            rows("voting", "smoothing", [90, 90]),
        ]
    )
    left_out = {("set", "voting", "balanced")}
    best = entry(central_claim(table, METHODS, left_out), "closed form", 0.5)
    assert best[["competitor", "factor"]].tolist() == ["narrow", 3.0]
    text = claim_text(central_claim(table, METHODS, left_out), METHODS, "chance", left_out)
    assert "No competitor on set (balanced recalls): Voting." in text
    # FCNN stays where it is far below the others, or its defeats would go unsaid.
    ours = {("set", "fcnn", "balanced")}
    lost = entry(central_claim(table, METHODS, ours), "closed form", 0.5)
    assert lost[["competitor", "fcnn_radius"]].tolist() == ["voting", 6.0]
    text = claim_text(central_claim(table, METHODS, ours), METHODS, "chance", ours)
    assert "Near chance, or far below the others on set (balanced recalls): FCNN." in text


def test_a_method_is_left_out_at_the_operating_point_where_it_is_near_chance():
    points = ("balanced", "other_recall=0.99")
    curves = {"fcnn": ("closed_form", 6), "narrow": ("crown", 2), "voting": ("smoothing", 90)}
    table = [rows(name, kind, [r, r], point=point) for name, (kind, r) in curves.items() for point in points]
    claim = central_claim(pd.concat(table), METHODS, {("set", "voting", points[1])})
    best = claim[(claim["level"] == 0.5) & (claim["comparison"] == "closed form")]
    assert best.set_index("operating_point")["competitor"].to_dict() == dict(
        zip(points, ("voting", "narrow"), strict=True)
    )


def test_nothing_to_compare_gives_no_rows():
    assert central_claim(rows("narrow", "crown", [1, 2]), METHODS).empty
    assert central_claim(rows("fcnn", "closed_form", [1, 2]), METHODS).empty


def test_methods_tested_on_different_inputs_are_refused():
    table = pd.concat([rows("fcnn", "closed_form", [1, 2, 3]), rows("narrow", "crown", [1, 2])])
    with pytest.raises(ValueError, match="different inputs"):
        central_claim(table, METHODS)


def test_a_folder_without_a_run_is_bad_usage(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "not the output folder of a finished run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (1.0399, "1.03"),
        (0.999, "0.99"),
        (1.0, "1"),
        (10.0, "10"),
        (12.345, "12.34"),
        (234.0, "230"),
        (0.0345, "0.034"),
        (0.0, "0"),
        (float("inf"), "inf"),
    ],
)
def test_a_factor_is_cut_and_tells_apart_what_is_close_to_one(factor, text):
    assert shown_factor(factor) == text
