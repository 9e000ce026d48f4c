"""The rules of ``convexity``: how each operation bends, and what its terms add up to."""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fcnn.convexity_bounds import AFFINE, CONVEX, Bound, Interpreter
from fcnn.tape import tensors_in

ATEN = torch.ops.aten


def _moved(trace: Interpreter, x: Tensor, *rest: Any, **options: Any) -> Bound | list[Bound]:
    """Values are moved, copied or left out, none is changed."""
    bound, function = trace.bound(x), trace.call.function
    batch = torch.arange(trace.count, device=x.device)
    marks = batch.reshape(-1, *[1] * (x.dim() - 1)).expand(x.shape).contiguous()
    for part in tensors_in(function(marks, *rest, **options)):
        apart = part.shape[:1] == batch.shape
        if not apart or bool((part != batch.reshape(-1, *[1] * (part.dim() - 1))).any()):
            raise trace.mixed()
    moved = function(bound.size, *rest, **options)
    if isinstance(moved, Tensor):
        return Bound(bound.curvature, moved)
    return [Bound(bound.curvature, part) for part in moved]


def _addmm(trace: Interpreter, bias: Tensor, x: Tensor, weight: Tensor, **factors: Any) -> Bound:
    if factors:
        raise trace.refusal("a product with factors has no rule", "multiply the weights")
    product = _mm(trace, x, weight)
    trace.rounds(1)
    return Bound(product.curvature, trace.constant(bias).abs() + product.size)


def _mm(trace: Interpreter, x: Tensor, weight: Tensor) -> Bound:
    bound, weight = trace.bound(x), trace.constant(weight)
    trace.rounds(sum(weight.shape))
    return Bound(trace.times(bound.curvature, weight), torch.matmul(bound.size, weight.abs()))


