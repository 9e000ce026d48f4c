"""Products of two values that both depend on the input, such as squeeze-excite gates, written with squares.

u v = (u - c)(v - d) + d u + c v - c d, and of p = s (u - c) and q = (v - d) / s the product p q is, exactly,
((p + q) / 2)^2 - ((p - q) / 2)^2, whatever s, c and d are; a square is an activation like others. The parallel lines
around both squares are (w + w')^2 / 8 apart where p and q move by w and w', McCormick's planes around p q are w w' / 2
(Computability of global solutions to factorable nonconvex programs, Mathematical Programming 10, 1976): as much where
w = w'. Hence s evens out how far the factors move over random inputs, and c and d are their means there, so that
differences of squares lose few digits. s is a power of two and c and d have half of the digits: c d is exact.
"""

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx

from baselines.layered.operators import aten
from baselines.layered.tracing import BATCH


def with_squares(
    graph: fx.GraphModule,
    nodes: Collection[fx.Node],
    input_shape: tuple[int, ...],
    device: torch.device,
) -> bool:
    """Rewrite in place those of the nodes that multiply two values of the input; whether there are any."""
    live: set[fx.Node] = set()
    products = []
    for node in graph.graph.nodes:
        if node.op == "placeholder" or live.intersection(node.all_input_nodes):
            live.add(node)
        if node in nodes and node.target is aten.mul.Tensor and live.issuperset(node.args):
            products.append(node)
    if products:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(BATCH, *input_shape, generator=generator, dtype=torch.float64).to(device)
        moves = _Moves(graph, products)
        moves.run(x)
        for node in products:
            _rewrite(graph.graph, node, *(moves.found[factor] for factor in node.args))
    return bool(products)


class _Moves(fx.Interpreter):
    """Runs a graph and notes the mean of the factors of products, and how far they move over the inputs of a batch."""

    def __init__(self, graph: fx.GraphModule, products: Collection[fx.Node]) -> None:
        super().__init__(graph)
        self.wanted = {factor for node in products for factor in node.args}
        self.found: dict[Any, tuple[float, float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.wanted and isinstance(value, Tensor):
            center = float(value.mean().float())
            self.found[n] = (center if math.isfinite(center) else 0.0, float(value.std(dim=0).mean()))
        return value


def _scale(first: float, second: float) -> float:
    """The power of two s for which s times the first is about the second over s."""
    if not (0 < first < math.inf and 0 < second < math.inf):
        return 1.0
    return 2.0 ** round(math.log2(second / first) / 2)


def _rewrite(graph: fx.Graph, node: fx.Node, first: tuple[float, float], second: tuple[float, float]) -> None:
    """Make the sum of squares and multiples out of a product of factors with these means and moves."""
    scale = _scale(first[1], second[1])

    def new(operator: Any, *args: Any) -> fx.Node:
        made = graph.call_function(operator, args)
        made.meta["val"] = node.meta["val"]  # its shape, which counts where a square closes a layer
        return made

    u, v = node.args
    c, d = first[0], second[0]
    with graph.inserting_before(node):
        p = new(aten.mul.Scalar, new(aten.sub.Scalar, u, c), scale / 2)
        q = new(aten.mul.Scalar, new(aten.sub.Scalar, v, d), 1 / (2 * scale))
        squares = [
            new(aten.pow.Tensor_Scalar, new(kind, p, q), 2) for kind in (aten.add.Tensor, aten.sub.Tensor)
        ]
        multiples = new(aten.add.Tensor, new(aten.mul.Scalar, u, d), new(aten.mul.Scalar, v, c))
        rest = new(aten.sub.Scalar, multiples, c * d)
        node.target, node.args = aten.add.Tensor, (new(aten.sub.Tensor, *squares), rest)
