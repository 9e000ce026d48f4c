"""Publishing copies a finished run, and only such a one, into its own folder."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from undrawn import run_suite

from bench.basics.errors import UsageError
from bench.commands.publish import publish
from bench.kept.store import Store

SUITE = """
title = "Small"
datasets = ["circles"]
norms = ["l2"]
[[methods]]
method = "fcnn"
settings.train.epochs = 2
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("publish")
    out = run_suite(folder, SUITE)
    (out / "figures").mkdir()
    for kind in ("png", "pdf"):
        (out / "figures" / f"circles.{kind}").write_bytes(b"drawn")
    return out


def test_tables_and_figures_arrive_and_can_be_read_as_a_run(finished, tmp_path):
    folder = publish(finished, "small", tmp_path)
    assert folder == tmp_path / "small"
    copied = Store(folder).read_run()[1]
    assert len(copied) == len(Store(finished).read_run()[1])
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".png", ".pdf"}
    assert not list(folder.rglob("*.safetensors"))
    curves = pd.read_csv(folder / "curves.csv.gz")
    assert len(curves) and curves.equals(pd.read_csv(finished / "curves.csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    (folder / "stale.txt").write_text("old")
    assert not (publish(finished, "small", tmp_path) / "stale.txt").exists()


def test_what_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not the output folder of a finished run"):
        publish(tmp_path, "small", tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "/tmp/x", ".hidden", "a b"])
def test_a_name_that_is_no_plain_folder_is_refused(name, finished, tmp_path):
    with pytest.raises(UsageError, match="cannot be a folder under results/"):
        publish(finished, name, tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("part", ["summary.csv", "curves.csv", "figures"])
def test_a_run_that_lacks_a_part_is_refused(part, finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(copy / part) if part == "figures" else (copy / part).unlink()
    with pytest.raises(UsageError, match=f"has no {part}"):
        publish(copy, "small", tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_results_stay_small(finished, tmp_path):
    (tmp_path / "old").mkdir()
    with (tmp_path / "old" / "large.bin").open("wb") as file:
        file.truncate(80 * 2**20)
    with pytest.raises(UsageError, match=r"at most 80.0 MB are allowed. Largest: old \(80.0 MB\); remove"):
        publish(finished, "small", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    publish(finished, "old", tmp_path)  # in its place
    assert not (tmp_path / "old" / "large.bin").exists()


def test_one_run_stays_small(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.commands.publish.MAX_BYTES", 1000)
    with pytest.raises(UsageError, match="tables and figures: at most"):
        publish(finished, "small", tmp_path)
    assert not list(tmp_path.iterdir())
