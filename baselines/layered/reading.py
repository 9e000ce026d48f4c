"""Reads a network into layers: affine stretches become matrices, and everything is compared with the network itself.

Only operators on the lists of ``operators`` are read, each stretch between activations is compared with its matrix at
random values of several sizes, and the whole with the network at random inputs and on both sides of hidden neurons.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from baselines.layered.gates import gate, numbers_of
from baselines.layered.network import Layer, LayeredNetwork, times, without_zeros
from baselines.layered.operators import ACTIVATIONS, FACTORS, PIECEWISE, Activation, aten, is_affine
from baselines.layered.products import with_squares
from baselines.layered.tracing import BATCH, MARK, Traced, UnreadableNetwork, trace

# Larger matrices are kept as CSR, which convolutions fill to a percent; smaller ones where they are all but empty.
DENSE_ENTRIES = 1 << 24
EMPTY_ENTRIES, EMPTY = 1 << 20, 1 / 256
MOST_ENTRIES = 1 << 32
SCALES = (1e-2, 1.0, 1e2)
AGREEMENT = 1e-9
CROSSING_STEPS = 6
FARTHEST = 1e9
CHANGES_NOTHING = (aten.clone.default, aten.alias.default, aten.detach.default, MARK)
VIEWS = (aten.view.default, aten._unsafe_view.default)


def read(
    model: nn.Module,
    input_shape: tuple[int, ...],
    device: torch.device | str = "cpu",
    rewrite: bool = True,
    most_entries: int = MOST_ENTRIES,
    most_input_entries: int = MOST_ENTRIES,
) -> LayeredNetwork:
    """Write a network (N, *input_shape) -> (N,) or (N, M) as affine layers and activations in float64.

    rewrite: whether max pooling, leaky ReLUs, clamps and the like may be written with ReLUs, exactly. most_entries: of
    one matrix, counting zeros; most_input_entries: of one that acts on the input. Raises UnreadableNetwork naming the
    layer or operator that is not known.
    """
    device = torch.device(device)
    traced = trace(model, tuple(input_shape), device, PIECEWISE if rewrite else {})
    with torch.no_grad():
        layered = _Reader(traced, tuple(input_shape), device, (most_input_entries, most_entries)).layered()
        _compare(traced.network, layered, tuple(input_shape), device)
    return layered


@dataclass(frozen=True)
class _Source:
    """A value that matrices start from: the input, or the output of an activation."""

    place: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(torch.Size(self.shape).numel())


class _Reader:
    """Walks through the graph; each activation, and the output, closes a layer."""

    def __init__(
        self, traced: Traced, input_shape: tuple[int, ...], device: torch.device, most: tuple[int, int]
    ) -> None:
        self.traced, self.device, self.most = traced, device, most
        self.nodes = list(traced.graph.graph.nodes)
        self.depends: dict[fx.Node, bool] = {}
        self.gates: dict[fx.Node, tuple[fx.Node, Activation]] = {}
        self.sources: dict[fx.Node, _Source] = {}
        self.layers: list[Layer] = []
        self.dim = int(torch.Size(input_shape).numel())
        self.input_shape = input_shape

    def layered(self) -> LayeredNetwork:
        constants = numbers_of(self.traced.graph)
        self.gates = {node: found for node in self.nodes if (found := gate(node, constants)) is not None}
        needed = self._needed()
        if with_squares(self.traced.graph, needed - set(self.gates), self.input_shape, self.device):
            self.nodes = list(self.traced.graph.graph.nodes)
            needed = self._needed()
        for node in self.nodes:
            if node.op == "placeholder":
                self.depends[node] = True
                self.sources[node] = _Source(0, self.input_shape)
            elif node.op == "output":
                return self._close(node)
            else:
                self.depends[node] = any(self.depends[parent] for parent in node.all_input_nodes)
                if self.depends[node] and node in needed:
                    self._read(node)
        raise AssertionError("a traced graph ends with its output")

    def _needed(self) -> set[fx.Node]:
        """Nodes that the output depends on."""
        found = set(self.nodes[-1].all_input_nodes)
        for node in reversed(self.nodes):
            if node in found:
                found |= {self.gates[node][0]} if node in self.gates else set(node.all_input_nodes)
        return found

    def _read(self, node: fx.Node) -> None:
        known = self._activation(node)
        if known is not None:
            shape = tuple(node.meta["val"].shape)
            if shape[:1] != (BATCH,):
                raise UnreadableNetwork(self.traced.describe(node), "mixes the inputs of a batch")
            name = self.traced.describe(node)
            self.layers.append(self._layer(*known, name))
            self.sources[node] = _Source(len(self.layers), shape[1:])
        elif not is_affine(node, self.depends):
            raise UnreadableNetwork(self.traced.describe(node), self._why_not(node))

    def _activation(self, node: fx.Node) -> tuple[fx.Node, Activation] | None:
        """The value that a node is an activation of, and which."""
        if node in self.gates:
            return self.gates[node]
        if node.target not in ACTIVATIONS or any(self.depends[part] for part in node.all_input_nodes[1:]):
            return None
        found = ACTIVATIONS[node.target](*node.args[1:], **node.kwargs)
        before = node.args[0]
        assert isinstance(before, fx.Node)  # what an activation acts on
        return None if found is None else (before, found)

    def _why_not(self, node: fx.Node) -> str:
        live = sum(self.depends[part] for part in node.all_input_nodes)
        if node.target in FACTORS and live > 1:
            return "multiplies two values that both depend on the input"
        if node.target is aten.div.Tensor and live > 1:
            return "divides by a value that depends on the input"
        return "is not known to be affine or an activation"

    def _close(self, output: fx.Node) -> LayeredNetwork:
        last = output.args[0]
        if not isinstance(last, fx.Node) or not self.depends[last]:
            raise UnreadableNetwork("the network", "must return one tensor that depends on its input")
        shape = tuple(last.meta["val"].shape)
        if shape[:1] != (BATCH,) or len(shape) > 2:
            raise UnreadableNetwork(
                "the network", f"must map N inputs to N scores, {BATCH} inputs gave shape {shape}"
            )
        self.layers.append(self._layer(last, None, "the output"))
        return LayeredNetwork(tuple(self.layers), self.dim)

    def _layer(self, target: fx.Node, activation: Activation | None, name: str) -> Layer:
        stretch = _Stretch(self.traced.graph, target, self.sources, self.device)
        for source in stretch.starts.values():
            most, what = (
                (self.most[0], "a first layer") if source.place == 0 else (self.most[1], "a hidden layer")
            )
            if stretch.size * source.size > most:
                raise UnreadableNetwork(
                    f"{what} of {stretch.size:,} neurons on {source.size:,} inputs",
                    f"has more than {most:,} coefficients: use a smaller network",
                )
        bias, maps = stretch.offset(), stretch.matrices()
        self._check(stretch, maps, bias, name)
        return Layer(maps, bias, activation, name)

    def _check(self, stretch: "_Stretch", maps: Mapping[int, Tensor], bias: Tensor, name: str) -> None:
        """The stretch must equal its matrices, for every input of a batch by itself."""
        generator = torch.Generator().manual_seed(len(self.layers))
        for scale in SCALES:
            values = {
                source.place: scale
                * torch.randn(BATCH, source.size, generator=generator, dtype=torch.float64).to(self.device)
                for source in stretch.starts.values()
            }
            found = stretch.run(values)
            expected, size = bias.expand_as(found), bias.abs().expand_as(found)
            for place, matrix in maps.items():
                expected = expected + times(values[place], matrix)
                size = size + times(values[place].abs(), matrix.abs())
            if not bool(((found - expected).abs() <= AGREEMENT * size + 1e-300).all()):
                raise UnreadableNetwork(
                    f"the layers before {name}", "are not affine, or mix the inputs of a batch"
                )


class _Stretch:
    """The affine map from sources to one node, as a function and as matrices."""

    def __init__(
        self,
        graph: fx.GraphModule,
        target: fx.Node,
        sources: Mapping[fx.Node, _Source],
        device: torch.device,
    ) -> None:
        self.graph, self.target, self.device = graph, target, device
        self.starts: dict[fx.Node, _Source] = {}
        needed: set[fx.Node] = set()
        waiting = [target]
        while waiting:
            node = waiting.pop()
            if node in sources:
                self.starts[node] = sources[node]
            elif node not in needed:
                needed.add(node)
                waiting += node.all_input_nodes
        self.steps = [node for node in graph.graph.nodes if node in needed]
        self.shape = tuple(target.meta["val"].shape)
        self.size = int(torch.Size(self.shape[1:]).numel())
        if self.shape[:1] != (BATCH,):
            raise UnreadableNetwork("the network", "mixes the inputs of a batch")

    def run(self, values: Mapping[int, Tensor]) -> Tensor:
        """Values (BATCH, n) of the node from those (BATCH, n_j) of its sources."""
        found: dict[fx.Node, Any] = {
            node: values[source.place].reshape(BATCH, *source.shape) for node, source in self.starts.items()
        }
        for node in self.steps:
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda part: found[part])
            if node.op == "get_attr":
                found[node] = getattr(self.graph, node.target)
            elif node.target in CHANGES_NOTHING:
                found[node] = args[0]
            elif node.target in VIEWS:  # the memory may be laid out in another way than when it was traced
                found[node] = args[0].reshape(args[1])
            elif node.target is aten.copy.default:  # has no derivative
                found[node] = args[1].to(args[0].dtype).expand_as(args[0])
            else:
                found[node] = node.target(*args, **kwargs)
        return found[self.target].reshape(BATCH, -1)

    def zeros(self) -> dict[int, Tensor]:
        return {
            source.place: torch.zeros(BATCH, source.size, dtype=torch.float64, device=self.device)
            for source in self.starts.values()
        }

    def offset(self) -> Tensor:
        """Value (n,) of the node where all sources are zero."""
        return self.run(self.zeros())[0].clone()

    def matrices(self) -> dict[int, Tensor]:
        """Coefficients (n, n_j) on each source: gradients of the outputs, or differences where these are cheaper."""
        inputs = sum(source.size for source in self.starts.values())
        return self._by_gradients() if self.size <= 2 * inputs else self._by_differences()

    def _by_gradients(self) -> dict[int, Tensor]:
        parts: dict[int, list[Tensor]] = {source.place: [] for source in self.starts.values()}
        for rows in torch.arange(self.size, device=self.device).split(BATCH):
            points = {place: value.requires_grad_() for place, value in self.zeros().items()}
            with torch.enable_grad():
                found = self.run(points)[: len(rows)].gather(1, rows[:, None])
                gradients = torch.autograd.grad(found.sum(), list(points.values()), allow_unused=True)
            for place, gradient in zip(points, gradients, strict=True):
                gradient = points[place].detach() if gradient is None else gradient
                parts[place].append(_kept(gradient[: len(rows)], self.size))
        return {place: _joined(found) for place, found in parts.items()}

    def _by_differences(self) -> dict[int, Tensor]:
        offset = self.offset()
        # Unit vectors of the size of the offset, a power of two, so that the difference keeps its digits.
        largest = float(offset.abs().max().clamp(min=1.0))
        scale = 2.0 ** torch.tensor(largest).log2().ceil().item()
        found: dict[int, Tensor] = {}
        for source in self.starts.values():
            parts = []
            for columns in torch.arange(source.size, device=self.device).split(BATCH):
                values = self.zeros()
                values[source.place][torch.arange(len(columns)), columns] = scale
                difference = (self.run(values)[: len(columns)] - offset) / scale
                parts.append(_kept(difference, source.size))
            matrix = _joined(parts)
            if matrix.layout == torch.strided:
                found[source.place] = matrix.T.contiguous()
            else:
                found[source.place] = without_zeros(matrix.t())
        return found


def _kept(rows: Tensor, count: int) -> Tensor:
    """Rows of a matrix with ``count`` of them, without their zeros where it is large."""
    return rows.clone() if count * rows.shape[1] <= DENSE_ENTRIES else rows.to_sparse()


def _joined(parts: list[Tensor]) -> Tensor:
    matrix = torch.cat(parts)
    if matrix.layout == torch.strided:
        large = matrix.numel() >= EMPTY_ENTRIES
        return without_zeros(matrix) if large and matrix.count_nonzero() < EMPTY * matrix.numel() else matrix
    matrix = matrix.coalesce()
    if len(matrix.values()) * 2 > matrix.numel():
        return matrix.to_dense()
    return without_zeros(matrix)


def _compare(
    network: nn.Module, layered: LayeredNetwork, input_shape: tuple[int, ...], device: torch.device
) -> None:
    """Network and layers must agree at random inputs of several sizes and on both sides of hidden neurons."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(7, layered.dim, generator=generator, dtype=torch.float64).to(device)
    normal = torch.randn(7, layered.dim, generator=generator, dtype=torch.float64).to(device)
    points = torch.cat(
        [uniform, *(scale * normal for scale in SCALES), switching(layered, uniform, generator)]
    )
    # Batches of several sizes: a network that looks at its batch gives itself away.
    for part in (points[:1], points[1:3], points[3:]):
        if not len(part):
            continue
        expected = network(part.reshape(-1, *input_shape))
        found = layered.outputs(part)
        allowed = AGREEMENT * found.abs().amax(dim=1) + 1e2 * layered.rounding(part)
        agrees = expected.shape[:1] == found.shape[:1] and expected.numel() == found.numel()
        if not agrees or not bool(((expected.reshape(found.shape) - found).abs() <= allowed[:, None]).all()):
            raise UnreadableNetwork("the network", "computes other values than its layers as they were read")


