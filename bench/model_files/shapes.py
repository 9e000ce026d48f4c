"""What the graph of an ONNX file says of the types and sizes of its values, before anything in it is computed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from bench.basics.errors import UsageError

# Numbers that a value may have: for one input, and for all inputs that a file takes at once. Inputs are checked 64 at a
# time.
MOST, MOST_AT_ONCE = 10_000_000, 100_000_000
# Constants of more numbers are no shapes, so that only their own shape matters.
MOST_OF_A_SHAPE = 1024
Known = Mapping[str, Tensor | tuple[int, ...]]


def with_types(model: Any) -> Any:
    """The model with the types of its outputs as the graph implies them, where the file does not say them.

    A value of which nothing is known is taken for numbers without axes: onnxruntime, which runs the network, has the
    last word.
    """
    import onnx

    if not all(_is_typed(value) for value in model.graph.output):
        model = onnx.shape_inference.infer_shapes(model)
    for value in [*model.graph.input, *model.graph.output]:
        if value.type.WhichOneof("value") in (None, "tensor_type"):
            tensor = value.type.tensor_type
            tensor.elem_type = tensor.elem_type or onnx.TensorProto.FLOAT
            tensor.shape.SetInParent()
    return model


def _is_typed(value: Any) -> bool:
    kind, tensor = value.type.WhichOneof("value"), value.type.tensor_type
    return kind is not None and (kind != "tensor_type" or bool(tensor.elem_type and tensor.HasField("shape")))


def check_sizes(nodes: Sequence[Any], known: Known, at_once: int, model: Any) -> None:
    """Raise UsageError for a value of too many numbers, naming its operator, from shapes alone.

    nodes: some of the model's, in order; known: constants, and the shapes of values that depend on the input; at_once:
    for how many inputs they are. A value no larger than the file's largest constant, such as its transpose, is allowed
    at any size.
    """
    constants = [value.numel() for value in known.values() if isinstance(value, Tensor)]
    allowed = max(MOST * min(at_once, MOST_AT_ONCE // MOST), *constants, 0)
    made_by = {output: node.op_type for node in nodes for output in node.output}
    for name, size in _sizes(nodes, known, model).items():
        if size > allowed:
            raise UsageError(
                f"operator {made_by[name]} makes {size:,} numbers of {at_once:,} input{'s' * (at_once > 1)}, more "
                f"than {allowed:,}: is this the network's input size?"
            )


def _sizes(nodes: Sequence[Any], known: Known, model: Any) -> dict[str, int]:
    """How many numbers each value has that nodes give, as far as ONNX's own rules of shapes tell."""
    from onnx import helper, shape_inference

    small = {
        name: value
        for name, value in known.items()
        if isinstance(value, Tensor) and value.numel() <= MOST_OF_A_SHAPE
    }
    graph = helper.make_graph(
        nodes,
        "sizes",
        [_described(name, value) for name, value in known.items() if name not in small],
        [helper.make_empty_tensor_value_info(output) for output in nodes[-1].output if output],
        [_constant(name, value) for name, value in small.items()],
    )
    alone = helper.make_model(graph, opset_imports=model.opset_import, functions=model.functions)
    inferred = shape_inference.infer_shapes(alone).graph
    return {
        value.name: math.prod(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
        for value in [*inferred.value_info, *inferred.output]
    }


def _array(value: Tensor) -> np.ndarray:
    """A constant as ONNX's rules take it: no operator wants a shape or a factor in float64."""
    return value.float().numpy() if value.is_floating_point() else value.numpy()


def _constant(name: str, value: Tensor) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(_array(value), name)


def _described(name: str, value: Tensor | tuple[int, ...]) -> Any:
    from onnx import TensorProto, helper

    if isinstance(value, Tensor):
        kind = helper.np_dtype_to_tensor_dtype(_array(value[:0] if value.dim() else value).dtype)
        return helper.make_tensor_value_info(name, kind, tuple(value.shape))
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, value)
