"""How the tensors of a recorded pass depend on the features, operation by operation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fcnn.tape import Call, tensors_in

AFFINE, CONVEX, CONCAVE = 0, 1, -1


class NotProved(ValueError):
    """An operation or a weight with which a score is not known to be convex."""


@dataclass(frozen=True)
class Bound:
    """How a tensor depends on the features, and a bound of its shape on the sums of its terms' absolute values."""

    curvature: int
    size: Tensor


class Interpreter:
    """Bounds of all tensors of a pass, by the rules of its operations."""

    def __init__(
        self, rules: Mapping[Any, Callable[..., Any]], features: Tensor, magnitude: Tensor, own_pattern: bool
    ) -> None:
        self.rules, self.count, self.own_pattern = rules, len(features), own_pattern
        # None: depends on the features in a way that no rule follows, such as the indices of a maximum.
        self.bounds: dict[int, Bound | None] = {id(features): Bound(AFFINE, magnitude)}
        self.roundings = 0
        self.call: Call

    def take(self, call: Call) -> None:
        """Bound the results of one more operation."""
        if not any(id(tensor) in self.bounds for tensor in call.tensors()):
            return
        self.call = call
        rule = self.rules.get(call.function.overloadpacket)
        if rule is None or call.function._schema.is_mutable:
            known = ", ".join(sorted({str(known).removeprefix("aten.") for known in self.rules}))
            raise self.refusal(
                f"the operation {call.name} is not known to keep a score convex", f"known are {known}"
            )
        found = rule(self, *call.args, **call.kwargs)
        results = list(tensors_in(call.result))
        found = found if isinstance(found, list) else [found] + [None] * (len(results) - 1)
        for tensor, bound in zip(results, found, strict=True):
            if bound is not None and (tensor.shape[0] != self.count or bound.size.shape != tensor.shape):
                raise self.mixed()
            self.bounds[id(tensor)] = bound

    def bound(self, value: Any) -> Bound:
        """The bound of a tensor that must depend on the features."""
        found = self.bounds.get(id(value))
        if found is None:
            raise self.refusal(
                f"the operation {self.call.name} is not known to be convex in this argument",
                "let weights act on what comes from the features",
            )
        return found

    def bound_or_size(self, value: Any) -> Bound:
        """The bound of a tensor or number that may be a constant."""
        if isinstance(value, Tensor):
            return self.bound(value) if id(value) in self.bounds else Bound(AFFINE, value.abs())
        return Bound(AFFINE, torch.tensor(abs(value), dtype=torch.float64))

    def constant(self, value: Any) -> Tensor:
        """A factor that must not depend on the features."""
        if isinstance(value, Tensor) and id(value) in self.bounds:
            raise self.refusal(
                f"the operation {self.call.name} takes a product of two values that depend on the features",
                "only products with weights are convex",
            )
        return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)

    def times(self, curvature: int, factor: Tensor) -> int:
        """Curvature after a product with this constant."""
        if curvature == AFFINE or bool((factor >= 0).all()):
            return curvature
        if bool((factor <= 0).all()):
            return -curvature
        raise self.refusal(
            f"a weight that acts on hidden units is {float(factor.min())}, so the score is not convex",
            "weights there must be >= 0: build hidden layers from NonNegativeLinear, NonNegativeConv2d and "
            "NonNegativeBatchNorm2d and call project() after every training step",
        )

    def plus(self, *curvatures: int) -> int:
        """Curvature of a sum, or of parts side by side."""
        bent = {curvature for curvature in curvatures if curvature != AFFINE}
        if len(bent) == 2:
            raise self.refusal(
                "a convex and a concave part meet, so the score is not convex", "add convex parts only"
            )
        return bent.pop() if bent else AFFINE

    def at_most_convex(self, *curvatures: int) -> int:
        """CONVEX, for a maximum of convex parts."""
        if CONCAVE in curvatures:
            raise self.refusal(
                f"the operation {self.call.name} acts on a concave part, so the score is not convex",
                "weights on hidden units must be >= 0",
            )
        return CONVEX

    def within_inputs(self, size: Tensor, *dims: int) -> None:
        """Refuse to reduce or move the batch dimension."""
        if any(dim % max(size.dim(), 1) == 0 for dim in dims):
            raise self.mixed()

    def rounds(self, count: int) -> None:
        """Count the roundings that one more operation can add to a term, forwards and backwards."""
        self.roundings += count + 2

    def spread(self, x: Any) -> int:
        """How many times a value is used by an operation that broadcasts it."""
        return self.call.result.numel() // x.numel() if isinstance(x, Tensor) and x.numel() else 1

    def mixed(self) -> NotProved:
        """The error of an operation across the batch."""
        return self.refusal(f"the operation {self.call.name} mixes the inputs of a batch", "keep them apart")

    def refusal(self, what: str, instead: str) -> NotProved:
        """The error that names the layer."""
        return NotProved(f"layer {self.call.layer}: {what}, and nothing can be certified; {instead}")