def switching(layered: LayeredNetwork, x: Tensor, generator: torch.Generator, per_layer: int = 8) -> Tensor:
    """Inputs (M, d) on both sides of some hidden neurons of every layer, found from x (N, d) by Newton steps."""
    found = []
    for place, layer in enumerate(layered.layers[:-1]):
        until = LayeredNetwork(layered.layers[: place + 1], layered.dim)
        neurons = torch.randint(layer.width, (per_layer,), generator=generator)
        point = x[torch.randint(len(x), (per_layer,), generator=generator)].clone()
        for _ in range(CROSSING_STEPS):
            point.requires_grad_()
            with torch.enable_grad():
                z = until.outputs(point).gather(1, neurons[:, None].to(x.device))
                (slope,) = torch.autograd.grad(z.sum(), point)
            square = slope.square().sum(dim=1, keepdim=True)
            step = torch.where(square > 0, z.detach() * slope / square.clamp(min=1e-300), 0.0)
            point = point.detach() - step.clamp(-FARTHEST, FARTHEST)
        length = slope.norm(dim=1, keepdim=True).clamp(min=1e-300)
        for side in (-1.0, 1.0):
            found += [point + side * size * slope / length for size in (1e-3, 1e-1)]
    return torch.cat(found) if found else x[:0]
