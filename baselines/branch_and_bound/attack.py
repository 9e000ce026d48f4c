"""Search for counterexamples: conditional-gradient steps, which stay inside the region exactly.

Source: Frank and Wolfe 1956; Chen et al. 2020 (Frank-Wolfe attacks). Each step moves towards the minimiser of the
linearised score over the region, so sparse steps in l1 and the unit box need no projection.
"""

import torch
from torch import Tensor

from baselines.branch_and_bound.chain import Chain
from baselines.branch_and_bound.region import ORDER, Region

JUMPS = 3


def descend(chain: Chain, region: Region, delta: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Lower the score from delta (N, d) inside the region; returns the best delta and its score (N,).

    The first steps jump to the linearised minimiser, which is right where the score is concave; later ones shorten.
    """
    best, best_score = delta, torch.full_like(delta[:, 0], torch.inf)
    for step in range(steps + 1):
        score, gradient = chain.score_and_gradient(region.center + delta)
        better = score < best_score
        best = torch.where(better[:, None], delta, best)
        best_score = torch.where(better, score, best_score)
        if step == steps or bool((best_score <= 0).all()):
            break
        vertex, _ = region.minimise(gradient)
        length = 1.0 if step < JUMPS else 2.0 / (step - JUMPS + 2.0 + JUMPS)
        delta = delta + length * (vertex - delta)
    return best, best_score


def search(chain: Chain, region: Region, restarts: int, steps: int, seed: int) -> Tensor:
    """Attack from the centre and from random extreme points; best delta found (N, d)."""
    generator = torch.Generator().manual_seed(seed)
    best, best_score = descend(chain, region, torch.zeros_like(region.center), steps)
    for _ in range(restarts):
        if bool((best_score <= 0).all()):
            break
        noise = torch.randn(region.center.shape, generator=generator, dtype=torch.float64)
        found, score = descend(chain, region, region.minimise(noise.to(region.center.device))[0], steps)
        better = score < best_score
        best = torch.where(better[:, None], found, best)
        best_score = torch.where(better, score, best_score)
    return best


def counterexamples(chain: Chain, region: Region, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Pull delta (N, d) safely inside the region; returns the points (N, d) and whether (N,) their score is <= 0."""
    delta = torch.maximum(torch.minimum(delta, region.upper), region.lower)
    norm = torch.linalg.vector_norm(delta, ord=ORDER[region.norm], dim=1, keepdim=True)
    delta = delta * (region.radius / norm.clamp(min=1e-300)).clamp(max=1.0)
    points = region.center + delta
    return points, chain.score(points) <= 0
