"""The sample package outside the suite: pip installs it, the suite finds it, and its certificates hold."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import blobs, plan

from bench.attacking.attacks import norm_exact
from bench.kept.rows import check_radii
from bench.running.evaluate import Evaluation

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples" / "plugin"
ORDERS = {"l1": np.inf, "l2": 2, "linf": 1}


@pytest.fixture(scope="module")
def nearest():
    spec = importlib.util.spec_from_file_location(
        "certbench_nearest", PLUGIN / "certbench_nearest" / "__init__.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_radii_are_the_distances_to_the_hyperplane_between_the_means(nearest):
    data = blobs()
    method = nearest.Nearest()
    result = Evaluation(method, data, plan("nearest", calibrate="none")).run()
    radii = check_radii(result.radii)
    x, y = data.x_train.astype(float), data.y_train
    sensitive, other = x[y == 1].mean(axis=0), x[y == 0].mean(axis=0)
    for norm, rows in radii[radii["outcome"] == "certified"].groupby("norm"):
        test = data.x_test[rows["index"]].astype(float)
        gain = ((test - other) ** 2).sum(axis=1) - ((test - sensitive) ** 2).sum(axis=1)
        expected = gain / 2 / np.linalg.norm(sensitive - other, ORDERS[norm])
        np.testing.assert_allclose(rows["radius"].astype(float), expected, rtol=1e-5)
    assert (radii["outcome"] == "certified").mean() > 0.9


def test_attacks_that_end_at_its_boundary_do_not_break_it(nearest):
    data = blobs()
    method = nearest.Nearest()
    radii = Evaluation(method, data, plan("nearest")).run().radii
    for norm, rows in radii[radii["outcome"] == "certified"].groupby("norm"):
        x = torch.from_numpy(data.x_test[rows["index"]])
        radius = torch.from_numpy(rows["radius"].to_numpy(dtype=float))
        points = norm_exact(method.score, x.double(), radius, norm, "free").points
        assert method.score(points).min() < 1e-6  # the attack gets there
        assert (method.predict(points, 0) == 1).all()


@pytest.mark.slow
def test_installed_with_pip_it_is_listed_and_compared(tmp_path):
    target, source = tmp_path / "site", tmp_path / "plugin"
    subprocess.run(["cp", "-r", PLUGIN, source], check=True)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", target, source], check=True, timeout=240)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(ROOT)])}

    def compare(*arguments: str) -> str:
        command = [sys.executable, "-m", "bench.compare", *arguments]
        found = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=240
        )
        return found.stdout

    assert "nearest                Nearest mean; deterministic; textbook" in compare("--list")
    arguments = ["--datasets", "circles", "--methods", "nearest", "--out", "out", "--norms", "l2"]
    assert "nearest/distance" in compare(*arguments)
    assert (tmp_path / "out" / "report.html").exists()
