"""Reads TorchScript and torch.export files into a Program, once the user trusts them.

Loading either kind can run code: torch.export.load falls back on pickle for the sample inputs, and torch.jit.load
interprets the program in the file. So neither is opened without ``trust``. A pickled module is never opened.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.errors import UsageError, nearest
from bench.model_files.program import Call, Program, Recorder
from bench.model_files.torch_operators import OPERATORS

TRUST = (
    "{kind} files can run code when they are loaded: add --trust if you made the file yourself or trust who did, "
    "or give an ONNX file, which runs nothing"
)
PICKLE = "it is a pickle, which is never loaded because it can run code: export the network to ONNX"
TRACE = "save it with torch.jit.trace if it was saved with torch.jit.script, which keeps helper operators"
TOLERANCE = 1e-3


def read_torch(path: Path, input_shape: tuple[int, ...], trust: bool) -> Program:
    """Return the network of a TorchScript or torch.export file in float64, for inputs of this shape.

    Raises UsageError for files that are not trusted, pickled, damaged, or hold an operator that is not supported.
    """
    kind = _kind(path)
    if not trust:
        raise UsageError(TRUST.format(kind=kind))
    try:
        loaded = (
            torch.export.load(path) if kind == "torch.export" else torch.jit.load(path, map_location="cpu")
        )
    except Exception as error:  # both raise many types for damaged files
        reason = " ".join(str(error).split())[:160]
        raise UsageError(f"it is not a valid {kind} file ({reason}): save it again") from error
    if kind == "torch.export":
        program = _read_export(loaded, input_shape)
        _compare(loaded.module(), program, (_fixed_batch(loaded) or 2, *input_shape))
    else:
        program = _read_script(loaded, input_shape)
        _compare(loaded, program, (1, *input_shape))
    return program


def _kind(path: Path) -> str:
    """Tell the two kinds apart by the names in the archive; nothing in it is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise UsageError(PICKLE) from error
    if any(name.endswith("models/model.json") for name in names):
        return "torch.export"
    if any(name.endswith("/constants.pkl") for name in names):
        return "TorchScript"
    raise UsageError(PICKLE)


def _read_export(program: Any, input_shape: tuple[int, ...]) -> Program:
    constants = _export_constants(program)
    if len(program.graph_signature.user_inputs) != 1:
        raise UsageError(f"it has {len(program.graph_signature.user_inputs)} inputs: a classifier has one")
    (source,) = program.graph_signature.user_inputs
    batch = _fixed_batch(program)
    recorder = Recorder(source, input_shape, batch or 1)
    for node in program.graph.nodes:
        if node.op == "call_function":
            arguments = _named(node.target._schema.arguments, list(node.args), dict(node.kwargs))
            values = {name: _export_value(value, recorder, constants) for name, value in arguments.items()}
            _read_call(node.target._schema.name, values, node.name, recorder, constants)
    result = program.graph_signature.user_outputs
    return Program(recorder.steps, source, _only(result, recorder))


def _fixed_batch(program: Any) -> int | None:
    """How many inputs at once the file was exported for; None where it takes any number."""
    (source,) = program.graph_signature.user_inputs
    size = next(node for node in program.graph.nodes if node.name == source).meta["val"].shape[0]
    return size if isinstance(size, int) else None


def _export_constants(program: Any) -> dict[str, Any]:
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    tensors = {**program.state_dict, **program.constants}
    constants = {name: _double(tensors[target]) for name, target in names.items()}
    lifted = signature.inputs_to_lifted_tensor_constants
    return {**constants, **{name: _double(program.constants[target]) for name, target in lifted.items()}}


def _export_value(value: Any, recorder: Recorder, constants: dict[str, Any]) -> Any:
    if isinstance(value, list | tuple):
        return [_export_value(item, recorder, constants) for item in value]
    if isinstance(value, torch.fx.Node):
        return _value(value.name, recorder, constants)
    return value


def _read_script(module: Any, input_shape: tuple[int, ...]) -> Program:
    # Freezing inlines the weights as constants; its numeric rewrites would round them.
    graph = torch.jit.freeze(module.eval(), optimize_numerics=False).inlined_graph
    inputs = list(graph.inputs())
    if len(inputs) != 2:
        raise UsageError(f"it has {len(inputs) - 1} inputs: a classifier has one")
    recorder, constants = Recorder(inputs[1].debugName(), input_shape), {}
    for node in graph.nodes():
        outputs = [value.debugName() for value in node.outputs()]
        names = [value.debugName() for value in node.inputs()]
        if node.kind() == "prim::Constant":
            constants[outputs[0]] = _double(node.output().toIValue())
        elif node.kind() == "prim::ListConstruct":
            constants[outputs[0]] = [_value(name, recorder, constants) for name in names]
        elif node.kind() in ("prim::NumToTensor", "aten::Int"):
            constants[outputs[0]] = _value(names[0], recorder, constants)
        elif not node.kind().startswith("aten::"):
            raise UsageError(
                f"operator {node.kind()} is not supported: trace the network with torch.jit.trace"
            )
        else:
            values = [_value(name, recorder, constants) for name in names]
            schema = torch._C.parse_schema(node.schema())
            _read_call(node.kind(), _named(schema.arguments, values, {}), outputs[0], recorder, constants)
    results = [value.debugName() for value in graph.outputs()]
    return Program(recorder.steps, inputs[1].debugName(), _only(results, recorder))


def _named(arguments: Any, given: list[Any], keywords: dict[str, Any]) -> dict[str | int, Any]:
    """Arguments by name, defaults filled in."""
    named = {argument.name: argument.default_value for argument in arguments}
    named.update(zip(named, given, strict=False))
    return {**named, **keywords}


def _value(name: str, recorder: Recorder, constants: dict[str, Any]) -> Any:
    return recorder.data(name) if name in recorder.examples else constants[name]


def _read_call(
    schema: str, values: dict[str | int, Any], output: str, recorder: Recorder, constants: dict[str, Any]
) -> None:
    """Append the layer of one operator; sizes, and what depends on constants only, become constants."""
    name = schema.removeprefix("aten::").rstrip("_")
    call = Call(name, values)
    if name in ("size", "sym_size"):
        sizes = call.get("self").full
        constants[output] = sizes if call.get("dim") is None else sizes[call.get("dim")]
    elif not call.data() and name in ("t", "transpose", "permute"):
        constants[output] = getattr(torch, name)(**values)
    elif not call.data() or name not in OPERATORS:
        raise UsageError(
            f"operator {name} is not supported{nearest(name, OPERATORS)}: supported are {', '.join(OPERATORS)}; {TRACE}"
        )
    else:
        recorder.add(call, OPERATORS[name](call), output)


def _only(results: Iterator[str] | list[str] | tuple[str, ...], recorder: Recorder) -> str:
    results = list(results)
    if len(results) != 1 or results[0] not in recorder.examples:
        raise UsageError(f"it returns {len(results)} values: return the scores or the two logits alone")
    return results[0]


def _double(value: Any) -> Any:
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.detach().double() if floating else value


def _compare(module: Any, program: Program, shape: tuple[int, ...]) -> None:
    """Run a batch through torch's own reading of the file too; raise UsageError if the results differ."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    try:
        with torch.no_grad():
            expected = module(x)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise UsageError(f"it cannot be run on inputs of shape {shape[1:]} ({reason})") from error
    if not torch.allclose(program(x.double()).float(), expected.float(), rtol=TOLERANCE, atol=TOLERANCE):
        raise UsageError("it was not understood: torch computes other values")
