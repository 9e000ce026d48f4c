"""The summary against numbers counted by hand, its text within its width, and what run.json may say."""

import json
import socket
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import USUAL_FACTS

from bench.basics.files import seal, unseal
from bench.kept.rows import check_predictions, check_radii
from bench.report.tables.summary import floor_digits, named_radii, recall_table, summarise
from bench.report.tables.summary_text import WIDTH, render_summary
from bench.running.provenance import RunClock, code_commit, run_record, versions

INF, NAN = float("inf"), float("nan")


def curve_rows(outcomes: str, radii: list[float], **change: object) -> pd.DataFrame:
    """Rows of one curve; outcomes as initials: c, m, a (abstained), t, u (unsupported), e."""
    names = {
        "c": "certified",
        "m": "misclassified",
        "a": "abstained",
        "t": "timeout",
        "u": "unsupported",
        "e": "error",
    }
    predicted = {"c": 1, "t": 1, "u": 1, "m": 0, "a": NAN, "e": NAN}
    frame = pd.DataFrame(
        {
            "dataset": "digits",
            "method": "fcnn",
            "certificate": "closed_form",
            "norm": "l2",
            **USUAL_FACTS,
            "seed": 0,
            "index": range(len(outcomes)),
            "predicted": [predicted[letter] for letter in outcomes],
            "outcome": [names[letter] for letter in outcomes],
            "radius": radii,
            "seconds": [2.0 if letter in "ct" else 0.0 for letter in outcomes],
            "norms_in_call": 3,
        }
    )
    return check_radii(frame.assign(**change))


def prediction_rows(labels: list[int], predicted: list[float], **change: object) -> pd.DataFrame:
    frame = pd.DataFrame({"index": range(len(labels)), "label": labels, "predicted": predicted})
    identity = {"dataset": "digits", "method": "fcnn", "seed": 0, "seconds": 0.0}
    identity |= {"operating_point": "balanced", "score": NAN}
    return check_predictions(frame.assign(**{**identity, **change}))


PREDICTIONS = prediction_rows([1, 1, 1, 1, 1, 0, 0], [1, 1, 0, NAN, 1, 0, NAN])


def test_every_number_of_one_curve() -> None:
    table = summarise(curve_rows("ccmat", [3.0, 1.0, NAN, NAN, NAN]), PREDICTIONS, {"l2": [1.0, 2.0]})
    assert len(table) == 1
    row = table.iloc[0]
    assert (row["recall_sensitive"], row["recall_other"]) == (3 / 5, 1 / 2)
    assert row["balanced_accuracy"] == pytest.approx(0.55)
    assert (row["mean_radius"], row["median_radius"]) == (4 / 5, 0.0)
    assert (row["radius_1"], row["certified_accuracy_1"]) == (1.0, 2 / 5)
    assert (row["radius_2"], row["certified_accuracy_2"]) == (2.0, 1 / 5)
    assert row["seconds_per_certificate"] == 2.0
    counts = ["certified", "misclassified", "abstained", "unknown", "timeout", "unsupported", "error"]
    assert row[counts].tolist() == [2, 1, 1, 0, 1, 0, 0]
    assert (row["seeds"], row["inputs"]) == (1, 5)


def test_numbers_of_several_seeds_are_means_and_counts_are_sums() -> None:
    radii = pd.concat([curve_rows("ccc", [1.0, 2.0, 4.0]), curve_rows("cce", [3.0, INF, NAN], seed=1)])
    predictions = pd.concat([prediction_rows([1, 0], [1, 1]), prediction_rows([1, 0], [1, 0], seed=1)])
    row = summarise(radii, predictions, {"l2": [2.0]}).iloc[0]
    assert row["median_radius"] == 2.5  # of 2 and of 3
    assert row["mean_radius"] == INF
    assert row["certified_accuracy_1"] == pytest.approx(2 / 3)
    assert (row["recall_sensitive"], row["recall_other"]) == (1.0, 0.5)
    assert (row["certified"], row["error"], row["seeds"]) == (5, 1, 2)


def test_a_cell_that_failed_has_no_recall_and_no_radius() -> None:
    row = summarise(curve_rows("ee", [NAN, NAN]), PREDICTIONS.iloc[:0]).iloc[0]
    assert np.isnan([row["recall_sensitive"], row["recall_other"], row["seconds_per_certificate"]]).all()
    assert (row["median_radius"], row["error"]) == (0.0, 2)


