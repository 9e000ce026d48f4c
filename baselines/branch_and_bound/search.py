"""Branch and bound: decide whether the score stays positive on a region."""

import time

import numpy as np
import torch
from torch import Tensor, nn

from baselines.branch_and_bound import attack, branching
from baselines.branch_and_bound.chain import Chain, to_chain
from baselines.branch_and_bound.domains import Domains, join
from baselines.branch_and_bound.region import DOMAINS, NORMS, Region
from baselines.branch_and_bound.relaxation import LinearBound, ascend, bound_score
from baselines.branch_and_bound.settings import (
    DEFAULT_BUDGET,
    DEFAULT_SEARCH,
    Budget,
    Search,
    Status,
    Verdicts,
)
from baselines.branch_and_bound.tightening import initial_domains, tighten

# A bound counts as positive only above this share of the score's size, and above this many times what float64 may have
# rounded in the score: a bound takes as many products again for each end of each range.
ROUNDING = 1e-9
ROUNDINGS = 4
LOCAL_STEPS = 4
EXACT_STEPS = 300


def verify(
    model: nn.Module | Chain,
    x: Tensor,
    radius: float | Tensor,
    norm: str,
    domain: str = "free",
    budget: Budget = DEFAULT_BUDGET,
    search: Search = DEFAULT_SEARCH,
    mutable: Tensor | None = None,
) -> Verdicts:
    """Decide for each input of x (N, *shape) whether the score is positive on the whole ball of its radius (N,).

    model: network (N, *shape) -> (N,) or (N, 1) of affine layers and ReLUs. norm: l1, l2 or linf. domain: ``free``, or
    ``box`` for the part of the ball in [0, 1]^d. mutable: (d,) bool, the only features that move (None: all).
    Complete given budget; repeats exactly unless ``seconds`` ends it.
    Source: Wang et al. 2021 (beta-CROWN). Raises ValueError for unknown names, UnsupportedNetwork for the network.
    """
    check(x, norm, domain)
    chain = model if isinstance(model, Chain) else to_chain(model, tuple(x.shape[1:]), x.device)
    center = x.detach().flatten(1).double()
    radius = torch.as_tensor(radius, dtype=torch.float64, device=x.device).expand(len(x))
    run = Run(chain, Region.around(center, radius, norm, domain, mutable), budget, search)
    with torch.no_grad():
        run.decide()
    return Verdicts(run.status(), run.points.reshape(x.shape), run.bound, run.domains.cpu().numpy())


def check(x: Tensor, norm: str, domain: str) -> None:
    """Raise ValueError, naming the value and what is allowed, for a request that makes no sense."""
    for what, value, allowed in (("norm", norm, NORMS), ("domain", domain, DOMAINS)):
        if value not in allowed:
            raise ValueError(f"unknown {what} {value!r}: choose one of {', '.join(allowed)}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x has values that are not finite: remove those inputs")
    if domain == "box" and x.numel() and (float(x.min()) < 0 or float(x.max()) > 1):
        raise ValueError(
            f"domain 'box' needs inputs in [0, 1], found {float(x.min()):.3g} to {float(x.max()):.3g}: "
            "scale the inputs or use domain 'free'"
        )


