"""Sub-domains: the pieces a query is split into."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

LAYERED = ("lower", "upper", "sign", "slope", "multiplier")


@dataclass
class Domains:
    """A batch of B sub-domains, each one query's region cut by signs of some hidden neurons.

    query: (B,) row of the region. lower, upper: per hidden layer (B, n_k) bounds on its pre-activations, valid on the
    part of the sub-domain where the score is <= 0. sign: per layer (B, n_k), +1 split active, -1 split inactive, 0
    free. slope (alpha), multiplier (beta): per layer (B, n_k), the variables of the bound found so far. bound: (B,)
    lower bound of the score, inf where the sub-domain holds no counterexample.
    """

    query: Tensor
    lower: list[Tensor]
    upper: list[Tensor]
    sign: list[Tensor]
    slope: list[Tensor]
    multiplier: list[Tensor]
    bound: Tensor

    def __len__(self) -> int:
        return len(self.query)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Domains":
        """Apply a function to every tensor."""
        return _build(lambda name: getattr(self, name), lambda value: function(value))

    def take(self, index: Tensor) -> "Domains":
        """The sub-domains at an index or mask."""
        return self.map(lambda value: value[index])

    def below(self, layer: int) -> "Domains":
        """The same sub-domains with the hidden layers before ``layer`` only."""
        return replace(self, **{name: getattr(self, name)[:layer] for name in LAYERED})


def _build(read: Callable, function: Callable) -> Domains:
    return Domains(
        query=function(read("query")),
        **{name: [function(value) for value in read(name)] for name in LAYERED},
        bound=function(read("bound")),
    )


def join(parts: Sequence[Domains]) -> Domains:
    """All sub-domains of several batches."""
    if len(parts) == 1:
        return parts[0]

    def columns(name: str) -> list:
        values = [getattr(part, name) for part in parts]
        return list(zip(*values, strict=True)) if isinstance(values[0], list) else values

    return _build(columns, torch.cat)
