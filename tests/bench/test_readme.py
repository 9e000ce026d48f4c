"""The README's example method works as printed."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import blobs, plan

from bench.kept.rows import check_radii
from bench.running.evaluate import Evaluation

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def logistic(tmp_path_factory):
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
    path = tmp_path_factory.mktemp("readme") / "logistic.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("logistic", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Logistic


def test_the_example_method_trains_and_certifies(logistic):
    data = blobs()
    method = logistic()
    result = Evaluation(method, data, plan("logistic")).run()
    radii = check_radii(result.radii)
    assert not result.errors
    assert (radii["outcome"] == "certified").mean() > 0.9
    weight = method.model.network.linear.weight.detach().double().numpy()[0]
    row = radii[(radii["norm"] == "l2")].iloc[0]
    x = torch.from_numpy(data.x_test[row["index"]]).double().numpy()
    bias = method.model.network.linear.bias.item() - method.model.threshold.item()
    assert row["radius"] == pytest.approx((weight @ x + bias) / np.linalg.norm(weight), rel=1e-5)


def test_links_in_the_readme_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    local = [target for target in targets if "://" not in target]
    assert local
    for target in local:
        assert (README.parent / target).exists(), target
