"""A disk that fills up loses nothing that was done: one clear message, exit code 1, and the same command goes on."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from bench.compare import main
from bench.kept.rows import without_timing

pytestmark = pytest.mark.slow
SUITE = """
datasets = ["circles", "digits_38"]
norms = ["l1", "l2"]
[[methods]]
method = "fcnn"
settings = {certificates = ["closed_form:free"], train.epochs = 2}
[[methods]]
method = "smoothing_gaussian"
settings = {network = "mlp", draws = 200, train.epochs = 2}
"""
# From less than one cell needs to what all cells, the tables, the figures and the report need.
SIZES = ("8k", "160k", "240k", "320k", "480k", "720k", "1m", "2m", "32m")


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "small.toml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="module")
def calm(suite, tmp_path_factory) -> Path:
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("calm") / "out"
    assert run(suite, out) == 0
    return out


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A small disk of its own, where this system lets the test mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    if not resized(place, SIZES[0], "mount", "-t", "tmpfs", "tmpfs"):
        pytest.skip("mounting a small disk is not allowed here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def resized(place: Path, size: str, *command: str) -> bool:
    command = [*command, str(place), "-o", f"size={size}" if "-t" in command else f"remount,size={size}"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def run(suite: Path, out: Path) -> int:
    return main(["--suite", str(suite), "--out", str(out), "--jobs", "2"])


def check_same(out: Path, calm: Path) -> None:
    for name in ("radii.parquet", "predictions.parquet"):
        tables = [without_timing(pd.read_parquet(folder / name)) for folder in (out, calm)]
        pd.testing.assert_frame_equal(*tables)
    assert (out / "curves.csv").read_bytes() == (calm / "curves.csv").read_bytes()


def check_said(said: str) -> None:
    """One clear line: what happened, to which file, and what to do."""
    (said,) = (line for line in said.splitlines() if line.startswith("bench.compare: "))
    assert "No space left on device" in said and "/out" in said and "run the same command again" in said


def finished_cells(out: Path) -> dict[Path, bytes]:
    """Every file of the cells that are complete."""
    folders = [path.parent for path in out.rglob("cell.json")]
    return {path: path.read_bytes() for folder in folders for path in folder.iterdir() if path.is_file()}


def test_a_run_on_a_small_disk_goes_on_where_it_stopped_when_the_disk_grows(suite, calm, disk, capfd):
    done: dict[Path, bytes] = {}
    codes, counts = [], set()
    for size in SIZES:
        assert resized(disk, size, "mount")
        codes.append(run(suite, disk / "out"))
        said = capfd.readouterr().err
        if codes[-1]:
            check_said(said)
        now = finished_cells(disk / "out")
        assert {path: now.get(path) for path in done} == done
        done = now
        counts.add(sum(path.name == "cell.json" for path in done))
        assert not list((disk / "out").rglob(".*.tmp"))
    # It stopped in the first cell, and after the last one: in tables, figures or report.
    assert codes.count(1) >= 4 and codes[-1] == 0 and {0, 4} <= counts
    check_same(disk / "out", calm)
