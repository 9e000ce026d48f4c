"""Activations written out by hand or by an exporter, recognised as one: x * 0.5 * (1 + erf(x / sqrt(2))) and the like.

A product of two values that depend on the input is not affine. Where both are functions of one and the same value,
each entry of its own, the product is an activation: those below are known with their curvature, for any constants.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from baselines.layered.operators import MISH, Activation, aten

DEGREE = 3
# Hendrycks and Gimpel (2016): GELU by tanh is x sigmoid(2 INNER (x + CUBIC x^3)); curvature and valley hold within 1 %.
INNER, CUBIC = math.sqrt(2 / math.pi), 0.044715
NEAR = 0.01
SAME = (aten.clone.default, aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default)

Polynomial = tuple[float, ...]


def gate(node: fx.Node, constants: Mapping[fx.Node, float]) -> tuple[fx.Node, Activation] | None:
    """The value and the activation of it that a node is, None if it is no known one.

    constants: the nodes that hold one number, and the number.
    """
    known = _Known(constants)
    for base, found in known.activations(node):
        if tuple(base.meta["val"].shape) == tuple(node.meta["val"].shape):
            return base, found
    return None


def numbers_of(graph: fx.GraphModule) -> dict[fx.Node, float]:
    """The nodes of a graph that hold one number, whatever the input is."""
    found: dict[fx.Node, float] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            value = getattr(graph, node.target)
            if isinstance(value, Tensor) and value.numel() == 1 and value.dtype.is_floating_point:
                found[node] = float(value)
        elif node.target in SAME and node.args[0] in found:
            found[node] = found[node.args[0]]
    return found


class _Known:
    """Looks at nodes as polynomials of other nodes, and at products of them as activations."""

    def __init__(self, constants: Mapping[fx.Node, float]) -> None:
        self.constants = constants

    def activations(self, node: fx.Node) -> Iterator[tuple[fx.Node, Activation]]:
        if node.target is aten.mul.Tensor:
            for plain, gated in (node.args, node.args[::-1]):
                if not isinstance(plain, fx.Node) or not isinstance(gated, fx.Node):
                    continue
                for base in self._below(plain):
                    found = self._product(self._polynomial(plain, base), gated, base)
                    if found is not None:
                        yield base, found
        elif node.target is aten.where.self:
            chosen = self._choice(*node.args)
            if chosen is not None:
                yield chosen

    def _product(self, factor: Polynomial | None, gated: fx.Node, base: fx.Node) -> Activation | None:
        """k v (p + q f(...v...)) for the value v of ``base``."""
        if factor is None or factor[1] <= 0 or any(factor[:1] + factor[2:]):
            return None
        p, q, core = self._affine_of(gated)
        if not isinstance(core, fx.Node) or q == 0:
            return None
        if core.target is aten.tanh.default and p == 0 and self._softplus_of(core.args[0], base):
            return _scaled(MISH, factor[1] * q) if q > 0 else None
        if core.target is aten.relu.default:
            return self._clamped(factor[1] * p, factor[1] * q, core.args[0], base)
        inner = self._polynomial(core.args[0], base) if core.args else None
        return None if inner is None else _sigmoidal(factor[1] * p, factor[1] * q, core.target, inner)

    def _clamped(self, p: float, q: float, argument: Any, base: fx.Node) -> Activation | None:
        """v (p + q relu(s + t relu(a v + b))), which is v times a clamp between 0 and p."""
        s, t, core = self._affine_of(argument)
        if not isinstance(core, fx.Node) or core.target is not aten.relu.default or t != -1:
            return None
        inner = self._polynomial(core.args[0], base)
        if inner is None or any(inner[2:]) or q >= 0 or p != -q * s:
            return None
        b, a = inner[:2]
        return _ramp(-q * a, -q * b, p) if a > 0 and 0 < b < s else None

    def _choice(self, asked: Any, above: Any, below: Any) -> tuple[fx.Node, Activation] | None:
        """v where it is greater than a number, else softplus(v); or two slopes that meet in 0."""
        asked = self._through(asked)
        if not isinstance(asked, fx.Node) or asked.target not in (
            aten.gt.Scalar,
            aten.gt.Tensor,
            aten.ge.Scalar,
        ):
            return None
        base, limit = asked.args[0], self._number(asked.args[1])
        if limit is None or not isinstance(base, fx.Node):
            return None
        base = self._through(base)
        if limit >= 20 and self._through(above) is base and self._softplus_of(below, base):
            return base, Activation(
                lambda z: torch.where(z > limit, z, functional.softplus(z, threshold=1e9)),
                0.2501,
                step=math.exp(-limit),
            )
        rising, falling = self._polynomial(above, base), self._polynomial(below, base)
        if limit != 0 or rising is None or falling is None:
            return None
        if any(any(part[:1] + part[2:]) or part[1] < 0 for part in (rising, falling)):
            return None
        up, down = rising[1], falling[1]
        return base, Activation(
            lambda z: torch.where(z > 0, up * z, down * z), 0.0, jump=abs(up - down), steepest=max(up, down)
        )

    def _softplus_of(self, node: Any, base: fx.Node) -> bool:
        node = self._through(node)
        if not isinstance(node, fx.Node):
            return False
        if node.target is aten.where.self:
            found = self._choice(*node.args)
            return found is not None and found[0] is base and bool(found[1].step > 0)
        usual = node.target is aten.softplus.default and (len(node.args) < 2 or bool(node.args[1] == 1))
        return usual and self._through(node.args[0]) is base

    def _below(self, node: fx.Node) -> Iterator[fx.Node]:
        """The node and what it is a multiple of, and so on."""
        while isinstance(node, fx.Node):
            yield node
            before = self._through(node)
            if before is node:
                offset, _, before = self._affine_of(node, once=True)
                if offset != 0 or before is node:
                    return
            node = before

    def _affine_of(self, node: Any, once: bool = False) -> tuple[float, float, Any]:
        """p, q and the node that it is p + q times."""
        p, q = 0.0, 1.0
        while isinstance(node, fx.Node):
            step = self._step(node)
            if step is None:
                break
            offset, factor, node = step
            p, q = p + q * offset, q * factor
            if once:
                break
        return p, q, node

    def _step(self, node: fx.Node) -> tuple[float, float, Any] | None:
        """One operation with a number: offset, factor and the node it works on."""
        kind, args = node.target, node.args
        if kind in SAME:
            return 0.0, 1.0, args[0]
        if kind is aten.neg.default:
            return 0.0, -1.0, args[0]
        if node.kwargs or len(args) != 2:
            return None
        left, right = self._number(args[0]), self._number(args[1])
        if left is None and right is not None:
            number, other = right, args[0]
        elif left is not None and right is None:
            number, other = left, args[1]
        else:
            return None
        if kind in (aten.add.Tensor, aten.add.Scalar):
            return number, 1.0, other
        if kind in (aten.mul.Tensor, aten.mul.Scalar):
            return 0.0, number, other
        if kind in (aten.sub.Tensor, aten.sub.Scalar):
            return (-number, 1.0, other) if left is None else (number, -1.0, other)
        if kind in (aten.rsub.Scalar, aten.rsub.Tensor):
            return (number, -1.0, other) if left is None else (-number, 1.0, other)
        if kind in (aten.div.Tensor, aten.div.Scalar) and left is None and number != 0:
            return 0.0, 1 / number, other
        return None

    def _polynomial(self, node: Any, base: fx.Node) -> Polynomial | None:
        """Coefficients of a node as a polynomial of another, the constant first."""
        number = self._number(node)
        if number is not None:
            return _padded([number])
        if not isinstance(node, fx.Node):
            return None
        if node is base:
            return _padded([0.0, 1.0])
        step = self._step(node)
        if step is not None:
            offset, factor, before = step
            found = self._polynomial(before, base)
            return found and (offset + factor * found[0], *(factor * part for part in found[1:]))
        args = node.args
        if node.target is aten.pow.Tensor_Scalar and args[1] in (2, 3):
            return _product([self._polynomial(args[0], base)] * (2 if args[1] == 2 else 3))
        if node.target is aten.mul.Tensor:
            return _product([self._polynomial(part, base) for part in args])
        if node.target is aten.add.Tensor and not node.kwargs:
            parts = [self._polynomial(part, base) for part in args]
            return None if None in parts else tuple(map(sum, zip(*parts, strict=True)))
        return None

    def _number(self, value: Any) -> float | None:
        if isinstance(value, fx.Node):
            return self.constants.get(value)
        return float(value) if isinstance(value, int | float) else None

    def _through(self, node: Any) -> Any:
        while isinstance(node, fx.Node) and node.target in SAME:
            node = node.args[0]
        return node


def _padded(coefficients: Sequence[float]) -> Polynomial:
    return (*coefficients, *[0.0] * (DEGREE + 1 - len(coefficients)))


def _product(factors: Sequence[Polynomial | None]) -> Polynomial | None:
    result = _padded([1.0])
    for factor in factors:
        if factor is None:
            return None
        parts = [0.0] * (2 * DEGREE + 1)
        for i, left in enumerate(result):
            for j, right in enumerate(factor):
                parts[i + j] += left * right
        if any(parts[DEGREE + 1 :]):
            return None
        result = tuple(parts[: DEGREE + 1])
    return result


def _sigmoidal(p: float, q: float, function: Any, inner: Polynomial) -> Activation | None:
    """v (p + q f(inner(v))): SiLU, GELU, or GELU by tanh, stretched."""
    offset, slope, square, cube = inner
    if q <= 0 or offset or square or slope <= 0:
        return None
    if function is aten.sigmoid.default and p == 0 and cube == 0:
        return _silu(q, slope)
    if p != q:
        return None
    if function is aten.tanh.default and cube == 0:
        return _silu(2 * q, 2 * slope)
    if function is aten.erf.default and cube == 0:
        return _stretched(lambda z: q * z * (1 + torch.erf(slope * z)), 2 * q, math.sqrt(2) * slope)
    if function is aten.tanh.default:
        stretch = slope / INNER
        if abs(cube / (slope * stretch**2) / CUBIC - 1) > NEAR:
            return None
        return _stretched(lambda z: q * z * (1 + torch.tanh(slope * z + cube * z**3)), 2 * q, stretch)
    return None


def _silu(height: float, stretch: float) -> Activation:
    """height v sigmoid(stretch v)."""
    return Activation(
        lambda z: height * z * torch.sigmoid(stretch * z),
        0.5001 * height * stretch,
        (-1.29 / stretch, -1.26 / stretch, -0.2786 * height / stretch),
        steepest=1.1 * height,
    )


def _stretched(function: Callable[[Tensor], Tensor], height: float, stretch: float) -> Activation:
    """height gelu(stretch v) / stretch, exact or by tanh."""
    return Activation(
        function,
        0.85 * height * stretch,
        (-0.78 / stretch, -0.72 / stretch, -0.1702 * height / stretch),
        steepest=1.2 * height,
    )


def _ramp(a: float, b: float, most: float) -> Activation:
    """v clamp(a v + b, 0, most), 0 < b < most: slopes jump where the clamp begins and ends."""
    return Activation(
        lambda z: z * (a * z + b).clamp(0.0, most),
        2 * a,
        (-b / (2 * a) - 1e-6 / a, -b / (2 * a) + 1e-6 / a, -b * b / (4 * a) * (1 + 1e-12)),
        jump=most,
        steepest=2 * most - b,
    )


def _scaled(known: Activation, height: float) -> Activation:
    assert known.valley is not None and known.curvature is not None
    before, after, value = known.valley
    return Activation(
        lambda z: height * known.function(z),
        known.curvature * height,
        (before, after, value * height),
        steepest=known.steepest * height,
    )
