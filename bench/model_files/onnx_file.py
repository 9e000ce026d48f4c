"""Reads an ONNX file into a Program. Nothing in the file is executed but by onnxruntime, which judges the result.

Own translation: onnx2torch imports torchvision, whose releases do not load beside a CPU-only torch, and onnx2pytorch
runs what it does not check.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.basics.errors import UsageError, nearest, unknown
from bench.model_files.layers import Log
from bench.model_files.operators import FLOAT_TYPES, OPERATORS, REFUSED, layers_of
from bench.model_files.parts import weight_files
from bench.model_files.program import Call, Program, Recorder, UnreadError
from bench.model_files.runtime import INSTALL_HINT, Session, agree
from bench.model_files.shapes import check_sizes, with_types

CONTROL_FLOW = ("If", "Loop", "Scan")
HALF, DOUBLE = 10, 11
SCALES = ((0.0, 1.0), (-1.0, 2.0), (-10.0, 10.0))
CHECKED = 8


@dataclass(frozen=True)
class NetworkFile:
    """What a file holds: the network as onnxruntime runs it, and as a Program, or why that was not read.

    shape: of one of its inputs.
    """

    session: Session
    program: Program | None
    unread: str
    shape: tuple[int, ...]


def read_onnx(path: Path, data_shape: tuple[int, ...], output: str | None) -> NetworkFile:
    """Return the network of an ONNX file, the Program in float64.

    data_shape: shape of one input of the data, used where the file leaves its own open; output: name of the output to
    use (default: the only floating-point one). Raises UsageError naming the output, size or loop that does not fit.
    """
    return read_model(_parse(path), data_shape, output)


def read_model(model: Any, data_shape: tuple[int, ...], output: str | None = None) -> NetworkFile:
    """As ``read_onnx``, for a model in memory."""
    graph = model.graph
    loops = sorted({node.op_type for node in graph.node} & set(CONTROL_FLOW))
    if loops:
        raise UsageError(
            f"it has an operator {loops[0]}: networks whose course depends on their input are not supported; trace the "
            "network with a fixed course before exporting it"
        )
    weights = _constants(graph)
    source, shape, batch, double = _input(graph, weights, data_shape)
    result = _output(graph, output)
    nodes = _needed(graph, result)
    if not nodes or not _depends(nodes, source, result):
        raise UsageError(f"output {result!r} does not depend on the input: choose another with --output")
    size = 1 if batch == 0 else batch
    check_sizes(nodes, {**weights, source: shape if size is None else (size, *shape)}, size or 1, model)
    program, unread = None, ""
    try:
        program = _read(nodes, Recorder(source, shape, size), weights, model, result)
    except UnreadError as error:
        unread = str(error)
    session = Session(_alone(model, nodes, source), source, shape, batch, double)
    if program is None:
        return NetworkFile(session, None, unread, shape)
    _compare(session, program)
    return NetworkFile(session, program, "", shape)


def _parse(path: Path) -> Any:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise UsageError(INSTALL_HINT) from error
    try:
        model = onnx.load(path, load_external_data=False)
        if weight_files(path, model):
            onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        model = with_types(model)
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

    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise UsageError(f"it keeps its weight {name!r} in sparse form: save it with all its numbers")
    found = {tensor.name: _as_tensor(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    for name, tensor in found.items():
        _require_finite(name, tensor)
    return found


def _require_finite(name: str, tensor: Tensor, infinities: bool = False) -> None:
    # A single infinite number may be a bound, of Clip or of Pad before a maximum; many of them, a mask.
    infinite = not infinities and tensor.numel() > 1 and tensor.isinf().any()
    if tensor.is_floating_point() and (tensor.isnan().any() or infinite):
        raise UsageError(f"its weight {name!r} has NaN or infinite values: train it again, and export that")


def _as_tensor(array: np.ndarray) -> Tensor:
    """Constants as tensors, floating-point ones in float64 (which changes no value)."""
    array = np.asarray(array)
    return torch.from_numpy(array.astype(np.float64 if array.dtype.kind == "f" else array.dtype))


def _input(
    graph: Any, weights: dict[str, Tensor], data_shape: tuple[int, ...]
) -> tuple[str, tuple[int, ...], int | None, bool]:
    """Name and shape of the one input, its batch size (0: open, None: no such axis), and whether it is float64."""
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise UsageError(f"it has {len(inputs)} inputs ({names}): a classifier has one")
    kind = inputs[0].type.tensor_type
    if kind.elem_type == HALF:
        raise UsageError(
            f"its input {inputs[0].name!r} is float16: what a network computes in half precision is another function "
            "than the one that certificates are about; export it in float32"
        )
    if kind.elem_type not in FLOAT_TYPES:
        raise UsageError(f"its input {inputs[0].name!r} is not a floating-point tensor: export it with one")
    name, double = inputs[0].name, kind.elem_type == DOUBLE
    dims = [dim.dim_value or None for dim in kind.shape.dim]
    if len(dims) == 1 and dims[0]:
        return name, (dims[0],), None, double
    if not dims:
        return name, data_shape, 0, double
    batch, *sizes = dims
    known = [size for size in sizes if size is not None]
    if sizes and len(known) == len(sizes):
        return name, tuple(known), batch or 0, double
    fits = len(sizes) == len(data_shape) and all(
        size in (None, own) for size, own in zip(sizes, data_shape, strict=True)
    )
    shape = data_shape if fits else (math.prod(data_shape),)
    if not fits and len(sizes) > 1:
        raise UsageError(f"its input has shape {tuple(sizes)} for one example, the data {data_shape}")
    return name, shape, batch or 0, double


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


def _depends(nodes: list[Any], source: str, result: str) -> bool:
    reached = {source}
    for node in nodes:
        if reached & set(node.input) and node.op_type != "Shape":
            reached |= set(node.output)
    return result in reached


def _alone(model: Any, nodes: list[Any], source: str) -> bytes:
    """The file with nothing but the nodes that are needed, and their result (before any ZipMap) as its one output."""
    from onnx import ValueInfoProto, helper

    kept = [node for node in nodes if node.op_type != "ZipMap"]
    last = kept[-1].output[0]
    kind = next(value for value in model.graph.input if value.name == source)
    if not kind.type.tensor_type.shape.dim:
        kind = helper.make_tensor_value_info(source, kind.type.tensor_type.elem_type, None)
    graph = helper.make_graph(
        kept, "needed", [kind], [ValueInfoProto(name=last)], initializer=model.graph.initializer
    )
    alone = helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
    )
    return alone.SerializeToString()


def _opset(model: Any) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def _read(
    nodes: list[Any], recorder: Recorder, weights: dict[str, Tensor], model: Any, result: str
) -> Program:
    for node in nodes:
        # Shapes that are computed on the way are known only now.
        taken = {
            name: tuple(recorder.seen(name).shape) if name in recorder.examples else weights[name]
            for name in node.input
            if name
        }
        check_sizes([node], taken, recorder.batch or 1, model)
        try:
            _read_node(node, recorder, weights, _opset(model))
        except UnreadError as error:
            raise UnreadError(f"{error} (node {node.name!r})" if node.name else str(error)) from error
    return Program(recorder.steps, recorder.source, result)


def _read_node(node: Any, recorder: Recorder, weights: dict[str, Tensor], opset: int) -> None:
    """Turn a node into steps, or into constants where it does not depend on the input's values."""
    from onnx import helper

    name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    live = [value for value in node.input if value in recorder.examples]
    if not live or name == "Shape":
        _fold(node, name, recorder, weights, opset)
        return
    if name not in OPERATORS:
        why = f": {REFUSED[name]}" if name in REFUSED else nearest(name, OPERATORS)
        raise UnreadError(f"operator {name} is not supported{why}")
    arguments = {
        place: recorder.data(value) if value in recorder.examples else weights[value]
        for place, value in enumerate(node.input)
        if value
    }
    options = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    used = [output for output in node.output if output]
    call = Call(name, arguments, options, len(used), opset)
    for layer, output in zip(layers_of(call), used, strict=False):
        recorder.add(call, layer, output)


