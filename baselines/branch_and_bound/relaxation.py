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
TINY = 1e-100


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
        return LinearBound(
            self.direction[index],
            self.constant[index],
            self.value[index],
            self.minimiser[index],
            [value[index] for value in self.coefficients],
        )


@dataclass
class Lines:
    """What bounds relu(z) on [lower, upper], per hidden layer: slope * z <= relu(z) <= steep * z + offset.

    steep, offset: (B, n_k). least, most: (B, n_k) between which the slope is free: 0 and 1, or equal where z cannot
    change its sign.
    """

    steep: list[Tensor]
    offset: list[Tensor]
    least: list[Tensor]
    most: list[Tensor]

    @classmethod
    def of(cls, domains: Domains) -> "Lines":
        """The lines for the pre-activation bounds of sub-domains."""
        lines = cls([], [], [], [])
        for lower, upper in zip(domains.lower, domains.upper, strict=True):
            unstable = (lower < 0) & (upper > 0)
            active = (lower >= 0).to(lower.dtype)
            steep = torch.where(unstable, upper / (upper - lower).clamp(min=TINY), active)
            lines.steep.append(steep)
            lines.offset.append(torch.where(unstable, -lower * steep, 0.0))
            lines.least.append(active)
            lines.most.append(torch.where(unstable, 1.0, active))
        return lines


def propagate(
    chain: Chain, domains: Domains, lines: Lines, layer: int, rows: Tensor, constant: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Bound rows . h_{layer} + constant from below by a linear function of the input: (a (B, d), c (B,), coefficients).

    rows: (B, n) weights on the activations that follow hidden layer ``layer - 1`` (layer 0: on the input itself). The
    slopes of the sub-domains must lie between ``lines.least`` and ``lines.most``.
    """
    coefficients: list[Tensor] = []
    for k in range(layer - 1, -1, -1):
        coefficients.append(rows)
        negative = rows.clamp(max=0)
        constant = constant + (negative * lines.offset[k]).sum(1)
        rows = (rows - negative) * domains.slope[k] + negative * lines.steep[k]
        rows = rows - domains.sign[k] * domains.multiplier[k]
        constant = constant + rows @ chain.biases[k]
        rows = rows @ chain.weights[k]
    return rows, constant, coefficients[::-1]


def fit_slopes(domains: Domains, lines: Lines) -> None:
    """Move slopes into the range that the bounds leave them, in place."""
    for k, slope in enumerate(domains.slope):
        domains.slope[k] = torch.clamp(slope, lines.least[k], lines.most[k])


def bound_score(chain: Chain, region: Region, domains: Domains, lines: Lines | None = None) -> LinearBound:
    """Lower bound of the score on each sub-domain, ``region`` holding one row per sub-domain (or one for all).

    Without ``lines`` they are made, and the slopes fitted to them, first.
    """
    if lines is None:
        lines = Lines.of(domains)
        fit_slopes(domains, lines)
    rows, constant = _score_rows(chain, len(domains))
    direction, constant, coefficients = propagate(chain, domains, lines, chain.depth, rows, constant)
    constant = constant + (direction * region.center).sum(1)
    with torch.no_grad():
        minimiser, slack = region.minimise(direction)
    value = constant + (direction * minimiser).sum(1) + slack
    return LinearBound(direction, constant, value, minimiser, coefficients)


def ascend(
    chain: Chain, region: Region, domains: Domains, steps: int, enough: Tensor
) -> tuple[LinearBound, Tensor]:
    """Improve slopes and multipliers by projected Adam; leaves the best found in ``domains`` and returns their bound.

    Also returns the mean (B, d) of the minimisers met, later ones weighing more, which tends to a minimiser of the
    relaxed problem as a whole, where each alone is only a corner of the region.

    Stops early when every bound exceeds ``enough`` (B,). The value of any slopes in their range and multipliers >= 0 is
    a valid bound, so nothing depends on convergence.
    """
    if chain.depth == 0:
        bound = bound_score(chain, region, domains)
        return bound, bound.minimiser
    lines = Lines.of(domains)
    fit_slopes(domains, lines)
    scales = _multiplier_scales(chain, domains, lines)
    slopes = [value.clone().requires_grad_() for value in domains.slope]
    multipliers = [(v / scale).requires_grad_() for v, scale in zip(domains.multiplier, scales, strict=True)]
    variables = slopes + multipliers
    adam = torch.optim.Adam(variables, lr=LEARNING_RATE)
    best = torch.full_like(domains.bound, -torch.inf)
    average = torch.zeros_like(region.center)
    for step in range(steps + 1):
        with torch.enable_grad():
            scaled = [value * scale for value, scale in zip(multipliers, scales, strict=True)]
            trial = replace(domains, slope=slopes, multiplier=scaled)
            bound = bound_score(chain, region, trial, lines)
            total = bound.value.sum()
        value = bound.value.detach()
        average = average + 2.0 / (step + 2.0) * (bound.minimiser - average)
        _keep(domains, trial, value > best)
        best = torch.maximum(best, value)
        if step == steps or bool((best > enough).all()):
            break
        for variable, gradient in zip(variables, torch.autograd.grad(total, variables), strict=True):
            variable.grad = -gradient
        adam.step()
        adam.param_groups[0]["lr"] *= LEARNING_RATE_DECAY
        with torch.no_grad():
            for k in range(chain.depth):
                slopes[k].clamp_(lines.least[k], lines.most[k])
                multipliers[k].clamp_(min=0)
    with torch.no_grad():
        return bound_score(chain, region, domains, lines), average


def _keep(domains: Domains, trial: Domains, better: Tensor) -> None:
    """Copy the variables of the sub-domains whose bound got better (B,) from ``trial``."""
    pick = better[:, None]
    for kept, tried in ((domains.slope, trial.slope), (domains.multiplier, trial.multiplier)):
        for k, value in enumerate(tried):
            kept[k] = torch.where(pick, value.detach(), kept[k])


def _score_rows(chain: Chain, count: int) -> tuple[Tensor, Tensor]:
    """The score as a linear function of the last hidden layer, once per sub-domain: rows (B, n), constant (B,)."""
    return chain.weights[-1].expand(count, -1), chain.biases[-1].expand(count)


def _multiplier_scales(chain: Chain, domains: Domains, lines: Lines) -> list[Tensor]:
    """Typical size (B, 1) of the score's weights on a layer, the natural unit of that layer's multipliers."""
    _, _, coefficients = propagate(chain, domains, lines, chain.depth, *_score_rows(chain, len(domains)))
    return [value.abs().mean(1, keepdim=True).clamp(min=TINY) for value in coefficients]
