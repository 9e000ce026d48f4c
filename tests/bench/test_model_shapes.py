"""ONNX files whose outputs have no type are read; values that are too large are refused before anything is computed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from bench.basics.errors import UsageError
from bench.model_files import open_model, shapes

SHAPE = (1, 4, 4)
# Nobody has the memory for so many: whoever tries to make them fails at once, and says something else.
HUGE = 4 * 10**12
node = helper.make_node


def constant(name: str, value: object, dtype: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def saved(nodes: list, constants: list, path: Path, opset: int = 17, batch: int | str = "n") -> Path:
    """A network of three logits from ``big`` (n, ...), which nodes make of x (n, 1, 4, 4)."""
    weight = np.random.default_rng(0).normal(size=(16, 3))
    ends = [
        node("Flatten", ["big"], ["flat"]),
        node("ReduceMean", ["flat"], ["mean"], axes=[1], keepdims=1),
        node("Flatten", ["x"], ["xs"]),
        node("MatMul", ["xs", "w"], ["h"]),
        node("Add", ["h", "mean"], ["y"]),
    ]
    graph = helper.make_graph(
        [*nodes, *ends],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *SHAPE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])],
        [*constants, constant("w", weight, np.float32)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


FIRST = [node("Slice", ["k", "zero", "one"], ["k0"]), node("Add", ["x", "k0"], ["big"])]
ENDS = [constant("zero", [0]), constant("one", [1])]
NUMBER = constant("number", [1.0], np.float32)
LARGE: dict[str, tuple] = {
    "Pad": ([node("Pad", ["x", "p"], ["big"])], [constant("p", [0] * 7 + [HUGE])]),
    "Pad, older": ([node("Pad", ["x"], ["big"], pads=[0] * 7 + [HUGE])], [], 2),
    "Expand": ([node("Expand", ["x", "p"], ["big"])], [constant("p", [1, HUGE, 4, 4])]),
    "Tile": ([node("Tile", ["x", "p"], ["big"])], [constant("p", [1, HUGE, 1, 1])]),
    "Resize": (
        [node("Resize", ["x", "", "p"], ["big"], mode="nearest")],
        [constant("p", [1, 1, 1e6, 1e6], np.float32)],
    ),
    "Upsample": ([node("Upsample", ["x", "p"], ["big"])], [constant("p", [1, 1, 1e6, 1e6], np.float32)], 9),
    "Conv": (
        [node("Conv", ["x", "p"], ["big"], pads=[10**6] * 4)],
        [constant("p", np.ones((1, 1, 1, 1)), np.float32)],
    ),
    "MaxPool": ([node("MaxPool", ["x"], ["big"], kernel_shape=[10**6] * 2, pads=[10**6 - 1] * 4)], []),
    "ConstantOfShape": ([node("ConstantOfShape", ["p"], ["k"]), *FIRST], [constant("p", [HUGE]), *ENDS]),
    "Range": (
        [node("Range", ["a", "p", "b"], ["k"]), *FIRST],
        [
            constant("a", 0.0, np.float32),
            constant("p", HUGE, np.float32),
            constant("b", 1, np.float32),
            *ENDS,
        ],
    ),
    "Expand, of a constant": (
        [node("Expand", ["number", "p"], ["k"]), *FIRST],
        [NUMBER, constant("p", [HUGE]), *ENDS],
    ),
    "MatMul": (
        [node("MatMul", ["column", "row"], ["k2"]), node("ReduceMax", ["k2"], ["k"], axes=[1]), *FIRST],
        [
            constant("column", np.ones((2 * 10**6, 1)), np.float32),
            constant("row", np.ones((1, 2 * 10**6)), np.float32),
            *ENDS,
        ],
    ),
    "Concat": (
        [
            node("Concat", [f"c{place}"] * 2, [f"c{place + 1}"], axis=1)
            if place
            else node("Concat", ["x", "x"], ["c1"], axis=1)
            for place in range(38)
        ]
        + [node("Identity", ["c38"], ["big"])],
        [],
    ),
    # The size is known only when the constants before it have been computed.
    "Expand, of a computed shape": (
        [node("Div", ["p2", "two"], ["p"]), node("Expand", ["x", "p"], ["big"])],
        [constant("p2", [2, HUGE, 8, 8]), constant("two", [2])],
    ),
    "ConstantOfShape, of a computed shape": (
        [node("Div", ["p2", "two"], ["p"]), node("ConstantOfShape", ["p"], ["k"]), *FIRST],
        [constant("p2", [2 * HUGE]), constant("two", [2]), *ENDS],
    ),
}


@pytest.mark.parametrize("case", LARGE)
def test_a_value_of_too_many_numbers_is_refused_before_it_is_made(case, tmp_path):
    nodes, constants, *opset = LARGE[case]
    path = saved(nodes, constants, tmp_path / "net.onnx", *opset)
    with pytest.raises(UsageError) as caught:
        open_model(path, SHAPE, logit=1)
    said = str(caught.value)
    assert f"operator {case.partition(',')[0]} makes " in said and "more than 10,000,000" in said
    assert "\n" not in said


def test_the_largest_value_that_is_allowed_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "MOST", 100)
    monkeypatch.setattr(shapes, "MOST_AT_ONCE", 1000)

    def padded(more: int, batch: int | str = "n") -> Path:
        pads = constant("p", [0] * 7 + [more])
        return saved([node("Pad", ["x", "p"], ["big"])], [pads], tmp_path / "net.onnx", batch=batch)

    assert "Pad" in open_model(padded(21), SHAPE, logit=1).layers  # 4 x 25
    with pytest.raises(UsageError, match=r"Pad makes 104 numbers of 1 input, more than 100:"):
        open_model(padded(22), SHAPE, logit=1)
    assert "Pad" in open_model(padded(21, batch=10), SHAPE, logit=1).layers
    with pytest.raises(UsageError, match=r"Pad makes 1,100 numbers of 11 inputs, more than 1,000:"):
        open_model(padded(21, batch=11), SHAPE, logit=1)
    # The transpose of a weight is no larger than the weight.
    nodes = [
        node("Transpose", ["t"], ["w2"], perm=[1, 0]),
        node("Flatten", ["x"], ["x2"]),
        node("MatMul", ["x2", "w2"], ["big"]),
    ]
    path = saved(nodes, [constant("t", np.ones((40, 16)), np.float32)], tmp_path / "net.onnx")
    assert "MatMul" in open_model(path, SHAPE, logit=1).layers


def older_exporters(path: Path) -> Path:
    """As torch's older exporter writes it: any number of inputs, weights to be transposed by Gemm."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.rand(1, *SHAPE)
    torch.onnx.export(network, (x,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    return path


def newer_exporters(path: Path) -> Path:
    """As torch's newer exporter writes it: a Reshape to a fixed number of inputs, a shape for every value, notes."""
    rng = np.random.default_rng(0)
    sizes = {"w1": (8, 16), "b1": (8,), "w2": (3, 8), "b2": (3,)}
    constants = [constant(name, rng.normal(size=size), np.float32) for name, size in sizes.items()]
    nodes = [
        node("Reshape", ["x", "to"], ["view"], allowzero=1, name="node_view"),
        node("Gemm", ["view", "w1", "b1"], ["linear"], transB=1, alpha=1.0, beta=1.0, name="node_linear"),
        node("Relu", ["linear"], ["relu"], name="node_relu"),
        node("Gemm", ["relu", "w2", "b2"], ["linear_1"], transB=1, alpha=1.0, beta=1.0, name="node_linear_1"),
    ]
    values = {"view": (1, 16), "linear": (1, 8), "relu": (1, 8)}
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, *SHAPE))],
        [helper.make_tensor_value_info("linear_1", TensorProto.FLOAT, (1, 3))],
        [*constants, constant("to", [1, 16])],
        value_info=[
            helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in values.items()
        ],
    )
    note = graph.output[0].metadata_props.add()
    note.key, note.value = "pkg.torch.export.graph_signature.OutputSpec.kind", "USER_OUTPUT"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


