"""Scores and gradients of a plain ConvexMLP without autograd, whose bookkeeping costs more than the sums of one input.

The sums are those of the network and of its backward pass; within a sum the order may be another, on which no bound on
rounding depends.
"""

import itertools
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from fcnn.convex_network import NonNegativeLinear
from fcnn.networks import ConvexMLP

# Gradients that pass a ReLU: those of units that are above 0.
threshold_backward = torch.ops.aten.threshold_backward.default
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class DenseTangents:
    """All weights on the input as one matrix (sum of widths, k), with the offsets; those on hidden units one by one.

    places: of each layer's units among all. passthrough: whether layers but the first have weights on the input.
    """

    on_input: Tensor
    offsets: Tensor
    on_hidden: tuple[Tensor, ...]
    places: tuple[slice, ...]
    passthrough: bool

    @classmethod
    def of(cls, network: nn.Module) -> Self | None:
        """Of a network whose every layer is as its class says; None for any other."""
        if type(network) is not ConvexMLP:
            return None
        hidden = list(network.hidden_layers)
        linear = [network.first, *network.passthroughs]
        holders: list[Any] = [network, network.hidden_layers, network.passthroughs]
        if not (
            all(type(layer) is NonNegativeLinear for layer in hidden)
            and all(type(layer) is nn.Linear for layer in linear)
            and all(_is_plain(module) for module in (*holders, *hidden, *linear))
        ):
            return None
        inputs, offsets, weights = network.to_arrays()
        ends = list(itertools.accumulate(len(offset) for offset in offsets))
        return cls(
            torch.cat(inputs if network.passthrough else inputs[:1]),
            torch.cat(offsets),
            tuple(weights),
            tuple(map(slice, [0, *ends[:-1]], ends)),
            network.passthrough,
        )

    def __call__(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N,), no threshold taken off, and gradients (N, *feature shape) at features (N, *feature shape)."""
        from_input = functional.linear(features.flatten(1), self.on_input)
        units = from_input[:, self.places[0]] + self.offsets[self.places[0]]
        active: list[Tensor] = []
        for place, weight in zip(self.places[1:], self.on_hidden, strict=True):
            active.append(units.relu_())
            # In the order in which the network adds, so that both cancel alike where numbers are huge.
            units = torch.addmm(self.offsets[place], units, weight.t())
            if self.passthrough:
                units += from_input[:, place]
        score = units
        # The last layer has one unit, and its slope in the units below is its weights.
        pull = torch.ones_like(score)
        pulls = [pull]
        for units, weight in zip(active[::-1], self.on_hidden[::-1], strict=True):
            pull = pull @ weight if len(pulls) > 1 else weight.expand(len(units), -1)
            pull = threshold_backward(pull, units, 0.0)
            pulls.append(pull)
        reaching = torch.cat(pulls[::-1], 1) if self.passthrough else pull
        return score[:, 0], (reaching @ self.on_input).view(features.shape)


def _is_plain(module: nn.Module) -> bool:
    """Whether a module computes what its class says: no hooks, no forward of its own."""
    own = vars(module)
    return "forward" not in own and not any(own[hooks] for hooks in HOOKS)
