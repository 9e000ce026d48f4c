"""bench.compare --tune and bench.tune from the command line, on an embedded data set."""

import json

import pandas as pd
import pytest
from report_page import content

from bench.compare import main as compare
from bench.suites.suite import load_suite
from bench.tune.__main__ import main as tune

SMALL = ["--datasets", "digits_38", "--methods", "linear", "cayley", "--norms", "l2", "--jobs", "1"]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A run whose two methods were tuned for a second each, and what it printed."""
    out = tmp_path_factory.mktemp("tuned") / "out"
    assert compare(["--tune", "0.02", *SMALL, "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_one_command_tunes_and_compares(tuned):
    run = json.loads((tuned / "run.json").read_text())
    assert run["configuration"]["tuned_minutes"] == 0.02
    assert list(run["methods"]) == ["linear_l2", "cayley_l2"]
    summary = pd.read_csv(tuned / "summary.csv")
    assert set(summary["method"]) == {"linear_l2", "cayley_l2"}
    assert set(summary["norm"]) == {"l2"}
    assert (summary["median_radius"] > 0).any()


@pytest.mark.slow
def test_every_candidate_is_listed_and_goes_with_the_run(tuned):
    listed = pd.read_csv(tuned / "tuning" / "candidates.csv")
    assert (tuned / "candidates.csv").read_bytes() == (tuned / "tuning" / "candidates.csv").read_bytes()
    spent = listed.groupby("method")["seconds"].sum()
    assert ((spent > 0.9 * 1.2) & (spent < 1.1 * 1.2)).all()
    assert (listed.groupby("method")["chosen"].sum() == 1).all()
    suite = load_suite(str(tuned / "tuning" / "suite.toml"))
    for row in listed[listed["chosen"]].itertuples():
        entry = next(entry for entry in suite.methods if entry.name == row.method)
        assert entry.settings_for("digits_38").train.epochs == row.epochs
        assert entry.norms == ("l2",)
        assert entry.datasets == ("digits_38",)


@pytest.mark.slow
def test_tables_figures_and_report_say_how_it_was_tuned(tuned):
    shown = content((tuned / "report.html").read_text(encoding="utf-8"))
    assert "tuned, 0.02 minutes each" in shown["notes"]
    listed = pd.read_csv(tuned / "candidates.csv")
    table = pd.DataFrame(shown["candidates"]["rows"], columns=shown["candidates"]["columns"])
    assert len(table) == len(listed) and set(table["state"]) == set(listed["state"])
    claim, figure = (tuned / "claim.md", next((tuned / "figures").glob("*_certified_accuracy.pdf")))
    assert figure.exists() and (not claim.exists() or "tuned, 0.02 minutes each" in claim.read_text())


@pytest.mark.slow
def test_the_same_command_searches_no_more(tuned, capsys):
    before = pd.read_csv(tuned / "tuning" / "candidates.csv")
    assert compare(["--tune", "0.02", *SMALL, "--out", str(tuned)]) == 0
    assert "Tuned, 0.02 minutes each" in capsys.readouterr().out
    pd.testing.assert_frame_equal(pd.read_csv(tuned / "tuning" / "candidates.csv"), before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--minutes", "0"], ["0 minutes", "> 0"]),
        (["--minutes", "inf"], ["inf minutes"]),
        (["--minutes", "1", "--recall-floor", "1"], ["--recall-floor 1", "below 1"]),
        (["--minutes", "1", "--norms", "l1", "--methods", "cayley"], ["radii of its own in l1"]),
        (["--minutes", "1", "--datasets", "digts_38"], ["digts_38"]),
        (["--minutes", "1", "--backend", "dask", "--scheduler", "tcp://x:1"], ["this machine only"]),
        ([], ["--minutes"]),
    ],
)
def test_bad_usage_is_one_line_and_starts_nothing(tmp_path, capsys, options, words):
    assert tune([*options, "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    for word in words:
        assert word in message
    assert not (tmp_path / "out").exists()
