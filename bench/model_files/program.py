"""A network read from a file: ordinary torch layers, wired as the file's graph is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import UsageError


@dataclass(frozen=True)
class Data:
    """A value of the graph that depends on the input: its name, one's shape, and how many come at once.

    A file that leaves the batch open is read with a batch of 1.
    """

    name: str
    shape: tuple[int, ...]
    batch: int = 1

    @property
    def full(self) -> tuple[int, ...]:
        """The shape with the batch axis, as the file's own constants see it."""
        return (self.batch, *self.shape)


@dataclass(frozen=True)
class Call:
    """One node of a file's graph.

    arguments: by position (ONNX) or by name (torch), Data where they depend on the input, else constants; options: the
    node's attributes (ONNX only).
    """

    operator: str
    arguments: dict[str | int, Any]
    options: dict[str, Any] = field(default_factory=dict)

    def get(self, key: str | int, default: Any = None) -> Any:
        """Return an argument, or the default where it is absent."""
        found = self.arguments.get(key)
        return default if found is None else found

    def data(self) -> list[Data]:
        """The arguments that depend on the input, in order; lists are looked into."""
        flat = []
        for value in self.arguments.values():
            flat += value if isinstance(value, list | tuple) else [value]
        return [value for value in flat if isinstance(value, Data)]

    def refuse(self, why: str = "") -> UsageError:
        """The error for a node that cannot be read."""
        return UsageError(f"operator {self.operator} is not supported{f': {why}' if why else ''}")


@dataclass(frozen=True)
class Step:
    """``layer`` applied to the values ``inputs`` gives the value ``output``; label names its operator."""

    label: str
    layer: nn.Module
    inputs: tuple[str, ...]
    output: str


class Program(nn.Module):
    """Runs steps in order: (N, *shape) -> the value ``result``."""

    def __init__(self, steps: Sequence[Step], source: str, result: str) -> None:
        super().__init__()
        self.source, self.result = source, result
        self.wiring = []
        for number, step in enumerate(steps):
            name = f"{step.label}_{number}".replace(".", "_")
            self.add_module(name, step.layer)
            self.wiring.append((name, step.inputs, step.output))

    def forward(self, x: Tensor) -> Tensor:
        values = {self.source: x}
        for name, inputs, output in self.wiring:
            values[output] = getattr(self, name)(*(values[key] for key in inputs))
        return values[self.result]


class Recorder:
    """Collects the steps of a graph; each is tried on one input, so shapes are known and batches stay apart."""

    def __init__(self, source: str, input_shape: tuple[int, ...], batch: int = 1) -> None:
        self.source, self.batch = source, batch
        self.steps: list[Step] = []
        generator = torch.Generator().manual_seed(0)
        self.examples = {source: torch.rand(batch, *input_shape, generator=generator, dtype=torch.float64)}

    def data(self, name: str) -> Data:
        """Describe a value that depends on the input."""
        return Data(name, tuple(self.examples[name].shape[1:]), self.batch)

    def add(self, call: Call, layer: nn.Module, output: str) -> None:
        """Append a layer on the call's data; raise UsageError if it fails or mixes the inputs of a batch."""
        inputs = tuple(value.name for value in call.data())
        layer = layer.double().eval().requires_grad_(False)
        try:
            value = layer(*(self.examples[name] for name in inputs))
        except (RuntimeError, ValueError, IndexError) as error:
            shapes = ", ".join(str(tuple(self.examples[name].shape[1:])) for name in inputs)
            raise UsageError(
                f"operator {call.operator} does not fit inputs of shape {shapes}: is this the network's input size?"
            ) from error
        if value.shape[:1] != (self.batch,):
            raise call.refuse("it does not keep the inputs of a batch apart")
        self.examples[output] = value
        self.steps.append(Step(call.operator, layer, inputs, output))


class Affine(nn.Module):
    """x * scale + shift, each a constant or absent."""

    def __init__(self, scale: Tensor | None = None, shift: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.scale is None else x * self.scale
        return x if self.shift is None else x + self.shift


class Sum(nn.Module):
    """x + y, or x - y."""

    def __init__(self, minus: bool = False) -> None:
        super().__init__()
        self.minus = minus

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x - y if self.minus else x + y


class Concat(nn.Module):
    """Values side by side."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *values: Tensor) -> Tensor:
        return torch.cat(values, dim=self.dim)


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


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """The layer x W^T + b, weight (out, in) and bias (out,) or (1, out)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
    # Always with a bias: without one auto-LiRPA sees a product of two matrices, which it does not bound.
    return _with_weights(layer, weight, torch.zeros(len(weight)) if bias is None else bias)


def convolution(
    weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> nn.Conv2d:
    """The two-dimensional convolution with weight (out, in / groups, kernel, kernel)."""
    layer = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        _pair(stride),
        _pair(padding),
        _pair(dilation),
        groups,
        bias=bias is not None,
        dtype=torch.float64,
    )
    return _with_weights(layer, weight, bias)


def batch_norm(
    scale: Tensor | None, shift: Tensor | None, mean: Tensor, variance: Tensor, eps: float, rank: int
) -> nn.Module:
    """Batch normalisation in evaluation mode, for inputs of one or three axes."""
    layer = (nn.BatchNorm2d if rank == 3 else nn.BatchNorm1d)(len(mean), eps=eps, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.ones_like(mean) if scale is None else scale)
        layer.bias.copy_(torch.zeros_like(mean) if shift is None else shift)
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)
    return layer


def reshape(shape: Sequence[int], before: Data, call: Call) -> nn.Module:
    """The layer that gives a value the shape ``shape`` (its first entry is the batch's)."""
    try:
        after = torch.empty(before.full).reshape(tuple(shape)).shape
    except RuntimeError as error:
        raise call.refuse(f"shape {before.full} cannot become {tuple(shape)}") from error
    if not after or after[0] != before.batch:
        raise call.refuse("it does not keep the inputs of a batch apart")
    return nn.Flatten(1) if len(after) == 2 else Reshape(tuple(after[1:]))


def arithmetic(kind: str, left: Any, right: Any, call: Call) -> nn.Module:
    """The layer of add, sub, mul or div, where one side may be a constant."""
    if isinstance(left, Data) and isinstance(right, Data):
        if kind in ("add", "sub"):
            return Sum(minus=kind == "sub")
        raise call.refuse("it multiplies two values that both depend on the input")
    constant = torch.as_tensor(right if isinstance(left, Data) else left, dtype=torch.float64)
    while constant.dim() and constant.shape[0] == 1:  # an axis of the batch confuses bound propagation
        constant = constant[0]
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


def _with_weights(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias.flatten())
    return layer


def _pair(size: Any) -> tuple[int, int]:
    size = [size] if isinstance(size, int) else list(size)
    return (size[0], size[-1])
