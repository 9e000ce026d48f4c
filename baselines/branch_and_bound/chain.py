"""Small networks as chains of dense layers, the form that branch and bound works on."""

import copy
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

AFFINE_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
)
RESHAPES = {"flatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous", "size", "double", "float"}
RESHAPE_FUNCTIONS = {torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, getattr, operator.getitem}
SUMS = {operator.add, operator.sub, operator.neg, torch.add, torch.sub, torch.neg}
PRODUCTS = {operator.mul, operator.truediv, torch.mul, torch.div}
RELUS = {torch.relu, nn.functional.relu, "relu"}
MAX_WEIGHTS = 50_000_000


class UnsupportedNetwork(ValueError):
    """The network is not a chain of affine layers and ReLUs, or too large as one; the message names the layer."""


@dataclass(frozen=True)
class Chain:
    """h_0 = x, z_k = W_k h_{k-1} + b_k, h_k = relu(z_k); the score is the last z, which has one entry.

    weights[k]: (n_{k+1}, n_k) float64; biases[k]: (n_{k+1},). The hidden layers are numbered 0 .. depth - 1.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.weights) - 1

    @property
    def dim(self) -> int:
        """Number of input coordinates d."""
        return self.weights[0].shape[1]

    def preactivations(self, x: Tensor) -> list[Tensor]:
        """All z_k at x (N, d): the hidden layers' (N, n_k), then the score's (N, 1)."""
        values = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            values.append(nn.functional.linear(x, weight, bias))
            x = values[-1].relu()
        return values

    def score(self, x: Tensor) -> Tensor:
        """Score (N,) at x (N, d)."""
        return self.preactivations(x)[-1][:, 0]

    def score_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Score (N,) and its gradient (N, d) at x (N, d), without autograd."""
        *hidden, score = self.preactivations(x)
        gradient = self.weights[-1]
        for weight, z in zip(self.weights[-2::-1], hidden[::-1], strict=True):
            gradient = torch.where(z > 0, gradient, 0.0) @ weight
        return score[:, 0], gradient.expand_as(x)


def to_chain(model: nn.Module, input_shape: tuple[int, ...], device: torch.device | None = None) -> Chain:
    """Write a network (N, *input_shape) -> (N,) or (N, 1) as a chain of dense float64 layers, in evaluation mode.

    Supported are linear, convolution, batch norm, average pooling, dropout, reshapes, sums and multiples by constants,
    each ReLU applied to all that comes before it (so no shortcut may bypass a ReLU).
    Raises UnsupportedNetwork naming the layer otherwise.
    """
    model = copy.deepcopy(model).to(device=device or "cpu", dtype=torch.float64).eval().requires_grad_(False)
    if not list(model.children()):
        model = nn.Sequential(model)  # tracing keeps layers whole only inside another module
    try:
        graph = fx.symbolic_trace(model)
    except Exception as error:  # tracing runs the user's code on symbols and may raise anything
        raise UnsupportedNetwork(
            f"{type(model).__name__} cannot be traced: {error}; write it without data-dependent control flow"
        ) from error
    return _Dense(graph, tuple(input_shape), device or torch.device("cpu")).chain()


class _Dense:
    """Turns the affine stretch of a traced graph between two ReLUs into one matrix, stretch by stretch."""

    def __init__(self, graph: fx.GraphModule, input_shape: tuple[int, ...], device: torch.device) -> None:
        self.graph = graph
        self.modules = dict(graph.named_modules())
        self.shape = input_shape
        self.device = device
        self.stage: dict[fx.Node, int | None] = {}  # ReLUs before a node; None: does not depend on the input

    def chain(self) -> Chain:
        weights, biases = [], []
        source, pending = None, []
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                source, self.stage[node] = node, 0
            elif node.op == "output":
                weight, bias, _ = self._matrix(source, pending, node.args[0], "the output")
                weights.append(weight)
                biases.append(bias)
            elif self._is_relu(node):
                stretch = node.args[0]
                self._require(self.stage[stretch] == len(weights), node)
                weight, bias, self.shape = self._matrix(source, pending, stretch, node.name)
                weights.append(weight)
                biases.append(bias)
                self.stage[node] = len(weights)
                source, pending = node, []
            else:
                self._check_affine(node)
                self.stage[node] = self._stage_of(node)
                pending.append(node)
        if weights[-1].shape[0] != 1:
            raise UnsupportedNetwork(
                f"the network has {weights[-1].shape[0]} outputs: subtract the other class to get one score"
            )
        return Chain(tuple(weights), tuple(biases))

    def _is_relu(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self.modules[node.target], nn.ReLU)
        return node.op in ("call_function", "call_method") and node.target in RELUS

    def _stage_of(self, node: fx.Node) -> int | None:
        stages = {self.stage[parent] for parent in node.all_input_nodes} - {None}
        self._require(len(stages) <= 1, node)
        return stages.pop() if stages else None

    def _check_affine(self, node: fx.Node) -> None:
        inputs = [parent for parent in node.all_input_nodes if self.stage[parent] is not None]
        if node.op == "call_module":
            supported = isinstance(self.modules[node.target], AFFINE_LAYERS)
        elif node.op == "call_method":
            supported = node.target in RESHAPES
        elif node.op == "call_function":
            scaling = node.target in PRODUCTS and len(inputs) <= 1
            division = (
                node.target in (operator.truediv, torch.div) and inputs and inputs[0] is not node.args[0]
            )
            supported = node.target in RESHAPE_FUNCTIONS | SUMS or (scaling and not division)
        else:
            supported = node.op == "get_attr"
        self._require(supported, node)

    def _require(self, condition: bool, node: fx.Node) -> None:
        if not condition:
            kind = type(self.modules[node.target]).__name__ if node.op == "call_module" else node.target
            raise UnsupportedNetwork(
                f"layer '{node.target if node.op == 'call_module' else node.name}' ({kind}) is not part of a chain of "
                "affine layers and ReLUs: replace it, or use bound propagation (baselines.bounds)"
            )

    def _matrix(
        self, source: fx.Node, nodes: list[fx.Node], last: fx.Node, name: str
    ) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """The affine map from ``source`` to ``last`` as matrix, offset and output shape, by feeding it unit vectors."""
        width = int(torch.Size(self.shape).numel())
        origin = torch.zeros(1, *self.shape, dtype=torch.float64, device=self.device)
        offset = self._run(source, nodes, last, origin)
        if width * offset.numel() > MAX_WEIGHTS:
            raise UnsupportedNetwork(
                f"the layers up to {name} need a dense matrix of {width} x {offset.numel()} entries, at most "
                f"{MAX_WEIGHTS} are allowed: use a smaller network or bound propagation (baselines.bounds)"
            )
        unit = torch.eye(width, dtype=torch.float64, device=self.device).reshape(width, *self.shape)
        columns = [
            (self._run(source, nodes, last, part) - offset).reshape(len(part), -1)
            for part in unit.split(1024)
        ]
        return torch.cat(columns).T.contiguous(), offset.flatten(), tuple(offset.shape[1:])

    def _run(self, source: fx.Node, nodes: list[fx.Node], last: fx.Node, x: Tensor) -> Tensor:
        values: dict[fx.Node, Any] = {source: x}
        for node in nodes:
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: values[n])
            if node.op == "call_module":
                values[node] = self.modules[node.target](*args, **kwargs)
            elif node.op == "call_method":
                values[node] = getattr(args[0], node.target)(*args[1:], **kwargs)
            elif node.op == "get_attr":
                values[node] = operator.attrgetter(node.target)(self.graph)
            else:
                values[node] = node.target(*args, **kwargs)
        return values[last]
