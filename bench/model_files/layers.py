"""The layers that programs are made of, where torch.nn has none: linear maps, moves of entries, and a few functions.

They hold nothing but settings and tensors, so that a program can be copied, pickled and changed in precision.
"""

import math
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Affine(nn.Module):
    """x * scale + shift, each a constant or absent."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor | None = None, shift: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.scale is None else x * self.scale
        return x if self.shift is None else x + self.shift


class Sum(nn.Module):
    """The sum of values, or x - y."""

    def __init__(self, minus: bool = False) -> None:
        super().__init__()
        self.minus = minus

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            x = x - other if self.minus else x + other
        return x


class Times(nn.Module):
    """x * y, of two values that depend on the input."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y


class Quotient(nn.Module):
    """x / y, of two values that depend on the input."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x / y


class Power(nn.Module):
    """x to a whole power."""

    def __init__(self, exponent: int) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, x: Tensor) -> Tensor:
        return x.pow(self.exponent)


class Pointwise(nn.Module):
    """A function of torch's on each entry, by its name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return getattr(torch, self.name)(x)


class Compare(nn.Module):
    """Whether x is greater (gt, ge) or less (lt, le) than a constant."""

    constant: Tensor

    def __init__(self, kind: str, constant: Tensor) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("constant", constant)

    def forward(self, x: Tensor) -> Tensor:
        return getattr(torch, self.kind)(x, self.constant)


class Choose(nn.Module):
    """One of two values where a condition holds, the other elsewhere; ``constants``: in the place of a value."""

    first: Tensor | None
    second: Tensor | None

    def __init__(self, constants: list[Tensor | None]) -> None:
        super().__init__()
        self.register_buffer("first", constants[0])
        self.register_buffer("second", constants[1])

    def forward(self, condition: Tensor, *values: Tensor) -> Tensor:
        waiting = iter(values)
        first = next(waiting) if self.first is None else self.first
        second = next(waiting) if self.second is None else self.second
        return torch.where(condition, first, second)


class Product(nn.Module):
    """Each input of a batch times a constant matrix, which stands on the left or on the right."""

    constant: Tensor

    def __init__(self, constant: Tensor, on_the_left: bool) -> None:
        super().__init__()
        self.register_buffer("constant", constant)
        self.on_the_left = on_the_left

    def forward(self, x: Tensor) -> Tensor:
        if not self.on_the_left:
            return x @ self.constant
        if x.dim() == 2:
            return x @ self.constant.T
        return self.constant @ x


class Einsum(nn.Module):
    """Sums of products of a value with constants, as an equation names their axes; ``place``: that of the value."""

    def __init__(self, equation: str, constants: list[Tensor], place: int) -> None:
        super().__init__()
        self.equation, self.place, self.count = equation, place, len(constants)
        for number, constant in enumerate(constants):
            self.register_buffer(f"part{number}", constant)

    def forward(self, x: Tensor) -> Tensor:
        parts = [getattr(self, f"part{number}") for number in range(self.count)]
        return torch.einsum(self.equation, *parts[: self.place], x, *parts[self.place :])


class Reduce(nn.Module):
    """The sum or mean over axes (the batch is axis 0)."""

    def __init__(self, axes: list[int], keep: bool, mean: bool) -> None:
        super().__init__()
        self.axes, self.keep, self.mean = axes, keep, mean

    def forward(self, x: Tensor) -> Tensor:
        reduced = torch.mean if self.mean else torch.sum
        return reduced(x, dim=self.axes, keepdim=self.keep)


class Reshape(nn.Module):
    """Another shape for each input of a batch."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *self.shape)


class Permute(nn.Module):
    """Axes in another order, the batch staying first."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


class Take(nn.Module):
    """Entries of one axis (the batch is axis 0), in the order of ``numbers``."""

    numbers: Tensor

    def __init__(self, axis: int, numbers: Tensor) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("numbers", numbers.long())

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(self.axis, self.numbers)


