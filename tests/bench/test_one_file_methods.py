"""A method in one file of an outside package: compared, named in the claim, and asked to certify given networks."""

from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from synthetic import blobs, plan
from undrawn import without_drawing

import bench.methods as registry
from bench.certify.__main__ import main as certify
from bench.data import load_dataset
from bench.kept.finished import load_method
from bench.kept.store import Store
from bench.methods.fcnn import FCNNSettings
from bench.report.claim import central_claim
from bench.report.finish import method_facts
from bench.running.evaluate import Evaluation
from fcnn.training import TrainSettings

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    """The sample package, found as pip would have left it."""
    info = tmp_path_factory.mktemp("site") / "certbench_nearest-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: certbench-nearest\nVersion: 0.1\n")
    points = (PLUGIN / "pyproject.toml").read_text().split('[project.entry-points."certbench.methods"]')[1]
    (info / "entry_points.txt").write_text("[certbench.methods]\n" + points.split("[")[0].replace('"', ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PLUGIN)
        patch.syspath_prepend(info.parent)
        for found in (registry.registered_methods, registry.given_methods):
            found.cache_clear()
        yield
    for found in (registry.registered_methods, registry.given_methods):
        found.cache_clear()


@pytest.fixture
def linear(tmp_path):
    """net.onnx, one linear layer on circles, and its weights (2,) and bias."""
    weight, bias = np.array([[0.75, -1.5]], np.float32), np.array([0.25], np.float32)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in (("x", 2), ("y", 1))
    ]
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph([node], "net", shapes[:1], shapes[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "net.onnx")
    return tmp_path, weight[0].astype(float), float(bias[0])


def test_it_certifies_a_network_that_another_program_trained(linear, capsys):
    folder, weight, bias = linear
    arguments = ["--model", folder / "net.onnx", "--data", "circles", "--out", folder / "out", "--inputs", 40]
    arguments = [*map(str, arguments), "--norms", "l1", "l2", "--certificates", "distance", "crown"]
    assert without_drawing(certify)(arguments) == 0
    assert "  distance: yes\n" in capsys.readouterr().out
    run, radii, _ = Store(folder / "out").read_run()
    assert run["methods"]["nearest"]["title"] == "net: Nearest mean"
    data = load_dataset("circles")
    for norm, order in (("l1", np.inf), ("l2", 2)):
        rows = radii[(radii["certificate"] == "distance") & (radii["norm"] == norm)]
        rows = rows[rows["outcome"] == "certified"]
        assert len(rows) > 5
        margin = data.x_test[rows["index"]].astype(float) @ weight + bias
        np.testing.assert_allclose(
            rows["radius"].astype(float), margin / np.linalg.norm(weight, order), rtol=2e-9
        )
    # What an attack on the finished run works with is the network that was kept with it.
    method = load_method(Store(folder / "out"), data, "circles", "nearest", 0)
    assert type(method).__name__ == "GivenNearest" and method.model.network.linear.weight.tolist() == [
        weight.tolist()
    ]


def test_unless_others_are_named_it_is_among_those_that_apply(linear):
    folder, *_ = linear
    arguments = ["--model", folder / "net.onnx", "--data", "circles", "--out", folder / "out", "--inputs", 6]
    assert without_drawing(certify)([*map(str, arguments), "--norms", "linf"]) == 0
    _, radii, _ = Store(folder / "out").read_run()
    bounds = {"ibp", "crown_ibp", "crown", "alpha_crown", "alpha_beta_crown"}
    assert set(radii["certificate"]) == {"distance", *bounds}


def test_the_claim_knows_it_as_a_competitor():
    settings = {
        "fcnn": FCNNSettings(hidden=(8,), train=TrainSettings(epochs=3, batch_size=32)),
        "nearest": None,
    }
    methods = {name: registry.get_method(name)(given) for name, given in settings.items()}
    rows = [Evaluation(method, blobs(), plan(name)).run().radii for name, method in methods.items()]
    facts = {name: method_facts(type(method), method.title) for name, method in methods.items()}
    claim = central_claim(pd.concat(rows), facts)
    assert set(claim["norm"]) == {"l1", "l2", "linf"} and set(claim["competitor"]) == {"nearest"}
    assert (claim["competitor_radius"] > 0).all() and "nearest" not in set(claim["fcnn"])
