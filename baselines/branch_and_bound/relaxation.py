"""Linear relaxations of a chain: lower bounds with slopes (alpha) and split multipliers (beta), and their ascent.

Source: Zhang et al. 2018 (CROWN), Xu et al. 2021 (alpha: optimised slopes), Wang et al. 2021 (beta: multipliers of
the split constraints), all in the notation a . delta + c for a linear lower bound of the score.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from baselines.branch_and_bound.chain import Chain
from baselines.branch_and_bound.domains import Domains
from baselines.branch_and_bound.region import Region

LEARNING_RATE = 0.1
LEARNING_RATE_DECAY = 0.97


@dataclass
class LinearBound:
    """score(center + delta) >= direction . delta + constant on a sub-domain, for each of B sub-domains.

    direction: (B, d); constant: (B,); value: (B,) its minimum over the region; minimiser: (B, d) where it is taken;
    coefficients: per hidden layer (B, n_k) weights on its activations h_k, before the layer's relaxation.
    """

    direction: Tensor
    constant: Tensor
    value: Tensor
    minimiser: Tensor
    coefficients: list[Tensor]

    def take(self, index: Tensor) -> "LinearBound":
        """The rows at an index or mask."""
        parts = (self.direction, self.constant, self.value, self.minimiser)
        return LinearBound(*(part[index] for part in parts), [value[index] for value in self.coefficients])


def propagate(
    chain: Chain, domains: Domains, layer: int, rows: Tensor, constant: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Bound rows . h_{layer} + constant from below by a linear function of the input: (a (B, d), c (B,), coefficients).

    rows: (B, n) weights on the activations that follow hidden layer ``layer - 1`` (layer 0: on the input itself).
    """
    coefficients: list[Tensor] = []
    for k in range(layer - 1, -1, -1):
        coefficients.append(rows)
        lower, upper = domains.lower[k], domains.upper[k]
        unstable = (lower < 0) & (upper > 0)
        active = (lower >= 0).to(rows.dtype)
        steep = torch.where(unstable, upper / (upper - lower).clamp(min=1e-300), active)
        offset = torch.where(unstable, -lower * steep, 0.0)
        negative = rows.clamp(max=0)
        constant = constant + (negative * offset).sum(1)
        shallow = torch.where(unstable, domains.slope[k], active)
        rows = rows.clamp(min=0) * shallow + negative * steep - domains.sign[k] * domains.multiplier[k]
        constant = constant + rows @ chain.biases[k]
        rows = rows @ chain.weights[k]
    return rows, constant, coefficients[::-1]


def bound_score(chain: Chain, region: Region, domains: Domains) -> LinearBound:
    """Lower bound of the score on each sub-domain, ``region`` holding one row per sub-domain (or one for all)."""
    count = len(domains)
    rows, constant = chain.weights[-1].expand(count, -1), chain.biases[-1].expand(count)
    direction, constant, coefficients = propagate(chain, domains, chain.depth, rows, constant)
    constant = constant + (direction * region.center).sum(1)
    with torch.no_grad():
        minimiser, slack = region.minimise(direction)
    value = constant + (direction * minimiser).sum(1) + slack
    return LinearBound(direction, constant, value, minimiser, coefficients)


def ascend(chain: Chain, region: Region, domains: Domains, steps: int, enough: Tensor) -> LinearBound:
    """Improve slopes and multipliers by projected Adam; leaves the best found in ``domains`` and returns their bound.

    Stops early when every bound exceeds ``enough`` (B,). The value of any slopes in [0, 1] and multipliers >= 0 is a
    valid bound, so nothing depends on convergence.
    """
    scales = _multiplier_scales(chain, domains)
    slopes = [value.clone().requires_grad_() for value in domains.slope]
    multipliers = [(v / scale).requires_grad_() for v, scale in zip(domains.multiplier, scales, strict=True)]
    adam = torch.optim.Adam(slopes + multipliers, lr=LEARNING_RATE)
    best = torch.full_like(domains.bound, -torch.inf)
    for step in range(steps + 1):
        with torch.enable_grad():
            scaled = [value * scale for value, scale in zip(multipliers, scales, strict=True)]
            value = bound_score(chain, region, replace(domains, slope=slopes, multiplier=scaled)).value
            total = value.sum()
        with torch.no_grad():
            better = (value > best)[:, None]
            best = torch.maximum(best, value)
            for k in range(chain.depth):
                domains.slope[k] = torch.where(better, slopes[k].detach(), domains.slope[k])
                domains.multiplier[k] = torch.where(better, scaled[k].detach(), domains.multiplier[k])
        if step == steps or bool((best > enough).all()):
            break
        gradients = torch.autograd.grad(total, slopes + multipliers)
        for variable, gradient in zip(slopes + multipliers, gradients, strict=True):
            variable.grad = -gradient
        adam.step()
        _decay(adam)
        with torch.no_grad():
            for slope, multiplier in zip(slopes, multipliers, strict=True):
                slope.clamp_(0, 1)
                multiplier.clamp_(min=0)
    with torch.no_grad():
        return bound_score(chain, region, domains)


def _decay(adam: torch.optim.Optimizer) -> None:
    for group in adam.param_groups:
        group["lr"] *= LEARNING_RATE_DECAY


def _multiplier_scales(chain: Chain, domains: Domains) -> list[Tensor]:
    """Typical size (B, 1) of the score's weights on a layer, the natural unit of that layer's multipliers."""
    count = len(domains)
    rows, constant = chain.weights[-1].expand(count, -1), chain.biases[-1].expand(count)
    _, _, coefficients = propagate(chain, domains, chain.depth, rows, constant)
    return [value.abs().mean(1, keepdim=True).clamp(min=1e-12) for value in coefficients]
