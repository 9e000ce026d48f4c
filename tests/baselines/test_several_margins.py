"""Networks of several margins, all of which must be positive: the radius is that of the one that fails first."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines.bounds import BoundedScore, RadiusSearch
from baselines.branch_and_bound import (
    Budget,
    CertifiedRange,
    Ending,
    certify,
    certify_all,
    to_chains,
    verify,
)

COUNT, STEPS = 3, 400
NORMS = {"l1": 1.0, "l2": 2.0, "linf": math.inf}


def network(margins: int, seed: int = 0) -> nn.Module:
    made = nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, margins)).double()
    generator = torch.Generator().manual_seed(seed)
    for value in made.parameters():
        value.data = torch.randn(value.shape, generator=generator, dtype=torch.float64)
    return made.requires_grad_(False)


def sensitive(made: nn.Module, count: int = COUNT) -> Tensor:
    x = torch.rand(4000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x[made(x).amin(dim=1) > 0.05][:count]


def nearest(made: nn.Module, x: Tensor, norm: str, reach: float) -> Tensor:
    """Distance (N,) to the nearest point of a fine grid that is not sensitive; inf where there is none."""
    steps = torch.linspace(-reach, reach, STEPS + 1, dtype=torch.float64)
    moves = torch.cartesian_prod(steps, steps)
    sizes = torch.linalg.vector_norm(moves, ord=NORMS[norm], dim=1)
    found = [sizes[made(point + moves).amin(dim=1) <= 0] for point in x]
    return torch.stack([part.min() if len(part) else torch.tensor(math.inf) for part in found])


@pytest.mark.parametrize("norm", NORMS)
def test_branch_and_bound_finds_the_margin_that_fails_first(norm):
    made = next(m for m in (network(3, seed) for seed in range(50)) if len(sensitive(m)) == COUNT)
    x = sensitive(made)
    budget, tolerance = Budget(max_domains=100), 5e-3
    found = certify_all(to_chains(made, (2,)), x, norm, budget=budget, tolerance=tolerance)
    each = [
        certify(chain, x, norm, budget=budget, tolerance=tolerance).radius for chain in to_chains(made, (2,))
    ]
    least = torch.stack(each).amin(dim=0)
    torch.testing.assert_close(found.radius, least, rtol=2 * tolerance, atol=1e-12)
    true = nearest(made, x, norm, 2 * float(least.max()))
    step = 2 * 2 * float(least.max()) / STEPS
    assert bool((found.radius <= true).all()) and bool((found.radius >= 0.98 * true - 2 * step).all())
    assert bool((found.radius_upper >= found.radius).all())


@pytest.mark.parametrize("uppers", [(0.8, math.inf), (math.inf, 0.8), (math.inf, math.inf)])
@pytest.mark.parametrize("radii", [(0.5, 0.3), (0.3, 0.5), (0.5, 0.0)])
def test_the_least_lower_end_and_the_least_upper_end_may_be_of_different_margins(radii, uppers, monkeypatch):
    """A margin whose search gave up early has the least radius, whoever has the nearest counterexample."""
    ends = iter(zip(radii, uppers, strict=True))

    def searched(chain, x, norm, domain, budget, search, tolerance, start, most, mutable) -> CertifiedRange:
        radius, upper = next(ends)
        reached = most is not None and radius >= most  # it is searched no further than the least so far
        radius = min(radius, math.inf if most is None else most * (1 - 1e-9))
        ending = np.array([Ending.LOWER_BOUND], dtype=object)
        lower = torch.tensor([radius], dtype=torch.float64)
        return CertifiedRange(lower, torch.tensor([upper]), ending, torch.tensor([reached]))

    monkeypatch.setattr("baselines.branch_and_bound.radius.certify", searched)
    made = network(2)
    found = certify_all(to_chains(made, (2,)), torch.zeros(1, 2), "l2")
    assert found.radius.item() == pytest.approx(min(radii))
    assert found.radius_upper.item() == pytest.approx(min(uppers))
    # Coming to the radius of another margin is not coming to the largest radius that was to be tried.
    assert not found.reached_limit.any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", ["ibp", "crown", "alpha_crown"])
def test_bounds_of_several_margins_hold(norm, method):
    made = next(m for m in (network(3, seed) for seed in range(50)) if len(sensitive(m)) == COUNT)
    x = sensitive(made)
    radius = RadiusSearch(BoundedScore(made, (2,)), x, norm).radii(method).radius
    assert bool((radius > 0).all())
    assert bool((radius <= nearest(made, x, norm, 2 * float(radius.max()))).all())


def test_a_search_whose_time_is_over_returns_what_is_certified():
    made = network(1)
    x = torch.rand(400, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x[made(x)[:, 0] > 0][:5]
    full = RadiusSearch(BoundedScore(made, (2,)), x, "l2")
    cut = RadiusSearch(BoundedScore(made, (2,)), x, "l2", until=0.0)
    assert bool((cut.radii("crown").radius <= full.radii("crown").radius).all())
    assert bool((full.radii("crown").radius > 0).all())


def test_branch_and_bound_whose_time_is_over_ends_with_its_start_and_does_not_call_it_exact():
    made = next(m for m in (network(3, seed) for seed in range(50)) if len(sensitive(m)) == COUNT)
    x, chains = sensitive(made), to_chains(made, (2,))
    start = RadiusSearch(BoundedScore(made, (2,)), x, "l2").radii("ibp").radius / 2
    no_time = Budget(max_domains=100, seconds=1e-12)
    late = certify_all(chains, x, "l2", budget=no_time, start=start)
    assert bool((late.radius >= start).all()) and bool((start > 0).all())
    nothing = certify_all(chains, x, "l2", budget=no_time)
    for found in (late, nothing):
        assert bool(found.radius_upper.isinf().all())
        assert not (found.ending == Ending.EXACT).any()


def test_the_time_of_several_margins_is_theirs_together(monkeypatch):
    """Once it is over, the margins that are left are not searched."""
    made = next(m for m in (network(3, seed) for seed in range(50)) if len(sensitive(m)) == COUNT)
    x, chains = sensitive(made)[:1], to_chains(made, (2,))
    moment, asked = [0.0], []

    def slow(chain, *arguments):
        moment[0] += 10.0  # every answer takes ten seconds
        asked.append(chain)
        return verify(chain, *arguments)

    monkeypatch.setattr("baselines.branch_and_bound.radius.verify", slow)

    def clock():
        moment[0] += 1e-6
        return moment[0]

    monkeypatch.setattr("time.monotonic", clock)
    certify_all(chains, x, "l2", budget=Budget(max_domains=100, seconds=5.0))
    assert len(asked) == 1


def test_a_search_that_may_be_cut_begins_at_the_scale_of_the_answer(monkeypatch):
    """Not at that of the unit box, which is far larger where there are many inputs: each try costs a bound."""
    made = nn.Sequential(nn.Linear(500, 8), nn.ReLU(), nn.Linear(8, 2)).double().requires_grad_(False)
    x = torch.rand(3, 500, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    made[2].bias += 0.01 - made(x).amin()
    score, tried = BoundedScore(made, (500,)), []
    lower = score.lower
    monkeypatch.setattr(
        score, "lower", lambda balls, *rest: tried.append(balls.radius.max()) or lower(balls, *rest)
    )
    RadiusSearch(score, x, "l1", until=math.inf).radii("ibp")
    point = x.clone().requires_grad_()
    least = made(point).amin(dim=1)
    (gradient,) = torch.autograd.grad(least.sum(), point)
    assert tried[0] <= (least / gradient.abs().amax(dim=1)).max()
