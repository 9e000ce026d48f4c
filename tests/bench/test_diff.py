"""Comparing two runs names the curves whose bands came apart, and only those."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_runs import METHODS, curve, predictions_of, radii_of, write_run

from bench.commands.diff import compare_runs
from bench.diff import main
from bench.kept.rows import check_radii


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("diff") / "before", radii_of("tiny"), [predictions_of("tiny")])


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with one curve three times shorter, and another without a data set's verifier."""
    frames = radii_of("tiny")
    for frame in frames:
        if (frame["method"].iloc[0], frame["norm"].iloc[0]) == ("smoothing", "l2"):
            frame["radius"] /= 3
    frames = [frame for frame in frames if frame["method"].iloc[0] != "verifier"]
    methods = tuple(name for name in METHODS if name != "verifier")
    return write_run(
        tmp_path_factory.mktemp("diff") / "after", frames, [predictions_of("tiny", methods=methods)]
    )


def radii_between(low: float, high: float) -> pd.DataFrame:
    """One curve of 30 inputs whose radii are spread evenly."""
    return check_radii(curve("d", "fcnn", "c", "l2", radius=np.linspace(low, high, 30)))


def test_a_run_has_not_moved_against_itself(before, tmp_path, capsys):
    assert main([str(before), str(before), "--figure", str(tmp_path / "diff.png")]) == 0
    said = capsys.readouterr().out
    assert "0 of 12 curves moved" in said and "MOVED" not in said
    assert (tmp_path / "diff.png").read_bytes().startswith(b"\x89PNG")


def test_the_curve_that_moved_is_named_with_its_numbers(before, after, tmp_path, capsys):
    assert main([str(before), str(after), "--figure", str(tmp_path / "diff.pdf")]) == 1
    said = capsys.readouterr().out
    moved = [line for line in said.splitlines() if "MOVED" in line]
    assert len(moved) == 1 and all(word in moved[0] for word in ("smoothing", "gaussian", "l2", "30 -> 30"))
    assert "1 of 9 curves moved" in said
    assert said.count("only in OUT1: tiny verifier complete free") == 3 and "only in OUT2" not in said
    assert (tmp_path / "diff.pdf").read_bytes().startswith(b"%PDF")


def test_accuracies_are_those_at_the_named_radius():
    one, two = radii_between(1.0, 2.0), radii_between(3.0, 4.0)
    moves, curves = compare_runs(one, two)
    (move,) = moves.to_dict("records")
    assert move["moved"] and move["change"] == move["after"] - move["before"]
    for run, rows in (("before", one), ("after", two)):
        assert move[run] == pytest.approx((rows["radius"].astype(float) >= move["radius"]).mean())
        mine = curves[curves["run"] == run]
        shares = (rows["radius"].to_numpy(dtype=float) >= mine["radius"].to_numpy()[:, None]).mean(axis=1)
        assert mine["share"].to_numpy() == pytest.approx(shares)


@pytest.mark.parametrize(("shift", "moved"), [(0.1, False), (0.6, True)])
def test_a_curve_moves_when_its_bands_come_apart(shift, moved):
    """With 30 inputs a band is some 0.35 wide: a change by 0.1 is inside it, one by 0.6 is not."""
    moves, _ = compare_runs(radii_between(1.0, 2.0), radii_between(1.0 + shift, 2.0 + shift))
    assert moves["moved"].tolist() == [moved]
    assert moves["change"].iloc[0] == pytest.approx(shift, abs=0.05)


BAD = {
    "no run": (["{empty}", "{before}"], ["not the output folder of a finished run", "{empty}"]),
    "one folder": (["{before}"], ["OUT2", "--help"]),
    "figure kind": (["{before}", "{before}", "--figure", "diff.xyz"], ["diff.xyz", ".png"]),
    "figure place": (["{before}", "{before}", "--figure", "/dev/null/diff.png"], ["/dev/null/diff.png"]),
    "nothing in common": (["{before}", "{other}"], ["no curve in common"]),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_usage_is_one_line_and_exit_code_2(what, before, tmp_path, capsys):
    other = write_run(tmp_path / "other", radii_of("other"), [predictions_of("other")])
    empty = tmp_path / "empty"
    empty.mkdir()
    places = {"before": before, "other": other, "empty": empty}
    arguments, words = ([text.format(**places) for text in part] for part in BAD[what])
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for word in words:
        assert word in said
