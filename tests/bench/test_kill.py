"""A run that is killed again and again ends with the tables of an undisturbed one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = """
datasets = ["circles", "digits_38"]
norms = ["l1", "l2"]
[[methods]]
method = "fcnn"
settings.train.epochs = 15
[[methods]]
method = "smoothing_gaussian"
settings = {network = "mlp", draws = 2000, train.epochs = 6}
[[methods]]
method = "crown"
settings.train.epochs = 10
"""


@pytest.mark.minutes
@pytest.mark.slow
def test_sigkill_at_random_moments_changes_no_table(tmp_path):
    (tmp_path / "suite.toml").write_text(SUITE)
    command = [
        sys.executable,
        str(ROOT / "tools" / "kill_and_resume.py"),
        "--kills",
        "5",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(
        [*command, "--suite", str(tmp_path / "suite.toml"), "--", "--jobs", "2"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 kills" in done.stdout and "tables that differ: none" in done.stdout
