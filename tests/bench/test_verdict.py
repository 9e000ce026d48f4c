"""The verdict that a report opens with: who leads, by what factor, and what attacks found."""

import math
from pathlib import Path

import pandas as pd
import pytest
from report_runs import METHODS, predictions_of, radii_of, write_run

from bench.kept.store import Store
from bench.report.claim import central_claim
from bench.report.verdict import claim_of, verdict

NOTHING = pd.DataFrame(columns=["attacked", "broken", "allowed"])
TITLES = {"methods": {"fcnn": {"title": "FCNN"}, "rival": {"title": "The rival"}}}


def claim(*rows: dict) -> pd.DataFrame:
    usual = {
        **{
            "dataset": "a",
            "operating_point": "balanced",
            "norm": "l1",
            "comparison": "refined",
            "level": 0.5,
        },
        **{"fcnn": "fcnn", "fcnn_radius": 2.0, "competitor": "rival", "competitor_radius": 1.0},
        **{"factor": 2.0, "factor_lower": 1.5, "factor_upper": 2.5},
    }
    return pd.DataFrame([{**usual, **row} for row in rows])


BEHIND = {"fcnn_radius": 0.4, "factor": 0.4, "factor_lower": 0.3, "factor_upper": 0.5}


def said(table: pd.DataFrame, attacked: pd.DataFrame = NOTHING) -> dict:
    return verdict(TITLES, pd.DataFrame(), pd.DataFrame(), table, attacked, ["balanced", "other_recall=0.99"])


@pytest.mark.parametrize(
    ("row", "standing", "leader", "words"),
    [
        ({}, "ahead", "fcnn", "FCNN leads, its radius at 50% certified accuracy is 2 times (1.5 to 2.5)"),
        (BEHIND, "behind", "rival", "FCNN is behind"),
        ({"factor_lower": 0.9}, "even", "fcnn", "FCNN is level"),
        (
            {"competitor": "", "competitor_radius": 0.0, "factor": math.inf, "factor_lower": math.inf},
            "ahead",
            "fcnn",
            "FCNN leads: no other method certifies 50%",
        ),
    ],
)
def test_standing_follows_the_band_and_the_leader_the_larger_radius(row, standing, leader, words):
    found = said(claim(row))
    (cell,) = found["cells"]
    assert (cell["standing"], cell["leader"]) == (standing, leader)
    assert words in found["sentences"][0]["text"]


def test_several_data_sets_share_a_sentence_and_each_operating_point_has_its_own():
    rows = [{}, {"dataset": "b", **BEHIND}, {"norm": "l2"}, {"operating_point": "other_recall=0.99"}]
    found = said(claim(*rows))
    texts = [sentence["text"] for sentence in found["sentences"]]
    assert texts[0] == "ℓ1: FCNN leads on 1 of 2 data sets (a × 2); is behind on 1 of 2 data sets (b × 0.4)."
    assert [sentence["point"] for sentence in found["sentences"]] == [
        "balanced recalls",
        "balanced recalls",
        "other class's recall >= 0.99",
    ]


def test_where_nobody_reaches_half_of_the_inputs_a_quarter_decides():
    nobody = {"fcnn": "", "fcnn_radius": 0.0, "competitor": "", "competitor_radius": 0.0}
    found = said(claim({**nobody, "level": 0.5}, {**BEHIND, "level": 0.25}, {"level": 0.75}))
    (cell,) = found["cells"]
    assert (cell["level"], cell["leader"], cell["factor"]) == (0.25, "rival", "0.4")


def test_what_attacks_found_is_said_whatever_it_is():
    counts = {
        "none was broken": (9, 0, 0),
        "no more than the probabilistic": (9, 1, 1),
        "1 curve more": (9, 2, 1),
    }
    for words, row in counts.items():
        attack = said(claim({}), pd.DataFrame([row], columns=NOTHING.columns))["attack"]
        assert words in attack["text"] and attack["bad"] == (row[1] > row[2])
    assert "not attacked" in said(claim({}))["attack"]["text"]


def test_the_claim_is_read_where_this_version_wrote_it_and_else_computed(tmp_path: Path):
    out = write_run(tmp_path / "out", radii_of("tiny"), [predictions_of("tiny")])
    run, radii, predictions = Store(out).read_run()
    exact = central_claim(radii, METHODS)
    assert len(exact) == 18
    Store(out).write_table("claim.csv", exact)
    read = claim_of(out, run, radii, predictions)
    pd.testing.assert_frame_equal(read, exact, check_dtype=False)
    # Earlier versions knew no operating points, and other methods as FCNN's.
    Store(out).write_table("claim.csv", exact.drop(columns="operating_point").assign(factor=99.0))
    pd.testing.assert_frame_equal(claim_of(out, run, radii, predictions), exact, check_dtype=False)


def test_a_run_of_fcnn_alone_names_whose_radius_is_largest(tmp_path: Path):
    frames = [frame for frame in radii_of("tiny") if frame["method"].iloc[0] == "fcnn"]
    out = write_run(tmp_path / "out", frames, [predictions_of("tiny", ("fcnn",))])
    run, radii, predictions = Store(out).read_run()
    alone = claim_of(out, run, radii, predictions)
    found = verdict(run, radii, predictions, alone, NOTHING, ["balanced"])
    assert not found["compared"] and [cell["leader"] for cell in found["cells"]] == ["fcnn"] * 3
    assert "Feature-convex network has the largest radius" in found["sentences"][0]["text"]