def _fold(node: Any, name: str, recorder: Recorder, weights: dict[str, Tensor], opset: int) -> None:
    """Compute a node whose value is the same for every input, with ONNX's reference implementation."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    feeds = {
        value: (recorder.seen(value) if value in recorder.examples else weights[value]).numpy()
        for value in node.input
        if value
    }
    try:
        versions = [helper.make_opsetid("", opset)]
        graph = helper.make_graph(
            [node],
            "constant",
            [
                helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
                for key, value in feeds.items()
            ],
            [helper.make_empty_tensor_value_info(output) for output in node.output],
        )
        results = ReferenceEvaluator(helper.make_model(graph, opset_imports=versions)).run(None, feeds)
    except Exception as error:  # the reference raises many types for what it does not know
        raise UnreadError(
            f"operator {name} is not supported on constants ({type(error).__name__})"
        ) from error
    found = {key: _as_tensor(value) for key, value in zip(node.output, results, strict=True)}
    if name == "Constant":
        for key, value in found.items():
            _require_finite(key, value, infinities=True)
    weights.update(found)


def _compare(session: Session, program: Program) -> None:
    """Run inputs of several scales through onnxruntime too; raise UsageError if the results differ."""
    rng = np.random.default_rng(0)
    last = program.steps()[program.result].layer
    for low, high in SCALES:
        x = rng.uniform(low, high, (CHECKED, *session.shape)).astype(session.dtype)
        with torch.no_grad():
            found = program(torch.from_numpy(x).double()).reshape(len(x), -1).numpy()
        expected = session.run(x)
        if isinstance(last, Log):  # it enlarges the rounding of small probabilities without end
            found, expected = np.exp(found), np.exp(expected)
        if not agree(expected, found):
            raise UsageError(
                f"it was not understood: onnxruntime computes other values at inputs from {low:g} to {high:g}"
            )