class Expand(nn.Module):
    """Each input of a batch repeated along its axes, up to a shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, *[1] * (len(self.shape) - x.dim() + 1), *x.shape[1:])
        return x.expand(-1, *self.shape)


class Pad(nn.Module):
    """Entries around each input of a batch; widths: before and after, from the last axis on, as torch has them."""

    def __init__(self, widths: list[int], mode: str = "constant", value: float = 0.0) -> None:
        super().__init__()
        self.widths, self.mode, self.value = widths, mode, value

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "constant":
            return F.pad(x, self.widths, value=self.value)
        return F.pad(x, self.widths, mode=self.mode)


class Resize(nn.Module):
    """Images of another size."""

    def __init__(self, size: list[int], mode: str, corners: bool | None = None) -> None:
        super().__init__()
        self.size, self.mode, self.corners = size, mode, corners

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, size=self.size, mode=self.mode, align_corners=self.corners)


class Concat(nn.Module):
    """Values side by side along an axis, ``None`` among ``constants`` standing for the next value."""

    def __init__(self, constants: list[Tensor | None], axis: int) -> None:
        super().__init__()
        self.axis, self.count = axis, len(constants)
        for place, constant in enumerate(constants):
            self.register_buffer(f"part{place}", constant)

    def forward(self, *values: Tensor) -> Tensor:
        waiting, parts = iter(values), []
        for place in range(self.count):
            constant = getattr(self, f"part{place}")
            parts.append(
                next(waiting) if constant is None else constant.expand(len(values[0]), *constant.shape)
            )
        return torch.cat(parts, dim=self.axis)


class Leaky(nn.Module):
    """x where it is positive, else slope * x; slope a number or one per channel."""

    slope: Tensor
    rest: Tensor

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.register_buffer("slope", slope)
        self.register_buffer("rest", 1 - slope)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.slope + torch.relu(x) * self.rest


class Clip(nn.Module):
    """min(max(x, low), high); either may be absent."""

    def __init__(self, low: float | None, high: float | None) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)


class Exp(nn.Module):
    """e^x."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(x)


class Log(nn.Module):
    """The natural logarithm."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x)


class Largest(nn.Module):
    """The greatest (or least) of several values, entry by entry."""

    def __init__(self, least: bool = False) -> None:
        super().__init__()
        self.least = least

    def forward(self, *values: Tensor) -> Tensor:
        pick = torch.minimum if self.least else torch.maximum
        found = values[0]
        for value in values[1:]:
            found = pick(found, value)
        return found


class LargestOf(nn.Module):
    """The greatest (or least) of K entries of each input, for each place: ``index`` (K, *shape) into the flat input."""

    index: Tensor

    def __init__(self, index: Tensor, least: bool = False) -> None:
        super().__init__()
        self.register_buffer("index", index.flatten(1))
        self.shape, self.pick = tuple(index.shape[1:]), Largest(least)

    def forward(self, x: Tensor) -> Tensor:
        found = x.flatten(1).index_select(1, self.index.flatten()).unflatten(1, self.index.shape)
        while found.shape[1] > 1:  # all pairs of a round at once, so that they are one layer of ReLUs
            paired = found.shape[1] // 2
            first, second, rest = found.split([paired, paired, found.shape[1] - 2 * paired], dim=1)
            found = torch.cat([self.pick(first, second), rest], dim=1)
        return found.reshape(-1, *self.shape)


Weighted = TypeVar("Weighted", nn.Linear, nn.Conv2d)
# What only moves, drops or repeats entries, or puts constants beside them.
MOVES = (nn.Identity, nn.Flatten, Reshape, Permute, Take, Expand, Pad, Concat)


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """The layer x W^T + b, weight (out, in) and bias (out,) or (1, out)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=torch.float64)
    return _with_weights(layer, weight, bias)


def convolution(
    weight: Tensor, bias: Tensor | None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> nn.Conv2d:
    """The two-dimensional convolution with weight (out, in / groups, kernel, kernel)."""
    layer = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        stride,
        padding,
        dilation,
        groups,
        bias=bias is not None,
        dtype=torch.float64,
    )
    return _with_weights(layer, weight, bias)


def normalisation(
    scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor, eps: float, rank: int
) -> nn.Module:
    """Batch normalisation in evaluation mode, for inputs of one or three axes."""
    layer = (nn.BatchNorm2d if rank == 3 else nn.BatchNorm1d)(len(mean), eps=eps, dtype=torch.float64)
    with torch.no_grad():
        state = layer.state_dict()
        for name, value in {
            "weight": scale,
            "bias": shift,
            "running_mean": mean,
            "running_var": variance,
        }.items():
            state[name].copy_(value)
    return layer


def entries(shape: tuple[int, ...]) -> Tensor:
    """The number of each entry of a flat input, (1, *shape) in float64, for layers that move them."""
    return torch.arange(math.prod(shape), dtype=torch.float64).reshape(1, *shape)


def _with_weights(layer: Weighted, weight: Tensor, bias: Tensor | None) -> Weighted:
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None and layer.bias is not None:
            layer.bias.copy_(bias.flatten())
    return layer
