"""The ONNX operators that can be read, each as a torch layer. Source: the operator pages of the ONNX standard."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.basics.errors import UsageError
from bench.model_files import windows
from bench.model_files.layers import (
    Affine,
    Clip,
    Concat,
    Exp,
    Expand,
    Largest,
    LargestOf,
    Leaky,
    Log,
    Pad,
    Permute,
    Product,
    Reduce,
    Reshape,
    Resize,
    Sum,
    Take,
    batch_norm,
    entries,
    linear,
)
from bench.model_files.program import Call, Data

# FLOAT and DOUBLE of TensorProto.DataType; a half-precision cast would round the values it passes on.
FLOAT_TYPES = (1, 11)


def layers_of(call: Call) -> list[nn.Module]:
    """The layer of each value that a node gives; raises UnreadError for a node that is not understood."""
    found = OPERATORS[call.operator](call)
    return found if isinstance(found, list) else [found]


def _gemm(call: Call) -> nn.Module:
    weight, bias, options = call.get(1), call.get(2), call.options
    if not isinstance(weight, Tensor) or options.get("transA") or isinstance(bias, Data):
        raise call.refuse("only input x constant + constant is")
    weight = weight if options.get("transB") else weight.T
    bias = None if bias is None else (options.get("beta", 1.0) * bias).expand(1, len(weight))
    return linear(options.get("alpha", 1.0) * weight, bias)


def _matmul(call: Call) -> nn.Module:
    """Input x constant or constant x input, of one or more axes."""
    left, right = call.get(0), call.get(1)
    if isinstance(left, Data) and isinstance(right, Data):
        raise call.refuse("it multiplies two values that both depend on the input")
    value = left if isinstance(left, Data) else right
    if isinstance(left, Data) and right.dim() == 2 and len(value.shape) == 1:
        return linear(right.T, None)
    constant = (right if isinstance(left, Data) else left).double()
    while constant.dim() > 2 and constant.shape[0] == 1:
        constant = constant[0]
    if constant.dim() != 2:
        raise call.refuse("its constant is not a matrix")
    if value.batch is not None and len(value.shape) < (1 if isinstance(left, Data) else 2):
        raise call.refuse("it does not keep the inputs of a batch apart")
    return Product(constant, on_the_left=not isinstance(left, Data))


def _batch_norm(call: Call) -> nn.Module:
    if call.options.get("training_mode") or call.outputs > 1:
        raise UsageError(
            f"operator {call.operator} normalises with the statistics of each batch: export the network in evaluation "
            "mode, with running statistics"
        )
    scale, shift, mean, variance = (call.get(place) for place in range(1, 5))
    if any(isinstance(value, Data) for value in (scale, shift, mean, variance)):
        raise call.refuse("its statistics depend on the input")
    rank, eps = len(call.get(0).shape), call.options.get("epsilon", 1e-5)
    if rank in (1, 3):
        return batch_norm(scale, shift, mean, variance, eps, rank)
    factor = (scale / (variance + eps).sqrt()).reshape(-1, *[1] * (rank - 1))
    return Affine(factor, (shift - mean * factor.flatten()).reshape(factor.shape))


def _reduce(call: Call) -> nn.Module:
    """ReduceMean and ReduceSum over axes of one example."""
    shape, axes = call.get(0).shape, call.numbers(1, "axes")
    if axes is None or not axes:
        if call.options.get("noop_with_empty_axes"):
            return nn.Identity()
        if call.get(0).batch is not None:
            raise call.refuse("it does not keep the inputs of a batch apart")
        axes = range(len(shape))
    axes = sorted(call.axis(axis) + 1 for axis in axes)
    keep, mean = bool(call.options.get("keepdims", 1)), call.operator == "ReduceMean"
    if mean and axes == [2, 3] and len(shape) == 3:
        pool = nn.AdaptiveAvgPool2d(1)
        return pool if keep else nn.Sequential(pool, nn.Flatten(1))
    return Reduce(axes, keep, mean)


def _reduce_extreme(call: Call) -> nn.Module:
    """ReduceMax and ReduceMin over axes of one example."""
    shape, axes = call.get(0).shape, call.numbers(1, "axes")
    if not axes:
        raise call.refuse("it does not keep the inputs of a batch apart")
    axes = sorted(call.axis(axis) for axis in axes)
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    after = [1 if axis in axes else size for axis, size in enumerate(shape)]
    after = after if call.options.get("keepdims", 1) else [shape[axis] for axis in kept]
    moved = entries(shape)[0].long().permute(*axes, *kept)
    return LargestOf(moved.reshape(-1, *after), call.operator == "ReduceMin")


def _reshape(call: Call) -> nn.Module:
    before, wanted = call.get(0), call.numbers(1, "shape")
    if not call.options.get("allowzero"):
        wanted = [before.full[place] if size == 0 else size for place, size in enumerate(wanted)]
    return _to_shape(wanted, before, call)


def _flatten(call: Call) -> nn.Module:
    before, axis = call.get(0), call.options.get("axis", 1)
    full = before.full
    axis = axis % len(full) if axis < 0 else axis
    rows = int(torch.Size(full[:axis]).numel())
    return _to_shape([rows, -1], before, call)


def _squeeze(call: Call) -> nn.Module:
    before = call.get(0)
    axes = call.numbers(1, "axes")
    if axes is None:
        axes = [axis for axis, size in enumerate(before.full) if size == 1 and (axis or before.batch is None)]
    dropped = {call.axis(axis) for axis in axes}
    return _shaped([size for axis, size in enumerate(before.shape) if axis not in dropped])


def _unsqueeze(call: Call) -> nn.Module:
    shape, axes = list(call.get(0).shape), call.numbers(1, "axes")
    for axis in sorted(call.axis(axis, extra=len(axes)) for axis in axes):
        shape.insert(axis, 1)
    return _shaped(shape)


def _to_shape(wanted: Sequence[int], before: Data, call: Call) -> nn.Module:
    try:
        after = torch.empty(before.full).reshape(tuple(wanted)).shape
    except RuntimeError as error:
        raise call.refuse(f"shape {before.full} cannot become {tuple(wanted)}") from error
    if before.batch is None:
        return _shaped(after)
    if not after or after[0] != before.batch:
        raise call.refuse("it does not keep the inputs of a batch apart")
    return _shaped(after[1:])


def _shaped(shape: Sequence[int]) -> nn.Module:
    return nn.Flatten(1) if len(shape) == 1 else Reshape(tuple(shape))


def _transpose(call: Call) -> nn.Module:
    value = call.get(0)
    order = call.options.get("perm", list(range(len(value.full)))[::-1])
    if value.batch is not None and order[0] != 0:
        raise call.refuse("it does not keep the inputs of a batch apart")
    order = (0, *(axis + 1 for axis in order)) if value.batch is None else tuple(order)
    moving = [size for size in (value.shape[axis - 1] for axis in order[1:]) if size > 1]
    if moving == [size for size in value.shape if size > 1]:
        return _shaped([value.shape[axis - 1] for axis in order[1:]])
    return Permute(order)


def _expand(call: Call) -> nn.Module:
    before, wanted = call.get(0), call.numbers(1, "shape")
    lead = 0 if before.batch is None else 1
    after = torch.broadcast_shapes(before.full, tuple(wanted))
    if lead and (len(after) != len(before.full) or after[0] != before.batch):
        raise call.refuse("it does not keep the inputs of a batch apart")
    return Expand(tuple(after[lead:]))


def _cast(call: Call) -> nn.Module:
    if call.options["to"] not in FLOAT_TYPES:
        raise call.refuse("only casts to float and double are")
    return nn.Identity()


def _scaler(call: Call) -> nn.Module:
    scale, offset = (torch.tensor(call.options[name], dtype=torch.float64) for name in ("scale", "offset"))
    return nn.Sequential(Affine(shift=-offset), Affine(scale=scale))


def _concat(call: Call) -> nn.Module:
    """Values side by side, constants among them."""
    parts = list(call.arguments.values())
    values = call.data()
    axis = call.axis(call.options["axis"], values[0])
    constants = [None if isinstance(part, Data) else _one_example(part, values[0], call) for part in parts]
    return Concat(constants, axis + 1)


def _one_example(constant: Tensor, beside: Data, call: Call) -> Tensor:
    if beside.batch is None:
        return constant.double()
    if constant.shape[0] != 1 and not bool((constant == constant[:1]).all()):
        raise call.refuse("it joins other constants to each input of a batch")
    return constant[0].double()


def _split(call: Call) -> list[nn.Module]:
    value = call.get(0)
    axis = call.axis(call.options.get("axis", 0))
    sizes = call.numbers(1, "split")
    if sizes is None:
        each = -(-value.shape[axis] // call.outputs)
        sizes = [min(each, value.shape[axis] - each * place) for place in range(call.outputs)]
    parts = torch.arange(value.shape[axis]).split(sizes)
    return [Take(axis + 1, part) for part in parts]


def _slice(call: Call) -> nn.Module:
    value = call.get(0)
    starts, ends = call.numbers(1, "starts"), call.numbers(2, "ends")
    axes = call.numbers(3, "axes") or list(range(len(starts)))
    steps = call.numbers(4, "steps") or [1] * len(starts)
    layers: list[nn.Module] = []
    for start, end, place, step in zip(starts, ends, axes, steps, strict=True):
        if value.batch is not None and place % len(value.full) == 0:
            if start in (0, -value.batch) and step == 1 and end >= value.batch:
                continue
            raise call.refuse("it does not keep the inputs of a batch apart")
        axis = call.axis(place)
        size = value.shape[axis]
        if step < 0:
            numbers = list(range(size))[slice(start, None if end < -size else end, step)]
        else:
            numbers = list(range(size))[start:end:step]
        layers.append(Take(axis + 1, torch.tensor(numbers, dtype=torch.long)))
    return nn.Sequential(*layers) if layers else nn.Identity()


def _gather(call: Call) -> nn.Module:
    value, numbers = call.get(0), call.get(1)
    if not isinstance(value, Data) or not isinstance(numbers, Tensor):
        raise call.refuse("its indices depend on the input")
    axis = call.axis(call.options.get("axis", 0), value)
    size = value.shape[axis]
    numbers = torch.where(numbers < 0, numbers + size, numbers).long()
    shape = (*value.shape[:axis], *numbers.shape, *value.shape[axis + 1 :])
    taken = Take(axis + 1, numbers.flatten())
    return taken if numbers.dim() == 1 else nn.Sequential(taken, _shaped(shape))


def _pad(call: Call) -> nn.Module:
    value, pads = call.get(0), call.numbers(1, "pads")
    mode, fill = call.options.get("mode", b"constant"), call.get(2, call.options.get("value", 0.0))
    axes = call.numbers(3, "axes") or list(range(len(value.full)))
    if isinstance(fill, Data) or mode not in (b"constant", b"edge", b"reflect"):
        raise call.refuse(f"its mode {mode.decode()!r} is not")
    each = [[0, 0] for _ in value.shape]
    for place, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        if before or after:
            each[call.axis(place)] = [before, after]
    widths = [number for pair in reversed(each) for number in pair]
    if mode == b"constant":
        return Pad(widths, value=float(fill))
    while len(widths) > 2 and widths[-2:] == [0, 0]:
        widths = widths[:-2]
    return Pad(widths, "replicate" if mode == b"edge" else "reflect")


def _resize(call: Call) -> nn.Module:
    """Resize and Upsample by whole numbers, nearest or bilinear."""
    value, options = call.get(0), call.options
    mode = options.get("mode", b"nearest").decode()
    last = 1 if call.operator == "Upsample" else 2
    factors = call.get(last, options.get("scales"))
    sizes = call.get(3)
    if isinstance(sizes, Tensor) and sizes.numel():
        after = [int(size) for size in sizes]
    elif factors is not None and len(factors):
        after = [int(size * float(factor)) for size, factor in zip(value.full, factors, strict=True)]
    else:
        raise call.refuse("its new size depends on the input")
    if len(after) != 4 or value.batch is None or after[:2] != list(value.full[:2]):
        raise call.refuse("only the height and width of images can change")
    size = after[2:]
    if mode == "nearest":
        if any(new % old for new, old in zip(size, value.shape[1:], strict=True)):
            raise call.refuse("only whole factors are")
        return Resize(size, "nearest")
    if mode != "linear":
        raise call.refuse(f"its mode {mode!r} is not")
    corners = options.get("coordinate_transformation_mode", b"half_pixel") == b"align_corners"
    return Resize(size, "bilinear", corners)


def _clip(call: Call) -> nn.Module:
    low, high = (call.get(place, call.options.get(name)) for place, name in ((1, "min"), (2, "max")))
    if isinstance(low, Data) or isinstance(high, Data):
        raise call.refuse("its limits depend on the input")
    limits = [None if value is None or abs(float(value)) > 1e37 else float(value) for value in (low, high)]
    if None not in limits and limits[0] > limits[1]:
        raise call.refuse("its limits are the wrong way round")
    return Clip(*limits)


def _slopes(call: Call) -> nn.Module:
    slope = call.get(1)
    if not isinstance(slope, Tensor):
        raise call.refuse("its slopes depend on the input")
    return Leaky(_constant(slope))


def _several(call: Call) -> nn.Module:
    """Max and Min of values, one of which may be a constant."""
    values = call.data()
    constants = [value for value in call.arguments.values() if isinstance(value, Tensor)]
    if len(values) == len(call.arguments) > 1:
        if len({value.shape for value in values}) > 1:
            raise call.refuse("its values differ in shape")
        return Largest(call.operator == "Min")
    if len(values) == 1 and len(constants) == 1 and constants[0].numel() == 1:
        limit = float(constants[0])
        return Clip(limit, None) if call.operator == "Max" else Clip(None, limit)
    raise call.refuse("only values of one shape, or a value and one number are")


def _last_axis(call: Call) -> int:
    shape = call.get(0).shape
    default = -1 if call.opset >= 13 else 1
    axis = call.axis(call.options.get("axis", default))
    if axis != len(shape) - 1:
        raise call.refuse("only the last axis is")
    return -1


def _constant(value: Any) -> Tensor:
    """A constant as one example sees it: an axis of the batch confuses bound propagation."""
    value = torch.as_tensor(value, dtype=torch.float64)
    while value.dim() and value.shape[0] == 1:
        value = value[0]
    return value


def _arithmetic(kind: str) -> Callable[[Call], nn.Module]:
    """add, sub, mul or div, where one side may be a constant."""

    def build(call: Call) -> nn.Module:
        left, right = call.get(0), call.get(1)
        if isinstance(left, Data) and isinstance(right, Data):
            if kind in ("add", "sub") and left.shape == right.shape:
                return Sum(minus=kind == "sub")
            raise call.refuse(
                "it multiplies or divides two values that both depend on the input, or adds different shapes"
            )
        constant = _constant(right if isinstance(left, Data) else left)
        if isinstance(left, Data):
            return {
                "add": lambda: Affine(shift=constant),
                "sub": lambda: Affine(shift=-constant),
                "mul": lambda: Affine(scale=constant),
                "div": lambda: Affine(scale=1 / constant),
            }[kind]()
        if kind == "div":
            raise call.refuse("it divides by a value that depends on the input")
        scale = torch.tensor(-1.0, dtype=torch.float64) if kind == "sub" else None
        return Affine(scale=constant) if kind == "mul" else Affine(scale, constant)

    return build


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


OPERATORS: dict[str, Callable[[Call], nn.Module | list[nn.Module]]] = {
    "Abs": lambda call: Leaky(torch.tensor(-1.0, dtype=torch.float64)),
    "Add": _arithmetic("add"),
    "AveragePool": windows.average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "Div": _arithmetic("div"),
    "Dropout": _dropout,
    "Elu": lambda call: nn.ELU(call.options.get("alpha", 1.0)),
    "Exp": lambda call: Exp(),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda call: nn.GELU(approximate=call.options.get("approximate", b"none").decode()),
    "Gemm": _gemm,
    "GlobalAveragePool": windows.global_pool,
    "GlobalMaxPool": windows.global_pool,
    "HardSigmoid": lambda call: nn.Sequential(
        Affine(torch.tensor(call.options.get("alpha", 0.2)), torch.tensor(call.options.get("beta", 0.5))),
        Clip(0.0, 1.0),
    ),
    "Identity": _same,
    "LeakyRelu": lambda call: Leaky(torch.tensor(call.options.get("alpha", 0.01), dtype=torch.float64)),
    "Log": lambda call: Log(),
    "LogSoftmax": lambda call: nn.LogSoftmax(_last_axis(call)),
    "MatMul": _matmul,
    "Max": _several,
    "MaxPool": windows.max_pool,
    "Min": _several,
    "Mul": _arithmetic("mul"),
    "Neg": lambda call: Affine(scale=torch.tensor(-1.0, dtype=torch.float64)),
    "PRelu": _slopes,
    "Pad": _pad,
    "ReduceMax": _reduce_extreme,
    "ReduceMean": _reduce,
    "ReduceMin": _reduce_extreme,
    "ReduceSum": _reduce,
    "Relu": lambda call: nn.ReLU(),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": lambda call: nn.Sigmoid(),
    "Slice": _slice,
    "Softmax": lambda call: nn.Softmax(_last_axis(call)),
    "Softplus": lambda call: nn.Softplus(threshold=1e9),
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _arithmetic("sub"),
    "Tanh": lambda call: nn.Tanh(),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": _resize,
    "ai.onnx.ml.Scaler": _scaler,
    "ai.onnx.ml.ZipMap": _same,
}
