"""The command line from end to end: what a run writes, that it repeats, resumes, and refuses bad input."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from undrawn import compare as undrawn

from bench.compare import main
from bench.kept.rows import PREDICTION_COLUMNS, RADII_COLUMNS, without_timing
from bench.running.chosen import chosen_suite
from bench.running.lock import FolderLock
from bench.running.options import parser

SUITE = """
title = "Small"
reduced = "few epochs"
datasets = ["circles"]
norms = ["l1", "linf"]
[[methods]]
method = "fcnn"
settings.train.epochs = 3
[[methods]]
method = "fcnn"
id = "fcnn_wide"
title = "FCNN, wide"
settings.hidden = [30]
settings.train.epochs = 2
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "small.toml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="module")
def finished(suite, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    assert main(["--suite", str(suite), "--out", str(out), "--jobs", "1"]) == 0
    return out


def table(out: Path, name: str = "radii") -> pd.DataFrame:
    return without_timing(pd.read_parquet(out / f"{name}.parquet"))


def test_a_run_writes_everything_it_promises(finished):
    radii = pd.read_parquet(finished / "radii.parquet")
    assert list(radii.columns) == list(RADII_COLUMNS)
    assert list(pd.read_parquet(finished / "predictions.parquet").columns) == list(PREDICTION_COLUMNS)
    counts = radii.groupby(["method", "certificate", "norm", "operating_point"]).size()
    assert set(radii["operating_point"]) == {"balanced", "other_recall=0.99"}
    assert counts.index.get_level_values("norm").nunique() == 2
    assert counts.index.get_level_values("method").nunique() == 2
    assert counts.nunique() == 1
    curves = pd.read_csv(finished / "curves.csv")
    assert {"radius", "certified_accuracy", "lower", "upper"} <= set(curves.columns)
    assert len(pd.read_csv(finished / "summary.csv")) == len(counts)
    figures = {path.suffix for path in (finished / "figures").iterdir()}
    assert figures == {".png", ".pdf"}
    run = json.loads((finished / "run.json").read_text())
    assert run["configuration"]["reduced"] == "few epochs"
    assert run["versions"]["torch"]
    assert str(finished) not in (finished / "run.json").read_text()


def test_certified_accuracy_is_the_share_of_sensitive_inputs_with_at_least_that_radius(finished):
    radii = pd.read_parquet(finished / "radii.parquet")
    curves = pd.read_csv(finished / "curves.csv")
    for row in curves.sample(20, random_state=0).itertuples():
        mine = radii[(radii["method"] == row.method) & (radii["norm"] == row.norm)]
        mine = mine[mine["operating_point"] == row.operating_point]
        share = (mine["radius"].fillna(-1) >= row.radius).mean()
        assert row.certified_accuracy == pytest.approx(share)


def test_the_same_seed_gives_the_same_tables_whatever_the_number_of_jobs(finished, suite, tmp_path):
    assert undrawn(["--suite", str(suite), "--out", str(tmp_path / "again"), "--jobs", "2"]) == 0
    for name in ("radii", "predictions"):
        pd.testing.assert_frame_equal(table(finished, name), table(tmp_path / "again", name))
    other = tmp_path / "other"
    assert undrawn(["--suite", str(suite), "--out", str(other), "--jobs", "1", "--seeds", "1"]) == 0
    assert not np.allclose(table(finished)["radius"].fillna(0), table(other)["radius"].fillna(0))


def test_leaving_a_method_out_leaves_the_others_rows_as_they_are(finished, suite, tmp_path):
    out = tmp_path / "one"
    assert undrawn(["--suite", str(suite), "--out", str(out), "--jobs", "1", "--methods", "fcnn_wide"]) == 0
    rows = table(finished)
    rows = rows[rows["method"] == "fcnn_wide"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, table(out))


def test_a_second_run_computes_nothing_again(finished, suite, monkeypatch):
    before = (finished / "radii.parquet").read_bytes()
    monkeypatch.setattr(
        "bench.running.runner.run_in_processes", lambda *_: pytest.fail("computed a finished cell")
    )
    assert main(["--suite", str(suite), "--out", str(finished), "--jobs", "1"]) == 0
    assert (finished / "radii.parquet").read_bytes() == before


def test_a_second_run_draws_again_only_what_is_damaged_or_shows_something_new(finished, suite, capsys):
    arguments = ["--suite", str(suite), "--out", str(finished), "--jobs", "1"]
    assert main(arguments) == 0
    said, report = capsys.readouterr().out, finished / "report.html"
    figure = next((finished / "figures").glob("*.png"))
    before = [path.stat().st_mtime_ns for path in (report, figure)]
    assert main(arguments) == 0
    assert [path.stat().st_mtime_ns for path in (report, figure)] == before
    assert capsys.readouterr().out == said
    content = figure.read_bytes()
    figure.write_bytes(content[:-1] + b"x")
    assert main(arguments) == 0
    assert figure.read_bytes() == content


def test_changed_settings_recompute_their_own_cell_only(finished, suite, tmp_path, monkeypatch):
    import bench.running.runner

    run = []
    compute = bench.running.runner.run_in_processes

    def noting(jobs, *rest):
        run.extend(job.entry.name for job in jobs)
        return compute(jobs, *rest)

    monkeypatch.setattr(bench.running.runner, "run_in_processes", noting)
    changed = tmp_path / "small.toml"
    changed.write_text(SUITE.replace("hidden = [30]", "hidden = [31]"))
    assert undrawn(["--suite", str(changed), "--out", str(finished), "--jobs", "1"]) == 0
    assert run == ["fcnn_wide"]


BAD = {
    "data set": (["--datasets", "circels"], ["'circels'", "did you mean 'circles'"]),
    "method": (["--methods", "fcn"], ["'fcn'", "did you mean 'fcnn'"]),
    "norm": (["--norms", "l7"], ["'l7'", "l1, l2, linf"]),
    "suite": (["--suite", "quik"], ["'quik'", "did you mean 'quick'", ".toml"]),
    "device": (["--device", "cuda:9"], ["'cuda:9'", "auto, cpu"]),
    "jobs": (["--jobs", "0"], ["--jobs", "'0'", "from 1 to 1,024"]),
    "seed": (["--seeds", "one"], ["'one'", "--help"]),
    "option": (["--nosuch"], ["--nosuch", "--help"]),
    "data folder": (["--data-dir", "/nowhere/at/all"], ["/nowhere/at/all"]),
    "output folder": (["--out", "/dev/null/out"], ["/dev/null/out", "--out"]),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_usage_is_one_line_and_exit_code_2(what, suite, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, words = BAD[what]
    usual = [] if "--suite" in arguments else ["--suite", str(suite)]
    assert main([*usual, *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for word in words:
        assert word in said
    assert not list(tmp_path.iterdir())


def test_an_unknown_key_in_a_suite_file_is_named(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text(SUITE.replace("reduced", "redcued"))
    assert main(["--suite", str(path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "unknown key 'redcued'" in said and "did you mean 'reduced'" in said
    assert not (tmp_path / "out").exists()


def test_two_runs_on_one_folder_are_refused(finished, suite, capsys):
    with FolderLock(finished):
        assert main(["--suite", str(suite), "--out", str(finished)]) == 2
    assert "process" in capsys.readouterr().err


def test_an_empty_data_folder_is_refused(suite, tmp_path, capsys):
    empty = tmp_path / "data"
    empty.mkdir()
    assert main(["--suite", str(suite), "--data-dir", str(empty), "--out", str(tmp_path / "out")]) == 2
    assert str(empty) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_own_npz_runs_with_its_sensitive_class(suite, tmp_path):
    rng = np.random.default_rng(0)
    y = np.tile([4, 7], 60)
    x = np.clip(0.3 + 0.4 * (y == 7)[:, None] + 0.05 * rng.standard_normal((120, 5)), 0, 1)
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x[:40], y_test=y[:40])
    arguments = [
        "--suite",
        str(suite),
        "--datasets",
        "mine",
        "--data-dir",
        str(tmp_path),
        "--methods",
        "fcnn",
    ]
    assert undrawn([*arguments, "--sensitive", "7", "--out", str(tmp_path / "out"), "--jobs", "1"]) == 0
    assert len(table(tmp_path / "out")) == 2 * 20 * 2  # norms, inputs, operating points


def test_the_list_names_suites_methods_and_data_sets(capsys):
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    for word in ("quick", "fcnn", "digits_38", "Pfrommer"):
        assert word in said


def test_an_entry_of_other_data_sets_joins_when_it_is_named(tmp_path):
    suite = tmp_path / "kept.toml"
    suite.write_text(SUITE + 'datasets = ["breast_cancer"]\n')
    for words, expected in (([], {"fcnn"}), (["--methods", "fcnn", "fcnn_wide"], {"fcnn", "fcnn_wide"})):
        chosen = chosen_suite(parser().parse_args(["--suite", str(suite), *words]))
        assert {entry.name for _, entry in chosen.pairs()} == expected
