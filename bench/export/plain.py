"""Networks as ONNX in the plainest form: Flatten, MatMul, Add and Relu, with normalisation inside the first weights.

Verifiers read far fewer operators than ONNX has. Marabou 2.0, for one, takes no Sub or Div that broadcasts, nor the
shapes that exporters compute.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from baselines.layered import LayeredNetwork, UnreadableNetwork, read
from baselines.layered.network import dense

# The versions of the standard that verifiers can be expected to know.
OPSET, IR_VERSION = 13, 8
LARGEST_MATRIX = 1 << 24


class NotPlain(ValueError):
    """A network that is not made of affine layers and ReLUs, or whose matrices would be too large."""


def write_plain(model: nn.Module, input_shape: tuple[int, ...], path: Path) -> None:
    """Write a score network (N, *input_shape) -> (N,) in float32, for one input at a time; raise NotPlain.

    Input X (1, *input_shape), output Y (1, 1).
    """
    from onnx import TensorProto, helper, numpy_helper, save

    network = _read(model, input_shape)
    nodes = [helper.make_node("Flatten", ["X"], ["h0"], axis=1)]
    weights = []

    def constant(name: str, value: torch.Tensor) -> str:
        weights.append(numpy_helper.from_array(value.numpy().astype(np.float32), name))
        return name

    for place, layer in enumerate(network.layers, start=1):
        total = ""
        for source, matrix in layer.maps.items():
            product, name = f"z{place}_{source}", f"W{place}_{source}"
            nodes.append(
                helper.make_node("MatMul", [f"h{source}", constant(name, dense(matrix).T)], [product])
            )
            if total:
                nodes.append(helper.make_node("Add", [total, product], [f"s{place}_{source}"]))
            total = f"s{place}_{source}" if total else product
        last = place == len(network.layers)
        bias = constant(f"b{place}", layer.bias)
        nodes.append(helper.make_node("Add", [total, bias], ["Y" if last else f"z{place}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"z{place}"], [f"h{place}"]))
    x = helper.make_tensor_value_info("X", TensorProto.FLOAT, (1, *input_shape))
    y = helper.make_tensor_value_info("Y", TensorProto.FLOAT, (1, 1))
    graph = helper.make_graph(nodes, "score", [x], [y], weights)
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION), path
    )


def _read(model: nn.Module, input_shape: tuple[int, ...]) -> LayeredNetwork:
    try:
        network = read(model, input_shape)
    except UnreadableNetwork as error:
        raise NotPlain(str(error)) from error
    for layer in network.layers:
        if not layer.maps or not (layer.is_relu or layer.activation is None):
            raise NotPlain(f"{layer.name} is no ReLU")
        if any(matrix.shape[0] * matrix.shape[1] > LARGEST_MATRIX for matrix in layer.maps.values()):
            raise NotPlain(f"{layer.name} is too large for a matrix")
    return network