def test_an_abstention_is_a_miss_in_either_class() -> None:
    assert recall_table(PREDICTIONS) == {("digits", "fcnn", "balanced"): (3 / 5, 1 / 2)}


def test_named_radii_come_from_the_data_set_the_norm_or_the_quartiles() -> None:
    panel = curve_rows("ccccc", [1.0, 2.0, 3.0, 4.0, 5.0])
    assert named_radii({"digits": {"l2": [2, 1]}, "l2": [9]}, "digits", "l2", panel) == (1.0, 2.0)
    assert named_radii({"l2": [9]}, "digits", "l2", panel) == (9.0,)
    assert named_radii({"l1": [9]}, "digits", "l2", panel) == (2.0, 3.0, 4.0)
    assert named_radii({}, "digits", "l2", curve_rows("cm", [INF, NAN])) == ()


@settings(max_examples=300, deadline=None)
@given(st.floats(min_value=1e-300, max_value=1e300), st.integers(1, 6))
def test_cutting_digits_never_rounds_up_and_loses_less_than_one_digit(value: float, digits: int) -> None:
    cut = floor_digits(value, digits)
    assert cut <= value
    assert Fraction(value) - Fraction(cut) <= Fraction(value) / 10 ** (digits - 1) * Fraction(1001, 1000)


def test_cutting_digits_keeps_what_is_short() -> None:
    assert [floor_digits(value, 2) for value in (0.0, 1.0, 0.29, 1.99, 0.999, INF)] == [
        *(0.0, 1.0, 0.29, 1.9, 0.99),
        INF,
    ]


def test_the_text_fits_and_says_what_kind_each_number_is() -> None:
    radii = pd.concat(
        [
            curve_rows("cca", [1.99999, 0.999999, NAN], native=False),
            curve_rows("cct", [1.0, INF, NAN], method="a_method_with_a_very_long_name", domain="box"),
            curve_rows("uum", [NAN, NAN, NAN], method="other", calibrated_on="test"),
        ]
    )
    text = render_summary(summarise(radii, PREDICTIONS))
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    lines = {line.split("/")[0].strip(): line for line in text.splitlines() if "/" in line}
    assert "fcnn/closed_form *" in lines["fcnn"] and "0.9999" in lines["fcnn"] and " 2 " not in lines["fcnn"]
    assert "not certified in this norm" in lines["other"] and "!" in lines["other"]
    assert "(box)" in text and "1 timeout" in text and "1 abstained" in text


def test_small_radii_stay_apart_from_their_neighbours() -> None:
    text = render_summary(summarise(curve_rows("ccc", [0.00087529] * 3), PREDICTIONS))
    assert text.splitlines()[2].split().count("8.75e-04") == 2


def test_a_failed_method_is_called_failed_and_shows_no_numbers() -> None:
    lines = render_summary(summarise(curve_rows("ee", [NAN, NAN]), PREDICTIONS.iloc[:0])).splitlines()
    assert lines[2].split() == ["fcnn/closed_form", "-", "-", "failed"]
    assert lines[3].strip() == "not certified: fcnn/closed_form 2 error"


def test_run_record_counts_outcomes_and_names_no_machine_or_folder(tmp_path: Path) -> None:
    configuration = {"suite": str(tmp_path / "mine.toml"), "data_dir": tmp_path, "norms": ("l2",)}
    record = run_record(
        configuration, {"fcnn": {"title": "FCNN"}}, curve_rows("ccm", [1.0, 2.0, NAN]), RunClock()
    )
    assert record["outcomes"] == {
        **dict.fromkeys(["abstained", "unknown", "timeout", "unsupported", "error"], 0),
        **{"certified": 2, "misclassified": 1},
    }
    text = seal(record).decode()
    assert unseal(seal(record))["methods"] == {"fcnn": {"title": "FCNN"}}
    assert record["configuration"]["suite"] == "mine.toml"
    for private in (
        str(tmp_path.parent),
        str(Path.home()) + "/",
        f'"{socket.gethostname()}"',
        str(Path.cwd()),
    ):
        assert private not in text
    assert set(json.loads(text)) >= {"versions", "hardware", "code", "times", "schema_version", "checksum"}


def test_versions_name_what_numbers_depend_on() -> None:
    assert {"python", "torch", "numpy", "scipy", "pandas"} <= versions().keys()


def test_a_copy_outside_git_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.running.provenance.__file__", str(tmp_path / "provenance.py"))
    assert code_commit() == {"commit": None, "changed": None}