FORGET: dict[str, Callable[[onnx.GraphProto], None]] = {
    "shape": lambda graph: graph.output[0].type.tensor_type.ClearField("shape"),
    "kind of number": lambda graph: graph.output[0].type.tensor_type.ClearField("elem_type"),
    "type": lambda graph: graph.output[0].ClearField("type"),
    "shape of the input, too": lambda graph: [
        value.type.tensor_type.ClearField("shape") for value in (graph.input[0], graph.output[0])
    ],
}


@pytest.mark.parametrize("forgotten", FORGET)
@pytest.mark.parametrize("exporter", [older_exporters, newer_exporters])
def test_an_output_without_a_type_is_inferred(exporter, forgotten, tmp_path):
    path = exporter(tmp_path / "net.onnx")
    x = np.random.default_rng(1).random((1, *SHAPE), dtype=np.float32)
    (expected,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    model = onnx.load(path)
    FORGET[forgotten](model.graph)
    onnx.save(model, path)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(onnx.load(path))
    opened = open_model(path, SHAPE, logit=2)
    least = expected[0, 2] - expected[0, :2].max()
    assert not opened.unread and opened.logits == 3
    np.testing.assert_allclose(opened.score(torch.from_numpy(x).double()), [least], rtol=1e-5, atol=1e-5)


def test_one_of_two_outputs_without_types_is_named(tmp_path):
    path = older_exporters(tmp_path / "net.onnx")
    model = onnx.load(path)
    model.graph.output.add().name = model.graph.node[1].output[0]
    onnx.save(model, path)
    with pytest.raises(UsageError, match="2 outputs that may hold scores"):
        open_model(path, SHAPE, logit=2)
    assert open_model(path, SHAPE, logit=2, output=model.graph.output[0].name).logits == 3


def test_weights_in_sparse_form_are_refused(tmp_path):
    path = saved([node("Identity", ["x"], ["big"])], [], tmp_path / "net.onnx")
    model = onnx.load(path)
    values, places = constant("w", [1.0, 2.0], np.float32), constant("places", [0, 17])
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [16, 3]))
    onnx.save(model, path)
    with pytest.raises(UsageError, match="'w' in sparse form"):
        open_model(path, SHAPE, logit=1)
