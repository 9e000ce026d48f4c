"""The ONNX operators that compute: products with constants, sums, normalisation, limits, choices between values."""

from collections.abc import Callable
from string import ascii_letters
from typing import Any

import torch
from torch import Tensor, nn

from bench.basics.errors import UsageError
from bench.model_files.layers import (
    Affine,
    Choose,
    Clip,
    Compare,
    Einsum,
    Largest,
    LargestOf,
    Leaky,
    Power,
    Product,
    Quotient,
    Reduce,
    Sum,
    Times,
    entries,
    linear,
    normalisation,
)
from bench.model_files.program import Call, Data


def gemm(call: Call) -> nn.Module:
    weight, bias, options = call.get(1), call.get(2), call.options
    if not isinstance(weight, Tensor) or options.get("transA") or isinstance(bias, Data):
        raise call.refuse("only input x constant + constant is")
    weight = weight if options.get("transB") else weight.T
    bias = None if bias is None else (options.get("beta", 1.0) * bias).expand(1, len(weight))
    return linear(options.get("alpha", 1.0) * weight, bias)


def matmul(call: Call) -> nn.Module:
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


def einsum(call: Call) -> nn.Module:
    """Einsum of one value and constants."""
    values = call.data()
    if len(values) > 1:
        raise call.refuse("it multiplies two values that both depend on the input")
    equation = call.options["equation"].decode().replace(" ", "")
    if "." in equation:
        raise call.refuse("its equation has an ellipsis: name every axis")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        result = "".join(sorted(letter for letter in set(left) - {","} if left.count(letter) == 1))
    place = next(place for place, value in call.arguments.items() if isinstance(value, Data))
    if values[0].batch is None:
        free = next(letter for letter in ascii_letters if letter not in equation)
        terms[place], result = free + terms[place], free + result
    batch = terms[place][:1]
    if not batch or result[:1] != batch or ",".join(terms).count(batch) > 1:
        raise call.refuse("it does not keep the inputs of a batch apart")
    constants = [call.arguments[other].double() for other in sorted(call.arguments) if other != place]
    return Einsum(f"{','.join(terms)}->{result}", constants, place)


def batch_norm(call: Call) -> nn.Module:
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
        return normalisation(scale, shift, mean, variance, eps, rank)
    factor = (scale / (variance + eps).sqrt()).reshape(-1, *[1] * (rank - 1))
    return Affine(factor, (shift - mean * factor.flatten()).reshape(factor.shape))


def reduce(call: Call) -> nn.Module:
    """ReduceMean and ReduceSum over axes of one example."""
    shape, axes = call.get(0).shape, call.numbers(1, "axes")
    if axes is None or not axes:
        if call.options.get("noop_with_empty_axes"):
            return nn.Identity()
        if call.get(0).batch is not None:
            raise call.refuse("it does not keep the inputs of a batch apart")
        axes = list(range(len(shape)))
    axes = sorted(call.axis(axis) + 1 for axis in axes)
    keep, mean = bool(call.options.get("keepdims", 1)), call.operator == "ReduceMean"
    if mean and axes == [2, 3] and len(shape) == 3:
        pool = nn.AdaptiveAvgPool2d(1)
        return pool if keep else nn.Sequential(pool, nn.Flatten(1))
    return Reduce(axes, keep, mean)


def reduce_extreme(call: Call) -> nn.Module:
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


def scaler(call: Call) -> nn.Module:
    scale, offset = (torch.tensor(call.options[name], dtype=torch.float64) for name in ("scale", "offset"))
    return nn.Sequential(Affine(shift=-offset), Affine(scale=scale))


def clip(call: Call) -> nn.Module:
    low, high = (call.get(place, call.options.get(name)) for place, name in ((1, "min"), (2, "max")))
    if isinstance(low, Data) or isinstance(high, Data):
        raise call.refuse("its limits depend on the input")
    least, most = (
        None if value is None or abs(float(value)) > 1e37 else float(value) for value in (low, high)
    )
    if least is not None and most is not None and least > most:
        raise call.refuse("its limits are the wrong way round")
    return Clip(least, most)


def slopes(call: Call) -> nn.Module:
    slope = call.get(1)
    if not isinstance(slope, Tensor):
        raise call.refuse("its slopes depend on the input")
    return Leaky(_constant(slope))


def several(call: Call) -> nn.Module:
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


def _constant(value: Any) -> Tensor:
    """A constant as one example sees it: an axis of the batch confuses bound propagation."""
    value = torch.as_tensor(value, dtype=torch.float64)
    while value.dim() and value.shape[0] == 1:
        value = value[0]
    return value


def arithmetic(kind: str) -> Callable[[Call], nn.Module]:
    """add, sub, mul or div, where one side may be a constant."""

    def build(call: Call) -> nn.Module:
        left, right = call.get(0), call.get(1)
        if isinstance(left, Data) and isinstance(right, Data):
            if len(left.shape) != len(right.shape):
                raise call.refuse("its two values differ in their number of axes")
            makers: dict[str, Callable[[], nn.Module]] = {
                "add": Sum,
                "sub": lambda: Sum(minus=True),
                "mul": Times,
                "div": Quotient,
            }
            return makers[kind]()
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


def total(call: Call) -> nn.Module:
    """Sum of values of one shape."""
    if len({value.shape for value in call.data()}) > 1 or len(call.data()) < len(call.arguments):
        raise call.refuse("only values of one shape are")
    return Sum()


def power(call: Call) -> nn.Module:
    """Pow with a whole exponent."""
    exponent = call.get(1)
    if not isinstance(exponent, Tensor) or exponent.numel() != 1 or float(exponent) not in (1.0, 2.0, 3.0):
        raise call.refuse("only squares and cubes are")
    return Power(int(exponent))


def compare(call: Call) -> nn.Module:
    """Greater and Less than a constant, or equal to it."""
    left, right = call.get(0), call.get(1)
    if isinstance(left, Data) and isinstance(right, Data):
        raise call.refuse("it compares two values that both depend on the input")
    kind = {"Greater": "gt", "GreaterOrEqual": "ge", "Less": "lt", "LessOrEqual": "le"}[call.operator]
    if isinstance(right, Data):
        kind = {"gt": "lt", "ge": "le", "lt": "gt", "le": "ge"}[kind]
    return Compare(kind, _constant(right if isinstance(left, Data) else left))


def choose(call: Call) -> nn.Module:
    """Where: one of two values, or a constant in the place of one, by a condition that depends on the input."""
    parts = [call.get(place) for place in range(3)]
    if not isinstance(parts[0], Data):
        raise call.refuse("its condition is a constant")
    return Choose([None if isinstance(part, Data) else _constant(part) for part in parts[1:]])
