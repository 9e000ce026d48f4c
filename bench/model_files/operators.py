"""The ONNX operators that can be read, each as torch layers. Source: the operator pages of the ONNX standard."""

from collections.abc import Callable

import torch
from torch import nn

from bench.basics.errors import UsageError
from bench.model_files import arithmetic, moves, windows
from bench.model_files.layers import Affine, Choose, Clip, Exp, Leaky, Log, Pointwise
from bench.model_files.program import Call, Data

# FLOAT and DOUBLE of TensorProto.DataType; a half-precision cast would round the values it passes on.
FLOAT_TYPES = (1, 11)
# ONNX's own defaults, in single precision.
SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
NORMS_OF_THE_INPUT = "it divides by a size of the input itself: batch normalisation is read"
# Why some common operators are not read, and what is instead.
REFUSED = {
    "Attention": "it multiplies values that depend on the input",
    "GroupNormalization": NORMS_OF_THE_INPUT,
    "InstanceNormalization": NORMS_OF_THE_INPUT,
    "LayerNormalization": NORMS_OF_THE_INPUT,
    "LpNormalization": NORMS_OF_THE_INPUT,
    "ReduceL2": NORMS_OF_THE_INPUT,
}


def layers_of(call: Call) -> list[nn.Module]:
    """The layer of each value that a node gives; raises UnreadError for a node that is not understood."""
    found = OPERATORS[call.operator](call)
    return found if isinstance(found, list) else [found]


def _cast(call: Call) -> nn.Module:
    if call.options["to"] not in FLOAT_TYPES:
        raise call.refuse("only casts to float and double are")
    if call.get(0).is_condition:
        return Choose([torch.tensor(float(number), dtype=torch.float64) for number in (1, 0)])
    return nn.Identity()


def _last_axis(call: Call) -> int:
    shape = call.get(0).shape
    default = -1 if call.opset >= 13 else 1
    axis = call.axis(call.options.get("axis", default))
    if axis != len(shape) - 1:
        raise call.refuse("only the last axis is")
    return -1


def _dropout(call: Call) -> nn.Module:
    trains = call.get(2)
    if isinstance(trains, Data) or (trains is not None and bool(trains)):
        raise UsageError(
            "operator Dropout is in training mode: call model.eval() before exporting the network"
        )
    if call.outputs > 1:
        raise call.refuse("its mask is used")
    return nn.Identity()


def _same(call: Call) -> nn.Module:
    return nn.Identity()


def _selu(call: Call) -> nn.Module:
    gamma = torch.tensor(call.options.get("gamma", SELU_GAMMA), dtype=torch.float64)
    return nn.Sequential(nn.ELU(call.options.get("alpha", SELU_ALPHA)), Affine(scale=gamma))


OPERATORS: dict[str, Callable[[Call], nn.Module | list[nn.Module]]] = {
    "Abs": lambda call: Leaky(torch.tensor(-1.0, dtype=torch.float64)),
    "Add": arithmetic.arithmetic("add"),
    "Atan": lambda call: Pointwise("atan"),
    "AveragePool": windows.average_pool,
    "BatchNormalization": arithmetic.batch_norm,
    "Cast": _cast,
    "Celu": lambda call: nn.CELU(call.options.get("alpha", 1.0)),
    "Clip": arithmetic.clip,
    "Concat": moves.concat,
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "DepthToSpace": moves.blocks,
    "Div": arithmetic.arithmetic("div"),
    "Dropout": _dropout,
    "Einsum": arithmetic.einsum,
    "Elu": lambda call: nn.ELU(call.options.get("alpha", 1.0)),
    "Erf": lambda call: Pointwise("erf"),
    "Exp": lambda call: Exp(),
    "Expand": moves.expand,
    "Flatten": moves.flatten,
    "Gather": moves.gather,
    "Gelu": lambda call: nn.GELU(approximate=call.options.get("approximate", b"none").decode()),
    "Gemm": arithmetic.gemm,
    "GlobalAveragePool": windows.global_pool,
    "GlobalMaxPool": windows.global_pool,
    "Greater": arithmetic.compare,
    "GreaterOrEqual": arithmetic.compare,
    "HardSigmoid": lambda call: nn.Sequential(
        Affine(torch.tensor(call.options.get("alpha", 0.2)), torch.tensor(call.options.get("beta", 0.5))),
        Clip(0.0, 1.0),
    ),
    "HardSwish": lambda call: nn.Hardswish(),
    "Identity": _same,
    "LeakyRelu": lambda call: Leaky(torch.tensor(call.options.get("alpha", 0.01), dtype=torch.float64)),
    "Less": arithmetic.compare,
    "LessOrEqual": arithmetic.compare,
    "Log": lambda call: Log(),
    "LogSoftmax": lambda call: nn.LogSoftmax(_last_axis(call)),
    "MatMul": arithmetic.matmul,
    "Max": arithmetic.several,
    "MaxPool": windows.max_pool,
    "Min": arithmetic.several,
    "Mish": lambda call: nn.Mish(),
    "Mul": arithmetic.arithmetic("mul"),
    "Neg": lambda call: Affine(scale=torch.tensor(-1.0, dtype=torch.float64)),
    "PRelu": arithmetic.slopes,
    "Pad": moves.pad,
    "Pow": arithmetic.power,
    "ReduceMax": arithmetic.reduce_extreme,
    "ReduceMean": arithmetic.reduce,
    "ReduceMin": arithmetic.reduce_extreme,
    "ReduceSum": arithmetic.reduce,
    "Relu": lambda call: nn.ReLU(),
    "Reshape": moves.reshape,
    "Resize": moves.resize,
    "Selu": _selu,
    "Sigmoid": lambda call: nn.Sigmoid(),
    "Slice": moves.cut,
    "Softmax": lambda call: nn.Softmax(_last_axis(call)),
    "Softplus": lambda call: nn.Softplus(threshold=1e9),
    "SpaceToDepth": moves.blocks,
    "Split": moves.split,
    "Squeeze": moves.squeeze,
    "Sub": arithmetic.arithmetic("sub"),
    "Sum": arithmetic.total,
    "Tanh": lambda call: nn.Tanh(),
    "Tile": moves.tile,
    "Transpose": moves.transpose,
    "Unsqueeze": moves.unsqueeze,
    "Upsample": moves.resize,
    "Where": arithmetic.choose,
    "ai.onnx.ml.Scaler": arithmetic.scaler,
    "ai.onnx.ml.ZipMap": _same,
}
