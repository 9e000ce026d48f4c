"""The weights of ONNX files: in the file, beside it, elsewhere, and not a number."""

import re

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from test_model_files import graph

from bench.basics.errors import UsageError
from bench.model_files import open_model
from bench.model_files.parts import parts


def test_weights_in_another_file_beside_the_model_are_read(tmp_path):
    path = graph([helper.make_node("MatMul", ["x", "w"], ["y0"])], tmp_path / "net.onnx")
    x = torch.rand(5, 6, dtype=torch.float64)
    expected = open_model(path, (6,)).score(x)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="net.data", size_threshold=0)
    assert torch.equal(open_model(path, (6,)).score(x), expected)
    assert parts(path) == (path, tmp_path / "net.data")
    (tmp_path / "net.data").rename(tmp_path / "moved")
    with pytest.raises(UsageError, match=r"'net\.data', which is not beside it"):
        open_model(path, (6,))
    (tmp_path / "net.data").symlink_to(tmp_path / "moved")
    with pytest.raises(UsageError, match="outside its own folder"):
        open_model(path, (6,))


def test_weights_elsewhere_are_refused(tmp_path):
    path = graph([helper.make_node("MatMul", ["x", "w"], ["y0"])], tmp_path / "net.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="net.data", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = "../secret" if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match=r"'\.\./secret', outside its own folder"):
        open_model(path, (6,))


def test_a_weight_that_is_no_number_is_named(tmp_path):
    path = graph([helper.make_node("MatMul", ["x", "w"], ["y0"])], tmp_path / "net.onnx")
    model = onnx.load(path)
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0] = np.nan
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, path)
    with pytest.raises(UsageError, match="weight 'w' has NaN"):
        open_model(path, (6,))


def test_a_constant_of_the_graph_that_is_no_number_is_named(tmp_path):
    weight = onnx.numpy_helper.from_array(np.full((6, 2), np.nan, np.float32))
    nodes = [
        helper.make_node("Constant", [], ["given"], value=weight),
        helper.make_node("MatMul", ["x", "given"], ["y0"]),
    ]
    with pytest.raises(UsageError, match="weight 'given' has NaN"):
        open_model(graph(nodes, tmp_path / "net.onnx"), (6,))


@pytest.mark.parametrize(("layout", "meant"), [("hwc", (8, 8, 3)), ("chw", (3, 8, 8))])
def test_a_layout_that_contradicts_the_file_is_refused(layout, meant, tmp_path):
    other = (3, 8, 8) if layout == "hwc" else (8, 8, 3)
    nodes = [helper.make_node("Flatten", ["x"], ["z"]), helper.make_node("MatMul", ["z", "mix"], ["y0"])]
    mix = onnx.numpy_helper.from_array(np.ones((192, 1), np.float32), "mix")
    path = graph(nodes, tmp_path / "net.onnx", (None, *other), more=[mix])
    with pytest.raises(
        UsageError, match=re.escape(f"--layout {layout}: the data's images would have the shape {meant}")
    ):
        open_model(path, (3, 8, 8), layout=layout)
    assert open_model(path, (3, 8, 8)).unread == ""


def test_a_layout_belongs_to_images(tmp_path):
    path = graph([helper.make_node("MatMul", ["x", "w"], ["y0"])], tmp_path / "net.onnx")
    with pytest.raises(UsageError, match="no images"):
        open_model(path, (6,), layout="hwc")
