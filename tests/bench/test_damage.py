"""Whatever byte of a run's files changes, the next run names the file, sets it aside and ends with the same tables.

So it does when writing fails at any moment.
"""

import errno
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from undrawn import undrawn

from bench.basics.files import SCHEMA_VERSION, seal
from bench.compare import main
from bench.data.request import cached_dataset
from bench.kept.rows import without_timing
from bench.kept.store import CellFolder
from bench.running.cells import STATUS, compute_cell

SUITE = """
datasets = ["circles"]
norms = ["l1", "l2"]
test_inputs = 60
[[methods]]
method = "fcnn"
settings = {certificates = ["closed_form:free"], train.epochs = 2}
[[methods]]
method = "smoothing_gaussian"
# It learns the circles: a method near chance is no competitor, and without one there is no claim.
settings = {network = "mlp", hidden = [16], sigma = 0.05, draws = 200, train = {epochs = 10, batch_size = 32}}
"""
FLIPS = 200


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Cells are computed in this process and nothing is drawn: this is about what is stored, hundreds of times."""

    def compute(jobs, devices, budget, watch):
        for job in jobs:
            yield job, compute_cell(job, cached_dataset(job.data), devices[0], job.scratch())

    with pytest.MonkeyPatch.context() as patch, undrawn():
        patch.setattr("bench.running.runner.run_in_processes", compute)
        patch.setattr("bench.report.claim.RESAMPLES", 20)
        yield


def attempt(out: Path) -> int:
    """Run the suite in a folder and return the exit code."""
    suite = out.parent / "suite.toml"
    suite.write_text(SUITE)
    return main(["--suite", str(suite), "--out", str(out), "--jobs", "1"])


def run(out: Path) -> dict[str, pd.DataFrame]:
    """Run the suite in a folder and return its tables without timing."""
    assert attempt(out) == 0
    tables = {name: pd.read_csv(out / name) for name in ("curves.csv", "summary.csv", "claim.csv")}
    rows = {name: pd.read_parquet(out / name) for name in ("radii.parquet", "predictions.parquet")}
    tables["summary.csv"] = tables["summary.csv"].filter(regex="^(?!.*seconds)")
    return {**tables, **{name: without_timing(frame) for name, frame in rows.items()}}


def check_same(tables: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame]) -> None:
    assert tables.keys() == expected.keys()
    for name, frame in expected.items():
        pd.testing.assert_frame_equal(tables[name], frame)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    run(out)
    return out


@pytest.fixture(scope="module")
def cut(tmp_path_factory) -> Path:
    """A run that was cut after its last batch, before its cells were stored."""
    out = tmp_path_factory.mktemp("cut") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CellFolder, "clear_unfinished", lambda self: None)
        run(out)
    for path in list(out.rglob("*")):
        if path.is_file() and "unfinished" not in path.parts:
            path.unlink()
    return out


def stored(out: Path) -> list[Path]:
    """Every file but what a running cell says it is at, which nothing is made from."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != STATUS)
    return sorted(path.relative_to(out) for path in files)


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes with one bit changed."""
    data = bytearray(content)
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return bytes(data)


def damage_and_recover(
    folder: Path, name: Path, change: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> dict[str, pd.DataFrame]:
    """Change a file, run, check that it was named and set aside as it was; return the tables."""
    path = folder / name
    damaged = change(path.read_bytes())
    path.write_bytes(damaged)
    caplog.clear()
    tables = run(folder)
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith(f"{path} ")]
    assert len(said) == 1, f"{path}: a changed byte was believed"
    aside = re.search(r"set aside as (\S+?\.damaged-\d+)", said[0])[1]
    assert path.with_name(aside).read_bytes() == damaged
    path.with_name(aside).unlink()
    return tables


def places(finished: Path, cut: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """Every stored file of both runs, as folder and name; the cut run in a copy, since each run finishes it."""
    for name in stored(finished):
        yield finished, name
    for name in stored(cut):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(cut, out)
        yield out, name


@pytest.mark.slow
def test_two_hundred_flipped_bits_are_detected_and_recovered_from(finished, cut, tmp_path, caplog):
    rng = np.random.default_rng(6)
    expected, tried = run(finished), Counter()
    while tried.total() < FLIPS:
        for folder, name in places(finished, cut, tmp_path / "out"):
            tables = damage_and_recover(folder, name, lambda content: flipped(content, rng), caplog)
            check_same(tables, expected)
            tried[name.name] += 1
    everything = {
        "cell.json",
        "model.safetensors",
        "training.pt",
        "predict-0.part",
        "run.json",
        "finished.json",
    }
    assert everything | {"radii.parquet", "predictions.parquet", "curves.csv", "summary.csv"} <= tried.keys()


def of_another_version(content: bytes) -> bytes:
    """Return a record of the next schema version; of what is no record, a record where none belongs."""
    if content.startswith(b"{"):
        record = json.loads(content)
        del record["checksum"], record["schema_version"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bench.basics.files.SCHEMA_VERSION", SCHEMA_VERSION + 1)
            return seal(record)
    return seal({"files": {"../../../suite.toml": {}}, "key": "k"})


FOREIGN = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "another version": of_another_version,
    "another record": lambda content: seal({"files": {"../../../suite.toml": {}}, "key": "k"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", FOREIGN)
def test_cut_empty_and_foreign_files_are_recovered_from(what, finished, cut, tmp_path, caplog):
    expected = run(finished)
    for folder, name in places(finished, cut, tmp_path / "out"):
        if "smoothing_gaussian" not in name.parts and (what != "another record" or name.suffix == ".json"):
            check_same(damage_and_recover(folder, name, FOREIGN[what], caplog), expected)


def finished_cells(out: Path) -> dict[Path, bytes]:
    """Every file of the cells that are complete."""
    folders = [path.parent for path in out.rglob("cell.json")]
    return {path: path.read_bytes() for folder in folders for path in folder.iterdir() if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("working", [3, 8, 12, 17, 24, 28, 36])
def test_a_disk_that_is_full_from_any_moment_on_loses_nothing(
    working, finished, tmp_path, capsys, monkeypatch
):
    out, left, fsync = tmp_path / "out", working, os.fsync

    def until_full(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", until_full)
        assert attempt(out) == 1
    told = capsys.readouterr().err
    (said,) = (line for line in told.splitlines() if line.startswith("bench.compare: "))
    assert f"No space left on device: {out}" in said and "run the same command again" in said
    assert "Traceback" not in told
    done = finished_cells(out)
    check_same(run(out), run(finished))
    assert done.items() <= finished_cells(out).items()
