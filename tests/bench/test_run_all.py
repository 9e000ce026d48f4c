"""run_all.sh sets up an environment, and leaves alone one that holds the suite of another clone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Stands in for the environment's python: it says what pip would do, everything else is real.
PYTHON = """#!/bin/sh
if [ "$1" = -m ] && [ "$2" = pip ]; then shift 2; echo "pip $*"; exit; fi
exec "{python}" "$@"
"""


@pytest.fixture
def clone(tmp_path):
    """Another clone's folder with what run_all.sh reads, and an environment for it."""
    folder = tmp_path / "a clone"
    (folder / "bench" / "suites").mkdir(parents=True)
    for name in ("run_all.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    return folder


def set_up(clone: Path, installed: Path | None, **more: str) -> subprocess.CompletedProcess:
    """Run ./run_all.sh setup in a clone, in an environment with the suite installed from ``installed``."""
    packages = clone.parent / "packages"
    if installed is not None:
        record = packages / "certbench-0.1.0.dist-info"
        record.mkdir(parents=True)
        (record / "METADATA").write_text("Metadata-Version: 2.1\nName: certbench\nVersion: 0.1.0\n")
        (record / "direct_url.json").write_text(f'{{"url": "{installed.as_uri()}"}}')
    environment = {
        **os.environ,
        "VIRTUAL_ENV": str(clone.parent / "env"),
        # First on the path, so that it hides the suite of the environment that runs the tests.
        "PYTHONPATH": str(packages),
        **more,
    }
    return subprocess.run(
        ["bash", clone / "run_all.sh", "setup"], env=environment, cwd="/", capture_output=True, text=True
    )


def test_an_environment_with_another_clone_is_refused_in_one_line(clone, tmp_path):
    other = tmp_path / "other clone"
    other.mkdir()
    done = set_up(clone, other)
    assert done.returncode == 2 and "pip" not in done.stdout
    assert done.stderr.count("\n") == 1 and str(other) in done.stderr and "CERTBENCH_ADOPT=1" in done.stderr


def test_told_to_it_changes_the_environment(clone, tmp_path):
    other = tmp_path / "other clone"
    other.mkdir()
    done = set_up(clone, other, CERTBENCH_ADOPT="1")
    assert done.returncode == 0 and "pip install" in done.stdout


def test_its_own_environment_is_set_up_once(clone):
    assert "pip install" in set_up(clone, clone).stdout
    again = set_up(clone, None)
    assert again.returncode == 0 and not again.stdout
