"""The ONNX operators that can be read, each as a torch layer. Source: the operator pages of the ONNX standard."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.model_files.program import (
    Affine,
    Call,
    Concat,
    Data,
    Permute,
    arithmetic,
    batch_norm,
    convolution,
    linear,
    reshape,
)

# FLOAT and DOUBLE of TensorProto.DataType; a half-precision cast would round the values it passes on.
FLOAT_TYPES = (1, 11)


def _gemm(call: Call) -> nn.Module:
    weight, bias, options = call.get(1), call.get(2), call.options
    if not isinstance(weight, Tensor) or options.get("transA") or isinstance(bias, Data):
        raise call.refuse("only input x constant + constant is")
    weight = weight if options.get("transB") else weight.T
    bias = None if bias is None else (options.get("beta", 1.0) * bias).expand(1, len(weight))
    return linear(options.get("alpha", 1.0) * weight, bias)


def _matmul(call: Call) -> nn.Module:
    weight = call.get(1)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise call.refuse("only input x constant matrix is")
    return linear(weight.T, None)


def _conv(call: Call) -> nn.Module:
    weight, bias = call.get(1), call.get(2)
    if not isinstance(weight, Tensor) or weight.dim() != 4:
        raise call.refuse("only two-dimensional convolutions with constant weights are")
    options = call.options
    return convolution(
        weight,
        bias,
        options.get("strides", 1),
        _padding(call),
        options.get("dilations", 1),
        options.get("group", 1),
    )


def _batch_norm(call: Call) -> nn.Module:
    scale, shift, mean, variance = (call.get(place) for place in range(1, 5))
    if call.options.get("training_mode"):
        raise call.refuse("it is in training mode")
    return batch_norm(scale, shift, mean, variance, call.options.get("epsilon", 1e-5), len(call.get(0).shape))


def _pool(call: Call) -> nn.Module:
    options = call.options
    kernel = options["kernel_shape"]
    stride, padding = options.get("strides", [1] * len(kernel)), _padding(call)
    if len(kernel) != 2:
        raise call.refuse("only two-dimensional pooling is")
    ceil = bool(options.get("ceil_mode", 0))
    if call.operator == "MaxPool":
        return nn.MaxPool2d(kernel, stride, padding, options.get("dilations", 1), ceil_mode=ceil)
    counted = bool(options.get("count_include_pad", 0)) or padding == [0, 0]
    return nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil, count_include_pad=counted)


def _mean(call: Call) -> nn.Module:
    axes = call.get(1, call.options.get("axes"))
    axes = sorted(int(axis) % 4 for axis in axes) if axes is not None else []
    if axes != [2, 3] or len(call.get(0).shape) != 3:
        raise call.refuse("only the mean over an image's height and width is")
    pool = nn.AdaptiveAvgPool2d(1)
    return pool if call.options.get("keepdims", 1) else nn.Sequential(pool, nn.Flatten(1))


def _reshape(call: Call) -> nn.Module:
    before, wanted = call.get(0), [int(size) for size in call.get(1)]
    if not call.options.get("allowzero"):
        wanted = [before.full[place] if size == 0 else size for place, size in enumerate(wanted)]
    return reshape(wanted, before, call)


def _flatten(call: Call) -> nn.Module:
    if call.options.get("axis", 1) != 1:
        raise call.refuse("only axis 1 is")
    return nn.Flatten(1)


def _squeeze(call: Call) -> nn.Module:
    before = call.get(0).full
    axes = call.get(1, call.options.get("axes"))
    if axes is None:
        axes = [axis for axis, size in enumerate(before) if size == 1 and axis > 0]
    dropped = {int(axis) % len(before) for axis in axes}
    if 0 in dropped:
        raise call.refuse("it does not keep the inputs of a batch apart")
    return reshape([size for axis, size in enumerate(before) if axis not in dropped], call.get(0), call)


def _unsqueeze(call: Call) -> nn.Module:
    shape = list(call.get(0).full)
    axes = call.get(1, call.options.get("axes"))
    rank = len(shape) + len(axes)
    for axis in sorted(int(axis) % rank for axis in axes):
        shape.insert(axis, 1)
    return reshape(shape, call.get(0), call)


def _transpose(call: Call) -> nn.Module:
    order = call.options.get("perm")
    if order is None or order[0] != 0:
        raise call.refuse("it does not keep the inputs of a batch apart")
    return Permute(tuple(order))


def _cast(call: Call) -> nn.Module:
    if call.options["to"] not in FLOAT_TYPES:
        raise call.refuse("only casts to float and double are")
    return nn.Identity()


def _scaler(call: Call) -> nn.Module:
    scale, offset = (torch.tensor(call.options[name], dtype=torch.float64) for name in ("scale", "offset"))
    return nn.Sequential(Affine(shift=-offset), Affine(scale=scale))


def _concat(call: Call) -> nn.Module:
    if not all(isinstance(value, Data) for value in call.arguments.values()) or call.options["axis"] == 0:
        raise call.refuse("only values that depend on the input can be joined, along an axis of theirs")
    return Concat(call.options["axis"])


def _last_axis(call: Call) -> int:
    axis = call.options.get("axis", -1)
    if axis not in (-1, len(call.get(0).shape)):
        raise call.refuse("only the last axis is")
    return -1


def _padding(call: Call) -> Any:
    pads = call.options.get("pads", [0, 0, 0, 0])
    half = len(pads) // 2
    if call.options.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or pads[:half] != pads[half:]:
        raise call.refuse("its padding differs from side to side")
    return list(pads[:half])


def _both(kind: str) -> Callable[[Call], nn.Module]:
    return lambda call: arithmetic(kind, call.get(0), call.get(1), call)


OPERATORS: dict[str, Callable[[Call], nn.Module]] = {
    "Add": _both("add"),
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _both("div"),
    "Dropout": lambda call: nn.Identity(),
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda call: nn.AdaptiveAvgPool2d(1),
    "Identity": lambda call: nn.Identity(),
    "LeakyRelu": lambda call: nn.LeakyReLU(call.options.get("alpha", 0.01)),
    "LogSoftmax": lambda call: nn.LogSoftmax(_last_axis(call)),
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mul": _both("mul"),
    "Neg": lambda call: Affine(scale=torch.tensor(-1.0, dtype=torch.float64)),
    "ReduceMean": _mean,
    "Relu": lambda call: nn.ReLU(),
    "Reshape": _reshape,
    "Sigmoid": lambda call: nn.Sigmoid(),
    "Softmax": lambda call: nn.Softmax(_last_axis(call)),
    "Squeeze": _squeeze,
    "Sub": _both("sub"),
    "Tanh": lambda call: nn.Tanh(),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "ai.onnx.ml.Scaler": _scaler,
    "ai.onnx.ml.ZipMap": lambda call: nn.Identity(),
}
