"""Small convex programs, batched: the nearest point that satisfies a handful of tangent cuts.

minimise ‖δ‖_p subject to m_j + a_j · δ <= 0 for every cut j and lower <= δ <= upper

Only the multipliers λ_j >= 0 of the cuts and a rough δ are wanted: any λ gives a valid radius elsewhere, so a few
Newton steps on the K x K system of the cuts do, and nothing here needs to be exact. ℓ2: Newton on the dual, where the
best δ for given λ is a clipped -Σ λ_j a_j. ℓ1 and ℓ∞: interior points; in ℓ1 on the coordinates with the steepest
cuts, as others would not move, and in ℓ∞ at the radius certified so far.
"""

from dataclasses import replace

import torch
from torch import Tensor

from fcnn.interior_point import TINY, Cuts, L1Program, LinfProgram, longest, solve_rows

LONGEST_STEP = 10.0
L1_COORDINATES = 128
L1_ROOM = 4.0
L2_BARRIERS = (1e-2, 1e-3, 1e-4, 1e-5)
L2_FIRST_SLACK = 0.1


def solve(
    cuts: Cuts, weights: Tensor, norm: str, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Multipliers λ (N, K) and a perturbation δ (N, d), starting from ``weights`` (N, K) > 0; computed in ``dtype``."""
    cuts = cuts.within(LONGEST_STEP).to(dtype)
    solution = {"l1": _solve_l1, "l2": _solve_l2, "linf": _solve_linf}[norm](cuts, weights.to(dtype))
    found, step = (part.to(weights.dtype) for part in solution)
    sound = (found.isfinite().all(1) & step.isfinite().all(1))[:, None]
    return torch.where(sound, found, weights), torch.where(sound, step, 0.0)


def _solve_l2(cuts: Cuts, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Newton on the dual of min ‖δ‖²/2, with slacks s_j of the cuts and λ_j s_j driven to a falling barrier."""
    slack = torch.full_like(weights, L2_FIRST_SLACK)
    for barrier in L2_BARRIERS:
        wanted = -cuts.combine(weights)
        inside = ((wanted > cuts.lower) & (wanted < cuts.upper)).to(wanted.dtype)
        push = cuts.values(_clip(wanted, cuts)) + barrier / weights
        change = solve_rows(cuts.curvature(inside, slack, weights), push[:, :, None])[:, :, 0]
        slack_change = (barrier - slack * change) / weights - slack
        length = torch.minimum(longest(weights, change), longest(slack, slack_change))
        weights, slack = weights + length * change, slack + length * slack_change
    return weights, _clip(-cuts.combine(weights), cuts)


def _clip(step: Tensor, cuts: Cuts) -> Tensor:
    return torch.minimum(torch.maximum(step, cuts.lower), cuts.upper)


def _solve_linf(cuts: Cuts, weights: Tensor) -> tuple[Tensor, Tensor]:
    return LinfProgram(cuts, weights).solve()


def _solve_l1(cuts: Cuts, weights: Tensor) -> tuple[Tensor, Tensor]:
    chosen = _steepest(cuts)
    small = replace(
        cuts,
        slopes=cuts.slopes.gather(2, chosen[:, None].expand(-1, cuts.slopes.shape[1], -1)),
        lower=cuts.lower.gather(1, chosen),
        upper=cuts.upper.gather(1, chosen),
    )
    weights, step = L1Program(small, weights).solve()
    return weights, torch.zeros_like(cuts.lower).scatter(1, chosen, step)


def _steepest(cuts: Cuts) -> Tensor:
    """Indices (N, c) of the coordinates with the steepest cuts, enough of them to have room for any solution."""
    room = torch.maximum(cuts.upper, -cuts.lower)
    steepness = cuts.slopes.abs().amax(1) * (room > TINY)
    d, count = steepness.shape[1], L1_COORDINATES
    while count < d:
        chosen = steepness.topk(count, dim=1).indices
        if (room.gather(1, chosen).sum(1) >= L1_ROOM * cuts.radius[:, 0]).all():
            return chosen
        count *= 4
    return torch.arange(d, device=room.device).expand(len(room), d)
