"""Bounds on pre-activations, from the region alone or from the part of it that can hold a counterexample.

A sub-domain's linear bound a . delta + c <= score shows that counterexamples lie in the halfspace a . delta + c <= 0;
inside it the pre-activations range less, and tighter ranges mean a tighter bound. Source: Kotha et al. 2023 (provably
bounding preimages), here with one multiplier per neuron, found by cutting planes.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from baselines.branch_and_bound.chain import Chain
from baselines.branch_and_bound.domains import Domains
from baselines.branch_and_bound.region import Region
from baselines.branch_and_bound.relaxation import LinearBound, Lines, fit_slopes, propagate

CUTS = 4
ROW_ELEMENTS = 1 << 21


def initial_domains(chain: Chain, region: Region, queries: int) -> Domains:
    """One unsplit sub-domain per query, with the pre-activations bounded layer by layer (CROWN slopes)."""
    device = region.center.device
    empty = Domains(
        torch.arange(queries, device=device),
        [],
        [],
        [],
        [],
        [],
        torch.full((queries,), -torch.inf, device=device),
    )
    empty.bound = empty.bound.double()
    for k in range(chain.depth):
        shape = (queries, chain.weights[k].shape[0])
        for values in (empty.lower, empty.upper, empty.sign, empty.slope, empty.multiplier):
            values.append(torch.zeros(shape, dtype=torch.float64, device=device))
        everything = torch.ones(shape, dtype=torch.bool, device=device)
        empty.lower[k].fill_(-torch.inf)
        empty.upper[k].fill_(torch.inf)
        _tighten_layer(chain, region, empty, k, everything, None)
        empty.slope[k] = (empty.upper[k] > -empty.lower[k]).double()
    return empty


def tighten(
    chain: Chain, region: Region, domains: Domains, bound: LinearBound, slack: Sequence[Tensor]
) -> None:
    """Tighten in place the bounds of unstable neurons whose upper relaxation is in use, layer by layer.

    slack: what rounding may do to each layer's values, (B,) each, and last to the score: the linear bound of a
    counterexample may be computed as that much above 0. Sub-domains in which some neuron's range becomes empty by more
    than its slack hold no counterexample: their ``bound`` becomes inf.
    """
    halfspace = replace(bound, constant=bound.constant - slack[-1])
    for k in range(chain.depth):
        unstable = (domains.lower[k] < 0) & (domains.upper[k] > 0)
        _tighten_layer(chain, region, domains, k, unstable & (bound.coefficients[k] < 0), halfspace)
        crossing = (domains.lower[k] - domains.upper[k]).amax(1)
        domains.bound[crossing > slack[k]] = torch.inf
        domains.upper[k] = torch.maximum(domains.upper[k], domains.lower[k])


def _tighten_layer(
    chain: Chain, region: Region, domains: Domains, layer: int, which: Tensor, halfspace: LinearBound | None
) -> None:
    """Intersect the bounds of the neurons ``which`` (B, n_k) of a layer with newly computed ones."""
    owner, neuron = which.nonzero(as_tuple=True)
    size = max(1, ROW_ELEMENTS // max(weight.shape[1] for weight in chain.weights[: layer + 1]))
    for rows, neurons in zip(owner.split(size), neuron.split(size), strict=True):
        for side in (1.0, -1.0):
            least = _least(chain, region, domains, layer, rows, neurons, side, halfspace)
            bounds = domains.lower[layer] if side > 0 else domains.upper[layer]
            pick = torch.maximum if side > 0 else torch.minimum
            bounds[rows, neurons] = pick(bounds[rows, neurons], side * least)


def _least(
    chain: Chain,
    region: Region,
    domains: Domains,
    layer: int,
    rows: Tensor,
    neurons: Tensor,
    side: float,
    halfspace: LinearBound | None,
) -> Tensor:
    """Lower bounds (R,) of side * z for R neurons, each in its sub-domain ``rows``."""
    weight, bias = side * chain.weights[layer][neurons], side * chain.biases[layer][neurons]
    inside = domains.below(layer).take(rows)
    lines = Lines.of(inside)
    fit_slopes(inside, lines)
    direction, constant, _ = propagate(chain, inside, lines, layer, weight, bias)
    part = region.take(rows)
    constant = constant + (direction * part.center).sum(1)
    delta, slack = part.minimise(direction)
    value = (direction * delta).sum(1)
    if halfspace is None:
        return constant + value + slack
    return constant + _with_halfspace(part, direction, delta, value + slack, halfspace, rows)


def _with_halfspace(
    region: Region, direction: Tensor, delta: Tensor, free: Tensor, halfspace: LinearBound, rows: Tensor
) -> Tensor:
    """max over g >= 0 of min_delta (v + g a) . delta + g c, a concave function of g, by cutting planes.

    Every delta gives a line above that function; the next g is where a rising and a falling line meet. Any g is valid.
    """
    normal, constant = halfspace.direction[rows], halfspace.constant[rows]
    best = free
    rise, start = (normal * delta).sum(1) + constant, (direction * delta).sum(1)
    far = halfspace.minimiser[rows]
    fall, end = (normal * far).sum(1) + constant, (direction * far).sum(1)
    useful = (rise > 0) & (fall < 0)
    for _ in range(CUTS):
        weight = torch.where(useful, (end - start) / (rise - fall).clamp(min=1e-300), 0.0).clamp(min=0)
        mixed = direction + weight[:, None] * normal
        delta, slack = region.minimise(mixed)
        best = torch.maximum(best, (mixed * delta).sum(1) + slack + weight * constant)
        slope, height = (normal * delta).sum(1) + constant, (direction * delta).sum(1)
        rising = slope > 0
        rise, start = torch.where(rising, slope, rise), torch.where(rising, height, start)
        fall, end = torch.where(rising, fall, slope), torch.where(rising, end, height)
        useful = useful & (fall < 0)
    return best
