"""Which neuron to split.

Source: Bunel et al. 2020 (BaBSR), De Palma et al. 2021 (filtered smart branching): score all splits cheaply, then
bound the children of the best few and take the one whose worse child is best.
"""

import torch
from torch import Tensor

from baselines.branch_and_bound.chain import Chain
from baselines.branch_and_bound.domains import Domains, join
from baselines.branch_and_bound.region import Region
from baselines.branch_and_bound.relaxation import LinearBound, ascend

TRIAL_STEPS = 2


def scores(chain: Chain, region: Region, domains: Domains, bound: LinearBound) -> Tensor:
    """What the relaxation of each neuron gives away at the relaxed minimiser, (B, all neurons); 0 if nothing.

    The sum of these is the gap between the bound and the score, and a split closes its own neuron's share.
    """
    values = chain.preactivations(region.center + bound.minimiser)[:-1]
    shares = []
    for z, lower, upper, weight in zip(values, domains.lower, domains.upper, bound.coefficients, strict=True):
        unstable = (lower < 0) & (upper > 0)
        line = upper * (z - lower) / (upper - lower).clamp(min=1e-300)
        at_point = (line - z.relu()).clamp(min=0)
        worst = -lower * upper / (upper - lower).clamp(min=1e-300)
        share = -weight.clamp(max=0) * (at_point + 0.1 * worst)
        shares.append(torch.where(unstable, share, 0.0))
    return torch.cat(shares, dim=1)


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


def choose(
    chain: Chain, region: Region, domains: Domains, bound: LinearBound, candidates: int
) -> tuple[Tensor, Tensor]:
    """A neuron (B,) to split in each sub-domain, and whether (B,) there is one."""
    share = scores(chain, region.take(domains.query), domains, bound)
    count = min(candidates, share.shape[1])
    value, neuron = share.topk(count, dim=1)
    possible = value[:, 0] > 0
    if count == 1:
        return neuron[:, 0], possible
    trials = [split(domains, neuron[:, rank]) for rank in range(count)]
    children = join(trials)
    enough = torch.full_like(children.bound, torch.inf)
    trial = ascend(chain, region.take(children.query), children, TRIAL_STEPS, enough).value
    trial = trial.reshape(count, 2, len(domains)).clamp(max=0)
    merit = trial.amin(1) + 1e-3 * trial.sum(1)
    merit = torch.where(value.T > 0, merit, -torch.inf)
    return neuron.gather(1, merit.argmax(0)[:, None])[:, 0], possible
