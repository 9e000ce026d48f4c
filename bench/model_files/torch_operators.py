"""The torch operators (namespace aten) that can be read from TorchScript and torch.export files, as torch layers."""

import math
from collections.abc import Callable

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


def _linear(call: Call) -> nn.Module:
    weight = _constant(call, "weight")
    return linear(weight, call.get("bias"))


def _product(call: Call) -> nn.Module:
    weight = _constant(call, "mat2" if "mat2" in call.arguments else "other")
    if weight.dim() != 2 or call.get("alpha", 1) != 1 or call.get("beta", 1) != 1:
        raise call.refuse("only input x constant matrix is")
    bias = call.get("self") if "mat1" in call.arguments else None
    return linear(weight.T, bias)


def _convolution(call: Call) -> nn.Module:
    weight = _constant(call, "weight")
    if weight.dim() != 4 or call.get("transposed", False):
        raise call.refuse("only two-dimensional convolutions are")
    if isinstance(call.get("padding"), str):
        raise call.refuse("its padding is a word")
    return convolution(
        weight,
        call.get("bias"),
        call.get("stride", 1),
        call.get("padding", 0),
        call.get("dilation", 1),
        call.get("groups", 1),
    )


def _batch_norm(call: Call) -> nn.Module:
    if call.get("training", False) or call.get("running_mean") is None:
        raise call.refuse("it is in training mode")
    names = ("weight", "bias", "running_mean", "running_var")
    return batch_norm(*(call.get(name) for name in names), call.get("eps"), len(call.get("input").shape))


def _average_pool(call: Call) -> nn.Module:
    if call.get("divisor_override") is not None:
        raise call.refuse("its divisor is overridden")
    padding = call.get("padding", 0)
    counted = call.get("count_include_pad", True) or not any(
        [padding] if isinstance(padding, int) else padding
    )
    kernel = call.get("kernel_size")
    stride = call.get("stride") or kernel
    return nn.AvgPool2d(kernel, stride, padding, call.get("ceil_mode", False), counted)


def _max_pool(call: Call) -> nn.Module:
    kernel = call.get("kernel_size")
    stride = call.get("stride") or kernel
    return nn.MaxPool2d(
        kernel,
        stride,
        call.get("padding", 0),
        call.get("dilation", 1),
        ceil_mode=call.get("ceil_mode", False),
    )


def _mean(call: Call) -> nn.Module:
    rank = len(call.get("self").shape) + 1
    if rank != 4 or sorted(axis % rank for axis in call.get("dim", [])) != [2, 3]:
        raise call.refuse("only the mean over an image's height and width is")
    pool = nn.AdaptiveAvgPool2d(1)
    return pool if call.get("keepdim", False) else nn.Sequential(pool, nn.Flatten(1))


def _reshape(call: Call) -> nn.Module:
    return reshape(call.get("size", call.get("shape")), call.get("self"), call)


def _flatten(call: Call) -> nn.Module:
    shape = call.get("self").full
    start, end = (call.get(name) % len(shape) for name in ("start_dim", "end_dim"))
    return reshape(
        (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]), call.get("self"), call
    )


def _squeeze(call: Call) -> nn.Module:
    shape = call.get("self").full
    axis = call.get("dim")
    axes = range(1, len(shape)) if axis is None else [axis] if isinstance(axis, int) else axis
    dropped = {place % len(shape) for place in axes if shape[place] == 1}
    return reshape([size for place, size in enumerate(shape) if place not in dropped], call.get("self"), call)


def _unsqueeze(call: Call) -> nn.Module:
    shape = list(call.get("self").full)
    shape.insert(call.get("dim") % (len(shape) + 1), 1)
    return reshape(shape, call.get("self"), call)


def _permute(call: Call) -> nn.Module:
    order = call.get("dims")
    if order[0] != 0:
        raise call.refuse("it does not keep the inputs of a batch apart")
    return Permute(tuple(order))


def _dropout(call: Call) -> nn.Module:
    if call.get("train", False):
        raise call.refuse("it is in training mode: call model.eval() before saving")
    return nn.Identity()


def _to(call: Call) -> nn.Module:
    if call.get("dtype") not in (None, torch.float32, torch.float64, 6, 7):
        raise call.refuse("only casts to float32 and float64 are")
    return nn.Identity()


def _concat(call: Call) -> nn.Module:
    if not all(isinstance(value, Data) for value in call.get("tensors")):
        raise call.refuse("only values that depend on the input can be joined")
    return Concat(call.get("dim", 0))


def _both(kind: str) -> Callable[[Call], nn.Module]:
    def build(call: Call) -> nn.Module:
        if call.get("alpha", 1) != 1 or call.get("rounding_mode") is not None:
            raise call.refuse("only plain sums, differences, products and quotients are")
        return arithmetic(kind, call.get("self"), call.get("other"), call)

    return build


def _constant(call: Call, name: str) -> Tensor:
    value = call.get(name)
    if not isinstance(value, Tensor):
        raise call.refuse("its weights depend on the input")
    return value


def _same(call: Call) -> nn.Module:
    return nn.Identity()


OPERATORS: dict[str, Callable[[Call], nn.Module]] = {
    "_convolution": _convolution,
    "adaptive_avg_pool2d": lambda call: nn.AdaptiveAvgPool2d(call.get("output_size")),
    "add": _both("add"),
    "addmm": _product,
    "avg_pool2d": _average_pool,
    "batch_norm": _batch_norm,
    "cat": _concat,
    "clone": _same,
    "contiguous": _same,
    "conv2d": _convolution,
    "convolution": _convolution,
    "detach": _same,
    "div": _both("div"),
    "dropout": _dropout,
    "flatten": _flatten,
    "leaky_relu": lambda call: nn.LeakyReLU(call.get("negative_slope", 0.01)),
    "linear": _linear,
    "log_softmax": lambda call: nn.LogSoftmax(call.get("dim")),
    "matmul": _product,
    "max_pool2d": _max_pool,
    "mean": _mean,
    "mm": _product,
    "mul": _both("mul"),
    "neg": lambda call: Affine(scale=torch.tensor(-1.0, dtype=torch.float64)),
    "permute": _permute,
    "relu": lambda call: nn.ReLU(),
    "reshape": _reshape,
    "sigmoid": lambda call: nn.Sigmoid(),
    "softmax": lambda call: nn.Softmax(call.get("dim")),
    "squeeze": _squeeze,
    "sub": _both("sub"),
    "tanh": lambda call: nn.Tanh(),
    "to": _to,
    "unsqueeze": _unsqueeze,
    "view": _reshape,
}
