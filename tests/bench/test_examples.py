"""The examples run as printed."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
def test_the_malware_example_runs_from_start_to_finish():
    command = [sys.executable, EXAMPLES / "malware_tabular.py"]
    root = {"PYTHONPATH": str(EXAMPLES.parent), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, env=root, capture_output=True, text=True, check=True, timeout=300)
    assert "Certified radius in l1" in found.stdout
    assert "A simple attack evades" in found.stdout
