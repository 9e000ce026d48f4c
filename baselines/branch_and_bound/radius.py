"""Certified radii by branch and bound: a lower and an upper end per input."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from baselines.branch_and_bound.chain import Chain, to_chain
from baselines.branch_and_bound.region import DUAL_ORDER, ORDER
from baselines.branch_and_bound.search import check, verify
from baselines.branch_and_bound.settings import (
    DEFAULT_BUDGET,
    DEFAULT_SEARCH,
    Budget,
    Ending,
    Search,
    Verdicts,
)
from baselines.layered import LayeredNetwork

# Rounding in float64 is far below what the radius gives up.
SHAVE = 1e-9
CROSSING_STEPS = 60
# Before any splitting the search brackets the radius this coarsely, by bounds and attacks that are quick.
COARSE_TOLERANCE = 0.05
# The first radius tried, as a share of the distance to the boundary of the score linearised at the input.
FIRST_SHARE = 0.7
# A float64 has steps of 2e-16 of its size.
RESOLUTION = 1e-14
# The first try after that lies this share of the tolerance below the upper end.
PROBE_SHARE = 0.9
PROBE_DOMAINS = 64
CAUTIOUS_SHARE = 0.25
# Seconds of a search whose time is over.
OVER = 1e-9


@dataclass(frozen=True)
class CertifiedRange:
    """What is known of the distance from N inputs to the nearest counterexample.

    radius: (N,) float64, every allowed input closer than this has a positive score (inf: all allowed inputs have).
    radius_upper: (N,) float64, norm of a perturbation to a score <= 0; inf where none is known.
    ending: (N,) of Ending. reached_limit: (N,) whether ``radius`` is the largest radius that was to be tried.
    """

    radius: Tensor
    radius_upper: Tensor
    ending: np.ndarray
    reached_limit: Tensor


def certify(
    model: nn.Module | LayeredNetwork | Chain,
    x: Tensor,
    norm: str,
    domain: str = "free",
    budget: Budget = DEFAULT_BUDGET,
    search: Search = DEFAULT_SEARCH,
    tolerance: float = 1e-3,
    start: Tensor | None = None,
    max_radius: float | None = None,
    mutable: Tensor | None = None,
) -> CertifiedRange:
    """Bracket the radius of each input of x (N, *shape): bounds and attacks first, then bisection by ``verify``.

    budget: per radius tried (max_domains) and per input (seconds). tolerance: relative width at which an input is
    done. start: (N,) radii that are certified already, by any method. max_radius: largest radius tried; by default
    the diameter of the unit box. mutable: (d,) bool, the only features that are perturbed; None: all. Inputs whose
    score is not positive get radius 0. Raises as ``verify`` does.
    """
    check(x, norm, domain)
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}: it must lie between 0 and 1")
    if max_radius is not None and not max_radius > 0:
        raise ValueError(f"max_radius is {max_radius}: it must be positive")
    chain = model if isinstance(model, Chain) else to_chain(model, tuple(x.shape[1:]), x.device)
    bracket = _Bracket(chain, x.detach().flatten(1).double(), norm, domain, start, max_radius, mutable)
    deadline = None if budget.seconds is None else time.monotonic() + budget.seconds * len(x)
    quick = replace(search, rounds=0, root_steps=search.steps, restarts=1)
    bracket.narrow(Budget(max_domains=0), quick, max(tolerance, COARSE_TOLERANCE), deadline)
    bracket.reopen()
    bracket.probe(Budget(min(budget.max_domains, PROBE_DOMAINS)), search, tolerance, deadline)
    bracket.narrow(budget, search, tolerance, deadline)
    return bracket.result(tolerance)


def certify_all(
    chains: Sequence[Chain],
    x: Tensor,
    norm: str,
    domain: str = "free",
    budget: Budget = DEFAULT_BUDGET,
    search: Search = DEFAULT_SEARCH,
    tolerance: float = 1e-3,
    start: Tensor | None = None,
    mutable: Tensor | None = None,
) -> CertifiedRange:
    """As ``certify``, for inputs that are right where every one of several scores is positive.

    The scores come one after the other, the one that seems to fail first at the head; each is searched no further than
    the least radius so far, so that most are proved at once. budget: its seconds are shared by the scores.
    """
    if len(chains) == 1:
        return certify(chains[0], x, norm, domain, budget, search, tolerance, start, None, mutable)
    parts = [
        _certify_one(chains, one[None], norm, domain, budget, search, tolerance, known, mutable)
        for one, known in zip(x, [None] * len(x) if start is None else start.split(1), strict=True)
    ]
    if not parts:
        return certify(chains[0], x, norm, domain, budget, search, tolerance, start)
    return CertifiedRange(
        torch.cat([part.radius for part in parts]),
        torch.cat([part.radius_upper for part in parts]),
        np.concatenate([part.ending for part in parts]),
        torch.cat([part.reached_limit for part in parts]),
    )


def _certify_one(
    chains: Sequence[Chain],
    x: Tensor,
    norm: str,
    domain: str,
    budget: Budget,
    search: Search,
    tolerance: float,
    start: Tensor | None,
    mutable: Tensor | None,
) -> CertifiedRange:
    """The range (1,) of one input x (1, *shape): the least radius and the least upper end of all scores.

    Each score may take an equal part of the seconds that the ones before have left.
    """
    end = None if budget.seconds is None else time.monotonic() + budget.seconds
    flat = x.detach().flatten(1).double()
    order = sorted(chains, key=lambda chain: float(_first_guess(chain, flat, norm, mutable)))
    within = _part(budget, end, len(order))
    least = certify(order[0], x, norm, domain, within, search, tolerance, start, None, mutable)
    for place, chain in enumerate(order[1:], start=1):
        most = float(least.radius)
        if most == 0:
            break
        limit = None if np.isinf(most) else most
        within = _part(budget, end, len(order) - place)
        found = certify(chain, x, norm, domain, within, search, tolerance, start, limit, mutable)
        upper = torch.minimum(least.radius_upper, found.radius_upper)
        if bool(found.radius < least.radius) and not bool(found.reached_limit):
            least = replace(found, radius_upper=upper)
        else:
            least = replace(least, radius_upper=upper)
    exact = bool(_is_narrow(least.radius, least.radius_upper, tolerance) | least.reached_limit)
    if not exact and bool(torch.isfinite(least.radius)) and bool(least.radius > 0):
        least = replace(least, ending=np.array([Ending.LOWER_BOUND], dtype=object))
    return least


def _part(budget: Budget, end: float | None, scores: int) -> Budget:
    """The budget with an equal part of the time that is left until ``end`` for one of so many scores."""
    if end is None:
        return budget
    return replace(budget, seconds=max((end - time.monotonic()) / scores, OVER))


def _first_guess(chain: Chain, x: Tensor, norm: str, mutable: Tensor | None) -> Tensor:
    """Distance (N,) to the boundary of the score linearised at x (N, d)."""
    score, gradient = chain.score_and_gradient(x)
    gradient = gradient if mutable is None else gradient * mutable.to(gradient)
    return score / torch.linalg.vector_norm(gradient, ord=DUAL_ORDER[norm], dim=1).clamp(min=1e-300)


class _Bracket:
    """Radii between which the answer lies, one pair per input, and the radius above which the budget did not do."""

    def __init__(
        self,
        chain: Chain,
        x: Tensor,
        norm: str,
        domain: str,
        start: Tensor | None,
        max_radius: float | None,
        mutable: Tensor | None = None,
    ) -> None:
        self.chain, self.x, self.norm, self.domain, self.mutable = chain, x, norm, domain, mutable
        positive = chain.score(x) > 0
        self.first = FIRST_SHARE * _first_guess(chain, x, norm, mutable)
        # Coordinates are rounded below this: a bracket of a margin that rounding eats would be halved to nothing.
        self.least = RESOLUTION * x.abs().amax(dim=1).clamp(min=1.0)
        self.limit, self.covers = _limits(x, norm, domain, max_radius, mutable)
        known = torch.zeros_like(self.limit) if start is None else start.to(self.limit).clamp(min=0)
        self.start = torch.where(positive, known, 0.0)
        self.lower = torch.minimum(self.start, self.limit)
        self.upper = torch.zeros_like(self.lower).masked_fill(positive, torch.inf)
        self.reopen()
        self.hard = ~positive  # the last try ran out of a costly budget

    def reopen(self) -> None:
        """Forget at which radii the budget did not do, since the next one is larger."""
        self.ceiling = torch.minimum(self.upper, self.limit)
        self.growing = torch.isinf(self.upper)

    def narrow(self, budget: Budget, search: Search, tolerance: float, deadline: float | None) -> None:
        """Bisect until each bracket's relative width is at most ``tolerance``, or the time is up."""
        while True:
            index = self._wider_than(tolerance)
            if not len(index) or _is_past(deadline):
                return
            self._try(index, self._next_radius(index), budget, search, deadline)

    def probe(self, budget: Budget, search: Search, tolerance: float, deadline: float | None) -> None:
        """Try just below the upper end, which the attack often leaves at the answer; a failure is forgotten."""
        index = self._wider_than(tolerance)
        index = index[torch.isfinite(self.upper[index])]
        if len(index) and not _is_past(deadline):
            self._try(index, (1 - PROBE_SHARE * tolerance) * self.ceiling[index], budget, search, deadline)
            self.reopen()

    def _wider_than(self, tolerance: float) -> Tensor:
        wide = self.ceiling - self.lower > tolerance * self.ceiling
        return (wide & (self.ceiling > self.least)).nonzero()[:, 0]

    def _try(
        self, index: Tensor, radius: Tensor, budget: Budget, search: Search, deadline: float | None
    ) -> None:
        """Decide the inputs at an index at one radius each, and narrow their brackets accordingly."""
        seconds = None if deadline is None else max(deadline - time.monotonic(), 1e-3) / len(index)
        within = replace(budget, seconds=seconds)
        verdicts = verify(
            self.chain, self.x[index], radius, self.norm, self.domain, within, search, self.mutable
        )
        self._learn(index, radius, verdicts, budget)

    def _next_radius(self, index: Tensor) -> Tensor:
        """The middle of each bracket, or less after a try that ran out of budget, since such tries cost the most.

        While nothing has failed, growing steps, and the limit itself at last.
        """
        lower, ceiling = self.lower[index], self.ceiling[index]
        larger = torch.where(lower > 0, 2 * lower, self.first[index])
        share = torch.where(self.hard[index], CAUTIOUS_SHARE, 0.5)
        between = lower + share * (ceiling - lower)
        return torch.where(self.growing[index], torch.minimum(larger, ceiling), between)

    def _learn(self, index: Tensor, radius: Tensor, verdicts: Verdicts, budget: Budget) -> None:
        robust = torch.as_tensor(verdicts.robust, device=index.device)
        wrong = torch.as_tensor(verdicts.not_robust, device=index.device)
        self.hard[index] = ~robust & ~wrong & (budget.max_domains > 0)
        self.lower[index[robust]] = radius[robust]
        self.ceiling[index[~robust]] = radius[~robust]
        self.growing[index[~robust]] = False
        if bool(wrong.any()):
            hit = index[wrong]
            distance = self._crossing(self.x[hit], verdicts.counterexample[wrong])
            self.upper[hit] = torch.minimum(self.upper[hit], distance)
            self.ceiling[hit] = torch.maximum(
                torch.minimum(self.upper[hit], self.ceiling[hit]), self.lower[hit]
            )

    def _crossing(self, x: Tensor, point: Tensor) -> Tensor:
        """Distance (N,) of the score's sign change on the way from x to each counterexample."""
        near, far = torch.zeros_like(x[:, :1]), torch.ones_like(x[:, :1])
        for _ in range(CROSSING_STEPS):
            middle = (near + far) / 2
            wrong = (self.chain.score(x + middle * (point - x)) <= 0)[:, None]
            near, far = torch.where(wrong, near, middle), torch.where(wrong, middle, far)
        return torch.linalg.vector_norm(far * (point - x), ord=ORDER[self.norm], dim=1)

    def result(self, tolerance: float) -> CertifiedRange:
        """The brackets, the lower end shaved against rounding and infinite where the whole domain is covered."""
        reached = self.lower >= self.limit
        radius = torch.where(reached & self.covers, torch.inf, self.lower * (1 - SHAVE))
        radius = torch.maximum(radius, self.start)
        exact = reached | _is_narrow(self.lower, self.upper, tolerance)
        ending = np.full(len(radius), Ending.TIMEOUT, dtype=object)
        ending[(radius > 0).cpu().numpy()] = Ending.LOWER_BOUND
        ending[exact.cpu().numpy()] = Ending.EXACT
        return CertifiedRange(radius, self.upper, ending, reached)


def _is_narrow(lower: Tensor, upper: Tensor, tolerance: float) -> Tensor:
    """Where a bracket is as narrow as asked; one without an upper end is not."""
    return torch.isfinite(upper) & (upper - lower <= tolerance * upper)


def _is_past(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() > deadline


def _limits(
    x: Tensor, norm: str, domain: str, max_radius: float | None, mutable: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Largest radius to try (N,), and whether (N,) that ball covers all of the domain."""
    order = ORDER[norm]
    diameter = float(torch.linalg.vector_norm(torch.ones_like(x[0]), ord=order)) if len(x) else 1.0
    limit = torch.full_like(x[:, 0], diameter if max_radius is None else max_radius)
    if domain == "free":
        return limit, torch.zeros_like(limit, dtype=torch.bool)
    farthest = torch.maximum(x, 1 - x)
    farthest = farthest if mutable is None else farthest * mutable.to(farthest)
    corner = torch.linalg.vector_norm(farthest, ord=order, dim=1) * (1 + SHAVE)
    return torch.minimum(limit, corner), corner <= limit * (1 + SHAVE)
