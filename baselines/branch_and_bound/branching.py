"""Which neuron to split, and the two halves.

Source: Bunel et al. 2020 (BaBSR): the intercept that a neuron's upper line adds to the bound, which a split removes.
"""

import torch
from torch import Tensor

from baselines.branch_and_bound.domains import Domains, join
from baselines.branch_and_bound.relaxation import LinearBound, Lines


def costly_neuron(domains: Domains, bound: LinearBound) -> tuple[Tensor, Tensor]:
    """The neuron (B,) whose relaxation costs each sub-domain's bound most, and whether (B,) any costs something."""
    costs = [
        -weight.clamp(max=0) * intercept
        for weight, intercept in zip(bound.coefficients, _intercepts(domains), strict=True)
    ]
    return _largest(domains, costs)


def unstable_neuron(domains: Domains) -> tuple[Tensor, Tensor]:
    """The neuron (B,) that is furthest from linear, whatever its weight now, and whether (B,) any is not linear."""
    return _largest(domains, _intercepts(domains))


def _intercepts(domains: Domains) -> list[Tensor]:
    """Offsets (B, n_k) of the upper lines; 0 where the neuron is linear."""
    return Lines.of(domains).offset


def _largest(domains: Domains, values: list[Tensor]) -> tuple[Tensor, Tensor]:
    nothing = torch.zeros_like(domains.bound)[
        :, None
    ]  # a network without a hidden layer has nothing to split
    value, neuron = torch.cat([*values, nothing], dim=1).max(1)
    return neuron, value > 0


def split(domains: Domains, neuron: Tensor) -> Domains:
    """The two halves of each sub-domain at one of its neurons (B,), all active halves first."""
    halves = []
    for active in (True, False):
        half = domains.map(torch.clone)
        start = 0
        for lower, upper, sign in zip(half.lower, half.upper, half.sign, strict=True):
            width = lower.shape[1]
            row = ((neuron >= start) & (neuron < start + width)).nonzero()[:, 0]
            column = neuron[row] - start
            (lower if active else upper)[row, column] = 0.0
            sign[row, column] = 1.0 if active else -1.0
            start += width
        halves.append(half)
    return join(halves)
