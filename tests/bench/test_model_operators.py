"""Every ONNX operator that is read computes what onnxruntime computes, whatever its padding, axes and broadcasts."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from bench.model_files import open_model
from bench.model_files.operators import OPERATORS

IMAGE, TABLE, SIGNAL = (2, 7, 6), (6,), (3, 9)
RNG = np.random.default_rng(0)


def constant(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def numbers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


# name: (operator, shape of the input, constants on the right (a pair (0, constant): on the left), attributes)
CASES: dict[str, tuple] = {
    "abs": ("Abs", TABLE, [], {}),
    "add": ("Add", IMAGE, [constant(2, 1, 1)], {}),
    "add on the left": ("Add", TABLE, [(0, constant(1, 6))], {}),
    "average pool": ("AveragePool", IMAGE, [], {"kernel_shape": [2, 3], "strides": [2, 1]}),
    "average pool, padded": ("AveragePool", IMAGE, [], {"kernel_shape": [3, 3], "pads": [1, 0, 1, 2]}),
    "average pool, padding counted": (
        "AveragePool",
        IMAGE,
        [],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    "average pool, ceil": (
        "AveragePool",
        IMAGE,
        [],
        {"kernel_shape": [2, 2], "strides": [2, 4], "ceil_mode": 1},
    ),
    "average pool of a signal": ("AveragePool", SIGNAL, [], {"kernel_shape": [3], "strides": [2]}),
    "batch norm": (
        "BatchNormalization",
        IMAGE,
        [constant(2), constant(2), constant(2), np.abs(constant(2)) + 0.1],
        {"epsilon": 0.01},
    ),
    "batch norm of a signal": (
        "BatchNormalization",
        SIGNAL,
        [constant(3), constant(3), constant(3), np.abs(constant(3)) + 0.1],
        {},
    ),
    "clip": ("Clip", TABLE, [np.float32(0.2), np.float32(0.6)], {}),
    "clip above": ("Min", TABLE, [np.float32(0.6)], {}),
    "clip below": ("Max", TABLE, [np.float32(0.4)], {}),
    "concat with a constant": ("Concat", TABLE, [constant(1, 3)], {"axis": 1}),
    "conv": ("Conv", IMAGE, [constant(3, 2, 3, 3), constant(3)], {"pads": [1, 1, 1, 1], "strides": [2, 1]}),
    "conv, other padding": ("Conv", IMAGE, [constant(3, 2, 3, 3)], {"pads": [0, 1, 2, 0]}),
    "conv, same": ("Conv", IMAGE, [constant(3, 2, 2, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "conv, same lower": ("Conv", IMAGE, [constant(3, 2, 2, 2)], {"auto_pad": "SAME_LOWER"}),
    "conv, grouped, dilated": ("Conv", IMAGE, [constant(4, 1, 2, 2)], {"group": 2, "dilations": [2, 1]}),
    "conv of a signal": ("Conv", SIGNAL, [constant(4, 3, 3), constant(4)], {"pads": [1, 2]}),
    "conv transpose": (
        "ConvTranspose",
        IMAGE,
        [constant(2, 3, 3, 3), constant(3)],
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ),
    "div": ("Div", TABLE, [np.float32(3.0)], {}),
    "einsum": ("Einsum", SIGNAL, [constant(9, 2)], {"equation": "bij,jk->bik"}),
    "einsum on the left": ("Einsum", SIGNAL, [(0, constant(4, 3))], {"equation": "ki, bij -> bjk"}),
    "einsum, result not named": ("Einsum", SIGNAL, [constant(9, 2)], {"equation": "aij,jk"}),
    "einsum of channels": ("Einsum", IMAGE, [constant(2), constant(6)], {"equation": "bchw,c,w->bhw"}),
    "elu": ("Elu", TABLE, [], {"alpha": 1.0}),
    "exp": ("Exp", TABLE, [], {}),
    "expand": ("Expand", (1, 3), [numbers(1, 4, 3)], {}),
    "flatten": ("Flatten", IMAGE, [], {"axis": 1}),
    "gather": ("Gather", IMAGE, [numbers(3, -1, 3)], {"axis": 2}),
    "gather one": ("Gather", IMAGE, [np.array(1, dtype=np.int64)], {"axis": 1}),
    "gemm": ("Gemm", TABLE, [constant(4, 6), constant(4)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    "gemm, one bias": ("Gemm", TABLE, [constant(6, 4), constant(1)], {}),
    "global average": ("GlobalAveragePool", IMAGE, [], {}),
    "global maximum": ("GlobalMaxPool", IMAGE, [], {}),
    "hard sigmoid": ("HardSigmoid", TABLE, [], {"alpha": 0.3, "beta": 0.1}),
    "leaky relu": ("LeakyRelu", TABLE, [], {"alpha": 0.3}),
    "matmul": ("MatMul", TABLE, [constant(6, 3)], {}),
    "matmul of rows": ("MatMul", SIGNAL, [constant(9, 2)], {}),
    "matmul on the left": ("MatMul", SIGNAL, [(0, constant(4, 3))], {}),
    "max pool": ("MaxPool", IMAGE, [], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "max pool, padded": ("MaxPool", IMAGE, [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "max pool, other padding": ("MaxPool", IMAGE, [], {"kernel_shape": [3, 2], "pads": [0, 1, 2, 0]}),
    "max pool, ceil": ("MaxPool", IMAGE, [], {"kernel_shape": [2, 2], "strides": [2, 4], "ceil_mode": 1}),
    "max pool, same": (
        "MaxPool",
        IMAGE,
        [],
        {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "max pool of a signal": ("MaxPool", SIGNAL, [], {"kernel_shape": [2], "strides": [2]}),
    "mul on the left": ("Mul", IMAGE, [(0, constant(1, 2, 1, 1))], {}),
    "neg": ("Neg", TABLE, [], {}),
    "prelu": ("PRelu", IMAGE, [constant(2, 1, 1)], {}),
    "pad": ("Pad", IMAGE, [numbers(0, 0, 1, 2, 0, 0, 0, 1), np.float32(0.7)], {}),
    "pad, cut": ("Pad", IMAGE, [numbers(0, 0, -1, 0, 0, 0, 0, -2)], {}),
    "pad, reflect": ("Pad", IMAGE, [numbers(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "reflect"}),
    "pad, edge": ("Pad", IMAGE, [numbers(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "edge"}),
    "reduce max": ("ReduceMax", IMAGE, [], {"axes": [1, 3], "keepdims": 0}),
    "reduce min": ("ReduceMin", IMAGE, [], {"axes": [2]}),
    "reduce mean": ("ReduceMean", IMAGE, [], {"axes": [2, 3], "keepdims": 0}),
    "reduce mean of channels": ("ReduceMean", IMAGE, [], {"axes": [1]}),
    "reduce sum": ("ReduceSum", IMAGE, [numbers(-1)], {"keepdims": 0}),
    "reshape": ("Reshape", IMAGE, [numbers(0, -1, 3)], {}),
    "resize": ("Resize", IMAGE, [None, np.array([1, 1, 2, 3], np.float32)], {"mode": "nearest"}),
    "resize, linear": ("Resize", IMAGE, [None, np.array([1, 1, 2, 2], np.float32)], {"mode": "linear"}),
    "sigmoid": ("Sigmoid", TABLE, [], {}),
    "slice": ("Slice", IMAGE, [numbers(1, 5), numbers(99, 0), numbers(2, 3), numbers(2, -2)], {}),
    "softplus": ("Softplus", TABLE, [], {}),
    "squeeze": ("Squeeze", (1, 6, 1), [numbers(1, 3)], {}),
    "sub on the left": ("Sub", TABLE, [(0, np.float32(1.0))], {}),
    "tanh": ("Tanh", TABLE, [], {}),
    "atan": ("Atan", TABLE, [], {}),
    "celu": ("Celu", TABLE, [], {"alpha": 0.7}),
    "depth to space": ("DepthToSpace", (8, 2, 3), [], {"blocksize": 2}),
    "depth to space, other order": ("DepthToSpace", (8, 2, 3), [], {"blocksize": 2, "mode": "CRD"}),
    "erf": ("Erf", TABLE, [], {}),
    "hard swish": ("HardSwish", TABLE, [], {}),
    "power": ("Pow", TABLE, [np.float32(3.0)], {}),
    "selu": ("Selu", TABLE, [], {}),
    "space to depth": ("SpaceToDepth", (2, 4, 6), [], {"blocksize": 2}),
    "tile": ("Tile", (2, 3), [numbers(1, 2, 2)], {}),
    "transpose": ("Transpose", IMAGE, [], {"perm": [0, 2, 3, 1]}),
    "unsqueeze": ("Unsqueeze", TABLE, [numbers(1, 3)], {}),
}


def write(
    nodes: list, shape: tuple, constants: dict, path: Path, opset: int = 17, batch: str | int = "n"
) -> Path:
    """An ONNX file whose nodes give ``h``; its first two numbers, and the sum of all, are the logits."""
    made = [*nodes, helper.make_node("Flatten", ["h"], ["flat"], axis=1)]
    made.append(helper.make_node("MatMul", ["flat", "mix"], ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    probe = helper.make_graph(nodes, "g", [x], [onnx.ValueInfoProto(name="h")], initial)
    versions = [helper.make_opsetid("", opset)]
    session = onnxruntime.InferenceSession(
        helper.make_model(probe, opset_imports=versions, ir_version=9).SerializeToString()
    )
    width = session.run(None, {"x": np.zeros((1, *shape), np.float32)})[0].size
    mix = np.random.default_rng(1).normal(size=(width, 3)).astype(np.float32)
    whole = helper.make_graph(made, "g", [x], [y], [*initial, numpy_helper.from_array(mix, "mix")])
    onnx.save(helper.make_model(whole, opset_imports=versions, ir_version=9), path)
    return path


def check(path: Path, shape: tuple) -> None:
    """The file is read, and scores as onnxruntime runs it."""
    model = open_model(path, shape, logit=1)
    assert model.unread == ""
    x = np.random.default_rng(2).uniform(-2, 2, (5, *shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(path)
    y = np.concatenate([session.run(None, {"x": row[None]})[0] for row in x]).astype(np.float64)
    expected = y[:, 1] - np.maximum(y[:, 0], y[:, 2])
    found = model.score(torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    # In single precision, as smoothing runs it, and in a batch of another size.
    np.testing.assert_allclose(
        model.score.float()(torch.from_numpy(x[:2])), expected[:2], rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("name", CASES)
def test_an_operator_is_read_as_onnxruntime_runs_it(name, tmp_path):
    operator, shape, given, options = CASES[name]
    names, constants = ["x"], {}
    for place, value in enumerate(given):
        left = isinstance(value, tuple)
        value = value[1] if left else value
        if value is None:
            names.append("")
            continue
        constants[f"c{place}"] = value
        names.insert(0 if left else len(names), f"c{place}")
    opset = 13 if operator.startswith("Reduce") and "axes" in options else 17
    node = helper.make_node(operator, names, ["h"], **options)
    check(write([node], shape, constants, tmp_path / "net.onnx", opset), shape)


def test_values_are_split_joined_added_and_compared(tmp_path):
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b", "c"], axis=1),
        helper.make_node("Concat", ["c", "a", "one"], ["joined"], axis=1),
        helper.make_node("Concat", ["b", "b", "a"], ["other"], axis=1),
        helper.make_node("Max", ["joined", "other"], ["greater"]),
        helper.make_node("Sub", ["greater", "other"], ["h"]),
    ]
    constants = {"sizes": numbers(2, 1, 3), "one": np.ones((1, 1, 2), np.float32)}
    shape = (6, 2)
    nodes[2] = helper.make_node("Concat", ["c", "b", "a"], ["other"], axis=1)
    check(write(nodes, shape, constants, tmp_path / "net.onnx"), shape)


def test_values_that_both_depend_on_the_input_are_multiplied_chosen_and_added_up(tmp_path):
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2]),
        helper.make_node("Mul", ["x", "mean"], ["product"]),
        helper.make_node("Div", ["product", "two"], ["half"]),
        helper.make_node("Sub", ["half", "mean"], ["apart"]),
        helper.make_node("Less", ["x", "limit"], ["small"]),
        helper.make_node("GreaterOrEqual", ["limit", "apart"], ["low"]),
        helper.make_node("Where", ["small", "apart", "two"], ["one"]),
        helper.make_node("Where", ["low", "x", "one"], ["other"]),
        helper.make_node("Sum", ["one", "other", "x"], ["h"]),
    ]
    constants = {"two": np.float32(2.0), "limit": np.float32(0.3)}
    check(write(nodes, (6, 2), constants, tmp_path / "net.onnx"), (6, 2))


def test_mish_is_read(tmp_path):
    node = helper.make_node("Mish", ["x"], ["h"])
    check(write([node], TABLE, {}, tmp_path / "net.onnx", opset=18), TABLE)


@pytest.mark.parametrize(
    ("operator", "options", "words"),
    [
        ("LayerNormalization", {"axis": -1}, "batch normalisation is read"),
        ("Sin", {}, "'/wave'"),
        ("Einsum", {"equation": "bi,bi->bi"}, "keep the inputs of a batch apart"),
        ("Einsum", {"equation": "...i,...i->...i"}, "ellipsis"),
    ],
)
def test_what_is_not_read_is_named_and_can_still_be_smoothed(operator, options, words, tmp_path):
    names = ["x"] if operator == "Sin" else ["x", "one"]
    node = helper.make_node(operator, names, ["h"], name="/wave", **options)
    model = open_model(
        write(
            [node],
            TABLE,
            {"one": np.ones((6,) if "axis" in options else (1, 6), np.float32)},
            tmp_path / "net.onnx",
        ),
        TABLE,
        logit=1,
    )
    assert operator in model.unread and words in model.unread


def test_a_bilinear_upsampling_of_other_pixels_is_not_taken_for_ours(tmp_path):
    node = helper.make_node("Upsample", ["x", "scales"], ["h"], mode="linear")
    constants = {"scales": np.array([1, 1, 2, 2], np.float32)}
    model = open_model(write([node], IMAGE, constants, tmp_path / "net.onnx", opset=9), IMAGE, logit=1)
    assert "asymmetric" in model.unread


def test_shapes_computed_in_the_file_are_constants(tmp_path):
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
        helper.make_node("Concat", ["batch", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["h"]),
    ]
    constants = {"zero": numbers(0), "rest": numbers(-1)}
    check(write(nodes, IMAGE, constants, tmp_path / "net.onnx"), IMAGE)


def test_a_file_without_a_batch_axis_is_one_input(tmp_path):
    weight, bias = constant(4, 3), constant(4)
    nodes = [
        helper.make_node("MatMul", ["w", "x"], ["z"]),
        helper.make_node("Add", ["z", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["v", "r"], ["y"]),
    ]
    last = constant(1, 4)
    initial = [
        numpy_helper.from_array(value, name) for value, name in ((weight, "w"), (bias, "b"), (last, "v"))
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    path = tmp_path / "net.onnx"
    made = helper.make_graph(nodes, "g", [x], [y], initial)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    model = open_model(path, (3,))
    assert model.unread == ""
    points = np.random.default_rng(0).random((5, 3))
    expected = np.maximum(points @ weight.T + bias, 0) @ last.T
    np.testing.assert_allclose(model.score(torch.from_numpy(points)).numpy(), expected[:, 0], rtol=1e-5)


def test_every_operator_has_a_case():
    tested = {case[0] for case in CASES.values()}
    elsewhere = {
        "Cast", "Dropout", "Gelu", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Log", "LogSoftmax",
        "Mish", "Relu", "Softmax", "Split", "Sub", "Sum", "Upsample", "Where", "ai.onnx.ml.Scaler",
        "ai.onnx.ml.ZipMap",
    }  # fmt: skip
    assert set(OPERATORS) <= tested | elsewhere


def test_gelu_as_exporters_wrote_it_for_years_is_one_activation_for_bounds(tmp_path):
    from bench.methods.given import GivenNetwork

    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["z"]),
        helper.make_node("Div", ["z", "root"], ["scaled"]),
        helper.make_node("Erf", ["scaled"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["gate"]),
        helper.make_node("Mul", ["z", "gate"], ["double"]),
        helper.make_node("Mul", ["double", "half"], ["h"]),
    ]
    numbers_of = {"root": np.float32(2**0.5), "one": np.float32(1.0), "half": np.float32(0.5)}
    path = write(nodes, TABLE, {"w": constant(6, 5), **numbers_of}, tmp_path / "net.onnx")
    check(path, TABLE)
    network = GivenNetwork(open_model(path, TABLE, logit=1).score, TABLE)
    assert network.unreadable == "" and len(network.layered.layers) == 2


def test_a_maximum_of_many_entries_is_few_layers_for_bounds(tmp_path):
    from bench.methods.given import GivenNetwork

    node = helper.make_node("ReduceMax", ["x"], ["h"], axes=[2, 3], keepdims=0)
    shape = (2, 16, 16)
    path = write([node], shape, {}, tmp_path / "net.onnx", opset=13)
    network = GivenNetwork(open_model(path, shape, logit=1).score, shape)
    # Rounds of pairs: 256 entries, then 128, ..., 2, 1; and the output.
    assert network.unreadable == "" and len(network.layered.layers) == 9