class Run:
    """One call: N queries, their answers so far, and the steps that move sub-domains towards an answer."""

    def __init__(self, chain: Chain, region: Region, budget: Budget, search: Search) -> None:
        self.chain, self.region, self.budget, self.search = chain, region, budget, search
        count = len(region.center)
        values = [z.abs().amax(dim=1) for z in chain.preactivations(region.center)]
        roundings = chain.roundings(region.center)
        # What rounding may add to or take from each layer's values, and last from the score.
        self.slack = [ROUNDING * (1 + z) + ROUNDINGS * own for z, own in zip(values, roundings, strict=True)]
        self.enough = self.slack[-1]
        self.open = torch.ones(count, dtype=torch.bool, device=self.enough.device)
        self.found = ~self.open
        self.given_up = ~self.open  # some sub-domain was left undecided
        self.points = torch.full_like(region.center, torch.nan)
        self.bound = torch.full_like(self.enough, torch.inf)
        self.domains = torch.zeros_like(self.open, dtype=torch.long)
        self.deadline = None if budget.seconds is None else time.monotonic() + budget.seconds * count

    def decide(self) -> None:
        """Attack, bound, then split until every query is decided or its budget is spent."""
        everyone = torch.arange(len(self.open), device=self.open.device)
        options = (self.search.restarts, self.search.attack_steps, self.search.seed)
        self._record(everyone, attack.search(self.chain, self.region, *options))
        frontier = self._roots()
        while len(frontier):
            picked, rest = self._pick(frontier)
            frontier = self._retire(join([rest, self._expand(picked)]))

    def status(self) -> np.ndarray:
        """Answers (N,) once ``decide`` has run."""
        status = np.full(len(self.open), Status.ROBUST, dtype=object)
        status[self.given_up.cpu().numpy()] = Status.TIMEOUT
        status[self.found.cpu().numpy()] = Status.NOT_ROBUST
        return status

    def _roots(self) -> Domains:
        """Bound and tighten the queries that the attack left; returns those that need splitting."""
        queries = self.open.nonzero()[:, 0]
        roots = initial_domains(self.chain, self.region.take(queries), len(queries))
        roots.query = queries
        self.domains[queries] += 1
        roots, bound = self._bound(roots, self.search.root_steps)
        for _ in range(self.search.rounds):
            if self._is_late():
                break
            self._tighten(roots, bound)
            roots, bound = self._bound(roots, self.search.root_steps)
        return self._retire(roots)

    def _tighten(self, domains: Domains, bound: LinearBound) -> None:
        slack = [each[domains.query] for each in self.slack]
        tighten(self.chain, self.region.take(domains.query), domains, bound, slack)

    def _pick(self, frontier: Domains) -> tuple[Domains, Domains]:
        """The worst sub-domains of each query, equally many of each, and the rest."""
        order = frontier.bound.argsort(stable=True)
        order = order[frontier.query[order].argsort(stable=True)]
        _, counts = frontier.query[order].unique_consecutive(return_counts=True)
        first = (counts.cumsum(0) - counts).repeat_interleave(counts)
        rank = torch.arange(len(order), device=order.device) - first
        share = max(1, self.search.batch // len(counts))
        return frontier.take(order[rank < share]), frontier.take(order[rank >= share])

    def _expand(self, picked: Domains) -> Domains:
        """Split each picked sub-domain once; returns the children that are still open."""
        picked = self._refine(picked)
        bound = bound_score(self.chain, self.region.take(picked.query), picked)
        neuron, costly = branching.costly_neuron(picked, bound)
        exact = self._close_exact(picked.take(~costly))
        late, possible = branching.unstable_neuron(exact)
        self._give_up(exact.take(~possible))
        parents = join([picked.take(costly), exact.take(possible)])
        children = branching.split(parents, torch.cat([neuron[costly], late[possible]]))
        self.domains += torch.bincount(children.query, minlength=len(self.domains))
        return self._bound(children, self.search.steps)[0]

    def _refine(self, picked: Domains) -> Domains:
        """Tighten the pre-activation bounds of sub-domains near the root, since all below them profit."""
        depth = torch.stack([sign.abs().sum(1) for sign in picked.sign]).sum(0)
        due = (depth > 0) & (depth <= self.search.refine_depth)
        if not bool(due.any()):
            return picked
        deep = picked.take(due)
        self._tighten(deep, bound_score(self.chain, self.region.take(deep.query), deep))
        return join([picked.take(~due), self._bound(deep, self.search.steps)[0]])

    def _close_exact(self, exact: Domains) -> Domains:
        """Bound sub-domains whose relaxation loses nothing until convergence; returns those that stay open."""
        return self._bound(exact, EXACT_STEPS)[0] if len(exact) else exact

    def _bound(self, domains: Domains, steps: int) -> tuple[Domains, LinearBound]:
        """Bound sub-domains and attack from the relaxed minimisers; returns those still open, with their bounds."""
        region = self.region.take(domains.query)
        bound, average = ascend(self.chain, region, domains, steps, self.enough[domains.query])
        domains.bound = torch.maximum(domains.bound, bound.value)
        start = self._lower_of(region, bound.minimiser, average)
        self._record(domains.query, attack.descend(self.chain, region, start, LOCAL_STEPS)[0])
        keep = ~(domains.bound > self.enough[domains.query]) & self.open[domains.query]
        return domains.take(keep), bound.take(keep)

    def _lower_of(self, region: Region, first: Tensor, second: Tensor) -> Tensor:
        """Whichever of two perturbations (B, d) each has the lower score."""
        lower = self.chain.score(region.center + first) < self.chain.score(region.center + second)
        return torch.where(lower[:, None], first, second)

    def _record(self, query: Tensor, delta: Tensor) -> None:
        """Keep the perturbations delta (B, d) that are counterexamples to their query (B,)."""
        points, wrong = attack.counterexamples(self.chain, self.region.take(query), delta)
        self.points[query[wrong]] = points[wrong]
        self.found[query[wrong]] = True
        self.open[query[wrong]] = False

    def _retire(self, frontier: Domains) -> Domains:
        """Close queries that are proved or out of budget; returns the sub-domains of the others."""
        waiting = torch.zeros_like(self.open)
        waiting[frontier.query] = True
        spent = self.domains >= self.budget.max_domains
        if self._is_late():
            spent = torch.ones_like(spent)
        self._give_up(frontier.take(spent[frontier.query]))
        self.open &= waiting & ~spent
        return frontier.take(self.open[frontier.query])

    def _is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def _give_up(self, domains: Domains) -> None:
        """Leave sub-domains undecided: their queries can no longer be proved, and keep the worst bound."""
        self.given_up[domains.query] = True
        self.bound.scatter_reduce_(0, domains.query, domains.bound, "amin")
