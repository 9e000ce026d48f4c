"""Reads an ONNX file into a Program. Nothing in the file is executed; the result is checked against ONNX's reference.

Own translation, because onnx2torch 1.5 imports torchvision, whose releases do not load beside a CPU-only torch.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import UsageError, nearest, unknown
from bench.model_files.onnx_operators import FLOAT_TYPES, OPERATORS
from bench.model_files.program import Call, Program, Recorder

INSTALL_HINT = "reading ONNX files needs the package onnx: pip install 'certbench[onnx]'"
TOLERANCE = 1e-3
CHECKED_BATCHES = 3


def read_onnx(path: Path, data_shape: tuple[int, ...], output: str | None) -> tuple[Program, tuple[int, ...]]:
    """Return the network of an ONNX file in float64, and the shape of one of its inputs.

    data_shape: shape of one input of the data, used where the file leaves its own open; output: name of the output to
    use (default: the only floating-point one). Raises UsageError naming the operator, output or size that does not fit.
    """
    model = _parse(path)
    graph = model.graph
    weights = _constants(graph)
    source, shape, batch = _input(graph, weights, data_shape)
    result = _output(graph, output)
    nodes = _needed(graph, result)
    recorder = Recorder(source, shape, batch)
    for node in nodes:
        _read_node(node, recorder, weights)
    if result not in recorder.examples:
        raise UsageError(f"output {result!r} does not depend on the input: choose another with --output")
    program = Program(recorder.steps, source, result)
    _compare(model, nodes, program, source, (batch, *shape))
    return program, shape


def _parse(path: Path) -> Any:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise UsageError(INSTALL_HINT) from error
    try:
        model = onnx.load(path, load_external_data=False)
        if any(
            tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data
            for tensor in model.graph.initializer
        ):
            raise UsageError("it keeps weights in other files: save it as one file")
        onnx.checker.check_model(model)
    except UsageError:
        raise
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UsageError(f"it is not a valid ONNX file ({reason}): export it again") from error
    if not model.graph.node:
        raise UsageError("it is not a valid ONNX file (its graph is empty): export it again")
    return model


def _constants(graph: Any) -> dict[str, Tensor]:
    from onnx import numpy_helper

    return {tensor.name: _as_tensor(numpy_helper.to_array(tensor)) for tensor in graph.initializer}


def _as_tensor(array: np.ndarray) -> Tensor:
    """Constants as tensors, floating-point ones in float64 (which changes no value)."""
    array = np.asarray(array)
    return torch.from_numpy(array.astype(np.float64 if array.dtype.kind == "f" else array.dtype))


def _input(
    graph: Any, weights: dict[str, Tensor], data_shape: tuple[int, ...]
) -> tuple[str, tuple[int, ...], int]:
    """Name, shape and batch size of the one input; the shape that the file leaves open is taken from the data."""
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise UsageError(f"it has {len(inputs)} inputs ({names}): a classifier has one")
    kind = inputs[0].type.tensor_type
    if kind.elem_type not in FLOAT_TYPES:
        raise UsageError(f"its input {inputs[0].name!r} is not a floating-point tensor: export it with one")
    batch, *sizes = [dim.dim_value or None for dim in kind.shape.dim] or [None]
    if None not in sizes and sizes:
        return inputs[0].name, tuple(sizes), batch or 1
    fits = len(sizes) == len(data_shape) and all(
        size in (None, own) for size, own in zip(sizes, data_shape, strict=True)
    )
    shape = data_shape if fits else (math.prod(data_shape),)
    if not fits and len(sizes) > 1:
        raise UsageError(f"its input has shape {tuple(sizes)} for one example, the data {data_shape}")
    return inputs[0].name, shape, batch or 1


def _output(graph: Any, wanted: str | None) -> str:
    """The output to use: the one asked for, or the only one that can hold scores."""
    names = [value.name for value in graph.output]
    if wanted is not None:
        if wanted not in names:
            raise unknown("output", wanted, names)
        return wanted
    scores = [
        value.name
        for value in graph.output
        if value.type.tensor_type.elem_type in FLOAT_TYPES or value.type.HasField("sequence_type")
    ]
    if len(scores) != 1:
        raise UsageError(
            f"it has {len(scores)} outputs that may hold scores ({', '.join(scores) or 'none'}): "
            f"name one of {', '.join(names)} with --output"
        )
    return scores[0]


def _needed(graph: Any, result: str) -> list[Any]:
    """The nodes that the result depends on, in order."""
    wanted, kept = {result}, []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    return kept[::-1]


def _read_node(node: Any, recorder: Recorder, weights: dict[str, Tensor]) -> None:
    """Turn a node into a step, or into a constant where it does not depend on the input's values."""
    from onnx import helper

    name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    live = [value for value in node.input if value in recorder.examples]
    if not live or name == "Shape":
        _fold(node, name, recorder, weights)
        return
    if name not in OPERATORS:
        raise UsageError(
            f"operator {name} is not supported{nearest(name, OPERATORS)}: supported are {', '.join(OPERATORS)}"
        )
    arguments = {
        place: recorder.data(value) if value in recorder.examples else weights[value]
        for place, value in enumerate(node.input)
        if value
    }
    options = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    call = Call(name, arguments, options)
    recorder.add(call, OPERATORS[name](call), node.output[0])


def _fold(node: Any, name: str, recorder: Recorder, weights: dict[str, Tensor]) -> None:
    """Compute a node whose value is the same for every input, with ONNX's reference implementation."""
    from onnx.reference import ReferenceEvaluator

    feeds = {
        value: (recorder.examples[value] if value in recorder.examples else weights[value]).numpy()
        for value in node.input
        if value
    }
    try:
        results = ReferenceEvaluator(node).run(None, feeds)
    except Exception as error:  # the reference raises many types for what it does not know
        raise UsageError(f"operator {name} is not supported on constants ({type(error).__name__})") from error
    weights.update({key: _as_tensor(value) for key, value in zip(node.output, results, strict=True)})


def _compare(model: Any, nodes: list[Any], program: Program, source: str, shape: tuple[int, ...]) -> None:
    """Run a few batches through ONNX's reference implementation too; raise UsageError if the results differ."""
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    kept = [node for node in nodes if node.op_type != "ZipMap"]
    last = kept[-1].output[0]
    kind = next(value for value in model.graph.input if value.name == source)
    result = helper.make_tensor_value_info(last, TensorProto.UNDEFINED, None)
    graph = helper.make_graph(kept, "needed", [kind], [result], initializer=model.graph.initializer)
    needed = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    double = kind.type.tensor_type.elem_type == TensorProto.DOUBLE
    x = (
        np.random.default_rng(0)
        .random((CHECKED_BATCHES, *shape))
        .astype(np.float64 if double else np.float32)
    )
    reference = ReferenceEvaluator(needed)
    expected = np.concatenate([reference.run(None, {source: part})[0] for part in x])
    found = program(torch.from_numpy(x).double().flatten(0, 1)).numpy()
    if expected.shape != found.shape or not np.allclose(expected, found, rtol=TOLERANCE, atol=TOLERANCE):
        raise UsageError("it was not understood: ONNX's reference implementation computes other values")
