"""A network read from a file: ordinary torch layers, wired as the file's graph is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench.basics.errors import UsageError

# Marks the results inside one node of the file.
INNER = "#"


class UnreadError(UsageError):
    """A layer that is not read: no certificate needs more than smoothing, which only runs the file."""


@dataclass(frozen=True)
class Data:
    """A value of the graph that depends on the input: its name, the shape of one, and how many come at once.

    batch: None where the file's values have no batch axis; a file that leaves the batch open is read with a batch of 1.
    is_condition: whether it says where something holds, and is no number.
    """

    name: str
    shape: tuple[int, ...]
    batch: int | None = 1
    is_condition: bool = False

    @property
    def full(self) -> tuple[int, ...]:
        """The shape as the file's own constants see it."""
        return self.shape if self.batch is None else (self.batch, *self.shape)


@dataclass(frozen=True)
class Call:
    """One node of a file's graph.

    arguments: by position, Data where they depend on the input, else constants; options: the node's attributes;
    outputs: how many values the node gives; opset: version of the operator's standard.
    """

    operator: str
    arguments: dict[int, Any]
    options: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    opset: int = 17

    def get(self, place: int, default: Any = None) -> Any:
        """Return an argument, or the default where it is absent."""
        found = self.arguments.get(place)
        return default if found is None else found

    def numbers(self, place: int, option: str) -> list[int] | None:
        """Return whole numbers that are a constant argument or, in older files, an attribute."""
        found = self.get(place, self.options.get(option))
        if isinstance(found, Data):
            raise self.refuse(f"its {option} depend on the input")
        if found is None:
            return None
        return [int(number) for number in (found.flatten() if isinstance(found, Tensor) else found)]

    def whole(self, place: int, option: str) -> list[int]:
        """Return whole numbers as ``numbers`` does, where the operator cannot do without them."""
        found = self.numbers(place, option)
        if found is None:
            raise self.refuse(f"its {option} are missing")
        return found

    def data(self) -> list[Data]:
        """The arguments that depend on the input, in order."""
        return [value for value in self.arguments.values() if isinstance(value, Data)]

    def axis(self, place: int, value: Data | None = None, extra: int = 0) -> int:
        """Return the axis of one example that the file calls ``place``; ``extra``: axes that are being added."""
        value = value or self.data()[0]
        rank = len(value.full) + extra
        if not -rank <= place < rank:
            raise self.refuse(f"it has no axis {place}")
        place = place % rank - (0 if value.batch is None else 1)
        if place < 0:
            raise self.refuse("it does not keep the inputs of a batch apart")
        return place

    def refuse(self, why: str = "") -> UnreadError:
        """The error for a node that cannot be read."""
        return UnreadError(f"operator {self.operator} is not supported{f': {why}' if why else ''}")


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

    def steps(self) -> dict[str, Step]:
        """The steps by what they give, in order."""
        return {
            output: Step(name.rpartition("_")[0], getattr(self, name), inputs, output)
            for name, inputs, output in self.wiring
        }

    def until(self, result: str) -> "Program":
        """The program up to another result, without the steps that it does not need."""
        wanted, kept = {result}, []
        for step in reversed(self.steps().values()):
            if step.output in wanted:
                kept.append(step)
                wanted |= set(step.inputs)
        return Program(kept[::-1], self.source, result)


class Recorder:
    """Collects the steps of a graph; each is tried on one input, so shapes are known and batches stay apart."""

    def __init__(self, source: str, input_shape: tuple[int, ...], batch: int | None = 1) -> None:
        self.source, self.batch = source, batch
        self.steps: list[Step] = []
        generator = torch.Generator().manual_seed(0)
        self.examples = {
            source: torch.rand(batch or 1, *input_shape, generator=generator, dtype=torch.float64)
        }

    def data(self, name: str) -> Data:
        """Describe a value that depends on the input."""
        example = self.examples[name]
        return Data(name, tuple(example.shape[1:]), self.batch, example.dtype == torch.bool)

    def seen(self, name: str) -> Tensor:
        """An example of a value, as the file's own operators see it."""
        return self.examples[name][0] if self.batch is None else self.examples[name]

    def add(self, call: Call, layer: nn.Module, output: str) -> None:
        """Append a layer on the call's data, part by part; raise UsageError if it fails or mixes a batch's inputs."""
        inputs = tuple(value.name for value in call.data())
        parts = list(layer) if isinstance(layer, nn.Sequential) else [layer]
        for place, part in enumerate(parts):
            last = place == len(parts) - 1
            result = output if last else f"{output}{INNER}{place}"
            self._append(call, part.double().eval().requires_grad_(False), inputs, result)
            inputs = (result,)

    def _append(self, call: Call, layer: nn.Module, inputs: tuple[str, ...], output: str) -> None:
        try:
            value = layer(*(self.examples[name] for name in inputs))
        except (RuntimeError, ValueError, IndexError) as error:
            shapes = ", ".join(str(tuple(self.examples[name].shape[1:])) for name in inputs)
            raise UsageError(
                f"operator {call.operator} does not fit inputs of shape {shapes}: is this the network's input size?"
            ) from error
        if value.shape[:1] != (self.batch or 1,):
            raise call.refuse("it does not keep the inputs of a batch apart")
        self.examples[output] = value
        self.steps.append(Step(call.operator, layer, inputs, output))