def _convolution(trace: Interpreter, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Bound:
    bound, weight = trace.bound(x), trace.constant(weight)
    if rest[3]:
        raise trace.refusal("a transposed convolution has no rule", "use a convolution")
    trace.rounds(weight[0].numel() + weight[:, 0].numel())
    offset = None if bias is None else trace.constant(bias).abs()
    size = trace.call.function(bound.size, weight.abs(), offset, *rest)
    return Bound(trace.times(bound.curvature, weight), size)


def _batch_norm(
    trace: Interpreter,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Bound:
    if training:
        raise trace.refusal("batch normalisation by the batch's own statistics", "use evaluation mode")
    bound = trace.bound(x)
    mean, variance = trace.constant(mean), trace.constant(variance)
    scale = (variance + eps).rsqrt() * (1.0 if weight is None else trace.constant(weight))
    offset = (mean * scale).abs() + (0.0 if bias is None else trace.constant(bias).abs())
    trace.rounds(8)
    shape = [1, -1] + [1] * (x.dim() - 2)
    size = bound.size * scale.abs().reshape(shape) + offset.reshape(shape)
    return Bound(trace.times(bound.curvature, scale), size)


def _batch_norm_legit(
    trace: Interpreter,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    eps: float,
) -> Bound:
    return _batch_norm(trace, x, weight, bias, mean, variance, False, momentum, eps)


def _relu(trace: Interpreter, x: Tensor) -> Bound:
    bound = trace.bound(x)
    active = (trace.call.result > 0).to(bound.size.dtype) if trace.own_pattern else 1.0
    return Bound(trace.at_most_convex(bound.curvature), bound.size * active)


def _leaky_relu(trace: Interpreter, x: Tensor, slope: float = 0.01) -> Bound:
    bound = trace.bound(x)
    if not 0 <= slope <= 1:
        raise trace.refusal(
            f"a leaky ReLU with slope {slope} is not convex or not monotone", "use one in [0, 1]"
        )
    trace.rounds(1)
    return Bound(trace.at_most_convex(bound.curvature), bound.size)


def _clamp(trace: Interpreter, x: Tensor, low: Any = None, high: Any = None, **options: Any) -> Bound:
    low, high = options.get("min", low), options.get("max", high)
    bound = trace.bound(x)
    if high is not None or low is None:
        raise trace.refusal("a score that is capped from above is not convex", "clamp from below only")
    return Bound(trace.at_most_convex(bound.curvature), bound.size + trace.constant(low).abs())


def _abs(trace: Interpreter, x: Tensor) -> Bound:
    bound = trace.bound(x)
    if bound.curvature != AFFINE:
        raise trace.refusal(
            "the absolute value of hidden units is not convex", "take it of affine functions only"
        )
    return Bound(CONVEX, bound.size)


def _maximum(trace: Interpreter, x: Any, y: Any) -> Bound:
    first, second = trace.bound_or_size(x), trace.bound_or_size(y)
    trace.rounds(trace.spread(x) + trace.spread(y))
    return Bound(trace.at_most_convex(first.curvature, second.curvature), first.size + second.size)


def _amax(trace: Interpreter, x: Tensor, dims: Any = (), keep: bool = False) -> Bound:
    if isinstance(dims, Tensor):
        return _maximum(trace, x, dims)
    dims = [dims] if isinstance(dims, int) else list(dims)
    bound = trace.bound(x)
    trace.within_inputs(x, *(dims or [0]))
    trace.rounds(prod(x.shape[dim] for dim in dims))
    return Bound(trace.at_most_convex(bound.curvature), bound.size.sum(dims, keepdim=keep))


def _max_pool(
    trace: Interpreter,
    x: Tensor,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> Bound:
    bound = trace.bound(x)
    if {*([dilation] if isinstance(dilation, int) else dilation)} != {1}:
        raise trace.refusal("a dilated maximum pool has no rule", "use dilation 1")
    # The sum over a window is no less than its maximum, whichever unit that is.
    size = functional.avg_pool2d(
        bound.size, kernel, stride or kernel, padding, ceil_mode=ceil, divisor_override=1
    )
    trace.rounds(_window(kernel))
    return Bound(trace.at_most_convex(bound.curvature), size)


def _adaptive_max_pool(trace: Interpreter, x: Tensor, grid: Any) -> Bound:
    bound = trace.bound(x)
    window = prod(side // cells + 2 for side, cells in zip(x.shape[-2:], grid, strict=True))
    trace.rounds(window)
    size = functional.adaptive_avg_pool2d(bound.size, grid) * window
    return Bound(trace.at_most_convex(bound.curvature), size)


def _average(trace: Interpreter, x: Tensor, *rest: Any, **options: Any) -> Bound:
    """Means and sums over windows or dimensions: linear, with weights that are not negative."""
    bound = trace.bound(x)
    if trace.call.name in ("sum", "mean"):
        dims = rest[0] if rest and rest[0] is not None else []
        trace.within_inputs(x, *(dims or [0]))
        trace.rounds(prod(x.shape[dim] for dim in dims))
    elif trace.call.name == "avg_pool2d":
        trace.rounds(2 * _window(rest[0]))
    else:
        trace.rounds(2 * prod(side // cells + 2 for side, cells in zip(x.shape[-2:], rest[0], strict=True)))
    return Bound(bound.curvature, trace.call.function(bound.size, *rest, **options))


def _add(trace: Interpreter, x: Any, y: Any, alpha: float = 1.0) -> Bound:
    first, second = trace.bound_or_size(x), trace.bound_or_size(y)
    scaled = trace.times(second.curvature, torch.tensor(float(alpha)))
    trace.rounds(2 + sum(trace.spread(part) for part in (x, y) if isinstance(part, Tensor)))
    return Bound(trace.plus(first.curvature, scaled), first.size + abs(alpha) * second.size)


def _subtract(trace: Interpreter, x: Any, y: Any, alpha: float = 1.0) -> Bound:
    return _add(trace, x, y, -alpha)


def _subtract_from(trace: Interpreter, x: Any, y: Any, alpha: float = 1.0) -> Bound:
    return _add(trace, y, x, -alpha)


def _negative(trace: Interpreter, x: Tensor) -> Bound:
    bound = trace.bound(x)
    return Bound(-bound.curvature, bound.size)


def _multiply(trace: Interpreter, x: Any, y: Any) -> Bound:
    first = isinstance(x, Tensor) and id(x) in trace.bounds
    bound, factor = (trace.bound(x), trace.constant(y)) if first else (trace.bound(y), trace.constant(x))
    trace.rounds(trace.spread(x if first else y))
    return Bound(trace.times(bound.curvature, factor), bound.size * factor.abs())


def _divide(trace: Interpreter, x: Tensor, y: Any) -> Bound:
    bound, divisor = trace.bound(x), trace.constant(y)
    trace.rounds(trace.spread(x))
    return Bound(trace.times(bound.curvature, divisor), bound.size / divisor.abs())


def _cat(trace: Interpreter, parts: list[Tensor], dim: int = 0) -> Bound:
    bounds = [trace.bound_or_size(part) for part in parts]
    trace.within_inputs(parts[0], dim)
    curvature = trace.plus(*(bound.curvature for bound in bounds))
    return Bound(curvature, torch.cat([bound.size for bound in bounds], dim))


def _pad(trace: Interpreter, x: Tensor, widths: Any, value: float = 0.0) -> Bound:
    bound = trace.bound(x)
    if len(widths) == 2 * x.dim():
        trace.within_inputs(x, 0)
    return Bound(bound.curvature, functional.pad(bound.size, widths, value=abs(value)))


def _window(kernel: Any) -> int:
    return kernel**2 if isinstance(kernel, int) else prod(kernel) if len(kernel) > 1 else kernel[0] ** 2


RULES: dict[Any, Callable[..., Bound | list[Bound]]] = {
    **dict.fromkeys(
        (
            ATEN.view,
            ATEN._unsafe_view,
            ATEN.alias,
            ATEN.clone,
            ATEN.permute,
            ATEN.transpose,
            ATEN.select,
            ATEN.slice,
            ATEN.split,
            ATEN.squeeze,
            ATEN.unsqueeze,
        ),
        _moved,
    ),
    ATEN.addmm: _addmm,
    ATEN.mm: _mm,
    ATEN.mv: _mm,
    ATEN.convolution: _convolution,
    ATEN.native_batch_norm: _batch_norm,
    ATEN._native_batch_norm_legit_no_training: _batch_norm_legit,
    ATEN.relu: _relu,
    ATEN.leaky_relu: _leaky_relu,
    ATEN.clamp: _clamp,
    ATEN.clamp_min: _clamp,
    ATEN.abs: _abs,
    ATEN.maximum: _maximum,
    ATEN.amax: _amax,
    ATEN.max: _amax,
    ATEN.max_pool2d_with_indices: _max_pool,
    ATEN.adaptive_max_pool2d: _adaptive_max_pool,
    ATEN.avg_pool2d: _average,
    ATEN._adaptive_avg_pool2d: _average,
    ATEN.mean: _average,
    ATEN.sum: _average,
    ATEN.add: _add,
    ATEN.sub: _subtract,
    ATEN.rsub: _subtract_from,
    ATEN.neg: _negative,
    ATEN.mul: _multiply,
    ATEN.div: _divide,
    ATEN.cat: _cat,
    ATEN.constant_pad_nd: _pad,
}
