"""The examples run as printed."""

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pandas as pd
import pytest

from bench.commands.queries import ANSWERS
from bench.compare import main as compare
from bench.export.__main__ import main as export
from bench.kept.store import Store
from bench.queries import main as queries

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
def test_the_malware_example_runs_from_start_to_finish():
    command = [sys.executable, EXAMPLES / "malware_tabular.py"]
    root = {"PYTHONPATH": str(EXAMPLES.parent), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, env=root, capture_output=True, text=True, check=True, timeout=300)
    assert "Certified radius in l1" in found.stdout
    assert "A simple attack evades" in found.stdout


@pytest.mark.slow
def test_the_notebook_runs_from_start_to_figure_and_keeps_no_output(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    path = EXAMPLES / "breast_cancer.ipynb"
    stored = nbformat.read(path, as_version=4)
    nbformat.validate(stored)
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    NotebookClient(
        stored, timeout=900, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    said = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert (
        "malignant found: 9" in said and "at 0.999 times the radius the attack fools the model on 0%" in said
    )
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)


SUITE = """
datasets = ["circles"]
norms = ["linf"]
[[methods]]
method = "crown"
settings = { hidden = [10], train = { epochs = 30, batch_size = 32 } }
[[methods]]
method = "fcnn"
settings = { hidden = [8, 4], train = { epochs = 30, batch_size = 32, learning_rate = 0.01 } }
"""
RADII = ("0.02", "0.1", "0.3")


@pytest.mark.slow
def test_marabou_answers_as_branch_and_bound_does_and_its_answers_come_back(tmp_path):
    pytest.importorskip("maraboupy", reason="Marabou has no wheel for this Python")
    (tmp_path / "suite.toml").write_text(SUITE)
    out = tmp_path / "out"
    assert compare(["--suite", str(tmp_path / "suite.toml"), "--out", str(out), "--jobs", "1"]) == 0
    assert export([str(out), "--radii", *RADII, "--inputs", "4", "--domain", "free"]) == 0
    spec = spec_from_file_location("verify_with_marabou", EXAMPLES / "verify_with_marabou.py")
    marabou = module_from_spec(spec)
    spec.loader.exec_module(marabou)
    assert marabou.main([str(out / "vnnlib"), str(tmp_path / "answers.csv")]) == 0
    asked = ["--dataset", "circles", "--methods", "crown", "--radii", f"linf={','.join(RADII)}"]
    assert queries([str(out), *asked, "--inputs", "4", "--domain", "free", "--jobs", "1"]) == 0
    ours = pd.read_csv(out / ANSWERS).set_index(["index", "radius"])["answer"]
    theirs = pd.read_csv(out / "vnnlib" / "questions.csv").merge(pd.read_csv(tmp_path / "answers.csv"))
    assert set(theirs["result"]) == {"sat", "unsat"}
    theirs = theirs[theirs["operating_point"] == "balanced"]
    for row in theirs[theirs["method"] == "crown"].to_dict("records"):
        assert ours[row["index"], row["radius"]] == {"unsat": "robust", "sat": "not_robust"}[row["result"]]
    assert export([str(out), "--import", str(tmp_path / "answers.csv"), "--tool", "marabou"]) == 0
    _, radii, _ = Store(out).read_run()
    # No certificate of ours is above what Marabou says is violated, for convex networks too.
    radii = radii[radii["operating_point"] == "balanced"]
    upper = (
        radii[radii["method"] == "marabou:fcnn"]
        .set_index("index")["radius_upper"]
        .astype(float)
        .fillna(float("inf"))
    )
    convex = radii[(radii["method"] == "fcnn") & (radii["outcome"] == "certified")]
    for row in convex[convex["domain"] == "free"].to_dict("records"):
        assert float(row["radius"]) <= upper.get(row["index"], float("inf"))
