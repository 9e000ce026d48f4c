"""The graph of a network at the level of ATen operators, where a layer, a function and a method look the same."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

# Inputs of the traced batch. A prime that no layer is likely to have as a size, so that the batch is recognised.
BATCH = 61
UNTRACEABLE = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
    GuardOnDataDependentSymNode,
)
OWN_FUNCTION = "autograd.Function"
MARK = torch.ops.aten.alias.default


class UnreadableNetwork(ValueError):
    """A network is not made of what is known; ``what`` names the layer or operator, ``why`` says what is wrong."""

    def __init__(self, what: str, why: str) -> None:
        self.what, self.why = what, why
        super().__init__(f"{what} {why}")


@dataclass(frozen=True)
class Traced:
    """A network in float64 and evaluation mode, its graph for BATCH inputs, and the layer each node belongs to."""

    network: nn.Module
    graph: fx.GraphModule
    layers: Mapping[fx.Node, str]

    def describe(self, node: fx.Node) -> str:
        """The layer of a node; of layers that are not torch's, and outside any, the operation too."""
        operation = str(getattr(node.target, "overloadpacket", node.target)).removeprefix("aten.").strip("_")
        layer = self.layers.get(node, "")
        return layer if layer.endswith(")") else f"{layer}the operation '{operation}'"


def float64_copy(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy of the network that computes in float64 and evaluation mode."""
    try:
        copied = copy.deepcopy(model)
    except RuntimeError as error:
        raise UnreadableNetwork(
            type(model).__name__,
            "holds a tensor computed from others, which cannot be copied: make weight norm or pruning permanent "
            "(remove_weight_norm, prune.remove), or use torch.nn.utils.parametrizations",
        ) from error
    return copied.to(device=device, dtype=torch.float64).eval().requires_grad_(False)


def trace(
    model: nn.Module,
    input_shape: tuple[int, ...],
    device: torch.device,
    rewritten: Mapping[Any, Callable],
) -> Traced:
    """Record what a network (N, *input_shape) -> scores does to a batch; operators in ``rewritten`` are replaced.

    Raises UnreadableNetwork for control flow that depends on the values of the input.
    """
    network = float64_copy(model, device)
    example = torch.zeros(BATCH, *input_shape, dtype=torch.float64, device=device)
    with torch.no_grad():
        network(example)  # a network that fails by itself fails here, with its own message
        marked, marks = _with_marks(copy.deepcopy(network))
        try:
            graph = _recorded(marked, example, dict(rewritten))
            if _mutating(graph) is not None:
                # Some operators, such as circular padding, are written with others that fill a tensor in place.
                graph = _recorded(graph, example, {})
        except UNTRACEABLE as error:
            raise UnreadableNetwork(
                type(model).__name__, "has control flow that depends on its input: write it without"
            ) from error
        except RuntimeError as error:
            if OWN_FUNCTION not in str(error):
                raise
            raise UnreadableNetwork(
                type(model).__name__, f"has an {OWN_FUNCTION} of its own: write it with torch's operators"
            ) from error
    traced = Traced(network, graph, _layers(graph, marks))
    mutating = _mutating(graph)
    if mutating is not None:
        raise UnreadableNetwork(traced.describe(mutating), "fills a tensor in place: return a new one")
    return traced


def _recorded(network: Callable, example: Tensor, rewritten: dict[Any, Callable]) -> fx.GraphModule:
    record = make_fx(
        functionalize(network, remove="mutations"),
        decomposition_table=rewritten,
        tracing_mode="fake",
        _allow_non_fake_inputs=True,
    )
    return record(example)


def _mutating(graph: fx.GraphModule) -> fx.Node | None:
    """The first node that changes a value in place: what it writes would be missed."""
    for node in graph.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable:
            return node
    return None


def _with_marks(network: nn.Module) -> tuple[nn.Module, list[str]]:
    """Let every innermost layer mark its input and its output in the graph; the list fills with their names."""
    marks: list[str] = []

    def mark(value: object, name: str) -> object:
        if not isinstance(value, Tensor):
            return value
        marks.append(name)
        return MARK(value)

    for name, module in network.named_modules():
        if hasattr(module, "inplace"):
            module.inplace = False
        if list(module.children()) or isinstance(module, torch.jit.ScriptModule):
            continue
        kind = type(module).__name__
        label = f"layer '{name}' ({kind})" if name else f"the network ({kind})"
        if not type(module).__module__.startswith("torch.nn"):
            label += ": "
        module.register_forward_pre_hook(
            lambda module, inputs, label=label: (mark(inputs[0], label), *inputs[1:])
        )
        module.register_forward_hook(lambda module, inputs, output: mark(output, ""))
    return network, marks


def _layers(graph: fx.GraphModule, marks: list[str]) -> dict[fx.Node, str]:
    """Which layer each node belongs to, by the marks around it."""
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    if sum(node.target is MARK for node in nodes) != len(marks):
        return {}
    current, following, found = "", iter(marks), {}
    for node in nodes:
        if node.target is MARK:
            current = next(following)
        elif current:
            found[node] = current
    return found
