"""Complete verification of an adversarially trained network by branch and bound."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from baselines.bounds import BoundedScore, RadiusSearch
from baselines.branch_and_bound import (
    Budget,
    CertifiedRange,
    Ending,
    Search,
    UnsupportedNetwork,
    certify_all,
    to_chains,
)
from bench.basics.space import SearchSpace
from bench.contract import Curve, Outcome, Radii
from bench.methods._bounds import ADVERSARIAL_SPACE, BoundPropagation, GivenMargins
from bench.methods._frozen import fingerprint
from bench.methods._stage import Stage
from bench.methods.given import Effort, GivenNetwork
from fcnn.training import TrainSettings

# Of the time of an input: the share of CROWN's radius, which the search starts from on a network that is given.
CROWN_PART = 0.25


@dataclass(frozen=True)
class AlphaBetaCROWNSettings:
    """Recipe: how the network is trained (see ``BoundsSettings``) and how long its radii are searched.

    domains: curves to issue. max_domains: sub-domains per input and radius tried; seconds: limit per input and norm,
    0 for none (with a limit, tables depend on the machine). tolerance: relative width at which an input is done.
    root_steps, rounds, refine_depth, restarts, search_steps: see ``baselines.branch_and_bound.Search``, where the last
    is called attack_steps (which here are those of the training).
    """

    network: Literal["mlp", "convnet"] = "mlp"
    hidden: tuple[int, ...] = (200,)
    training: Literal["standard", "adversarial", "ibp", "crown_ibp"] = "adversarial"
    epsilon: float = 0.1
    ramp: float = 0.5
    attack_steps: int = 7
    clean_share: float = 0.5
    domains: tuple[Literal["free", "box"], ...] = ("free", "box")
    max_domains: int = 32
    seconds: float = 0.0
    tolerance: float = 0.02
    root_steps: int = 20
    rounds: int = 6
    refine_depth: int = 0
    restarts: int = 2
    search_steps: int = 30
    train: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=60, batch_size=64))


class AlphaBetaCROWN(BoundPropagation):
    """Branch and bound over ReLU splits on an adversarially trained MLP (200): a lower and an upper radius per input.

    Guarantee: deterministic, all three norms native; ``radius_upper`` is the norm of a counterexample that was found.
    Source: Wang et al., "Beta-CROWN: Efficient Bound Propagation with Per-neuron Split Constraints for Complete and
    Incomplete Neural Network Robustness Verification", NeurIPS 2021; own implementation.
    """

    name = "alpha_beta_crown"
    title = "Branch and bound (α,β-CROWN style)"
    kind = "verification"
    slot = 0
    reference = "Wang et al., NeurIPS 2021"
    Settings = AlphaBetaCROWNSettings
    space = SearchSpace(
        ADVERSARIAL_SPACE,
        judging={"domains": ["free"], "max_domains": 1, "rounds": 1, "tolerance": 0.1},
        judged_inputs=100,
    )
    batch_size = 32  # at about a second an input and norm, a cut run loses minutes, not an hour

    def curves(self) -> Sequence[Curve]:
        return [Curve("alpha_beta_crown", domain) for domain in self.settings.domains]

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        try:
            return {norm: _radii(self._range(x, norm, curve.domain)) for norm in norms}
        except UnsupportedNetwork as error:
            return {norm: Radii.without(len(x), Outcome.UNSUPPORTED, str(error)) for norm in norms}

    def _range(self, x: Tensor, norm: str, domain: str) -> CertifiedRange:
        """Search these inputs; the box starts from the free radii, which hold in it too."""
        self._exact.network(self.model)
        shape = tuple(x.shape[1:])
        chains = self._exact.kept("chains", lambda network: to_chains(self.bounded(), shape, self.device))
        settings = self.settings
        # The attack's seed comes from the inputs, so that the free radii are the same whichever curve asks for them.
        search = Search(
            root_steps=settings.root_steps,
            rounds=settings.rounds,
            refine_depth=settings.refine_depth,
            restarts=settings.restarts,
            attack_steps=settings.search_steps,
            seed=int(fingerprint([x])[:7], 16),
        )
        start = self._start(x, norm, domain)
        budget = Budget(settings.max_domains, settings.seconds or None)
        found = certify_all(chains, x, norm, domain, budget, search, settings.tolerance, start, self.mutable)
        if domain == "free":
            self._free_known(norm).update(zip(_names(x), found.radius, strict=True))
        return found

    def _start(self, x: Tensor, norm: str, domain: str) -> Tensor | None:
        """Radii (N,) that are certified already; None: there are none."""
        if domain == "box" and "free" in self.settings.domains:
            return self._free_radii(x, norm)
        return None

    def _free_radii(self, x: Tensor, norm: str) -> Tensor:
        """Radii (N,) of the free domain, searched where they are not known."""
        known = self._free_known(norm)
        missing = [place for place, name in enumerate(_names(x)) if name not in known]
        if missing:
            self._range(x[missing], norm, "free")
        return torch.stack([known[name] for name in _names(x)])

    def _free_known(self, norm: str) -> dict[str, Tensor]:
        return self._exact.kept(("free radii", norm), lambda network: {})


class GivenBranchAndBound(GivenMargins, AlphaBetaCROWN):
    """Certificates from branch and bound of a network that was trained already.

    Each input gets its share of the stage's time, in each norm, up to the settings' seconds. A part of it goes to
    CROWN, which bounds all margins in one pass: of a large network the search could not prove as much in that time.
    """

    certificates = ("alpha_beta_crown",)
    chunk = 4

    @classmethod
    def obstacle(cls, network: GivenNetwork) -> str:
        if network.layered is None:
            return network.unreadable
        try:
            to_chains(network.layered, network.input_shape, network.device)
        except UnsupportedNetwork as error:
            return str(error)
        return ""

    @classmethod
    def settings_for(cls, certificates: Sequence[str], effort: Effort) -> Any:
        return AlphaBetaCROWNSettings(seconds=effort.seconds)

    def _start(self, x: Tensor, norm: str, domain: str) -> Tensor | None:
        known = super()._start(x, norm, domain)
        if known is not None:
            return known
        shape, settings = tuple(x.shape[1:]), self.settings
        bounded = self._exact.kept("bounds", lambda network: BoundedScore(self.bounded(), shape, self.device))
        seconds = CROWN_PART / (1 - CROWN_PART) * settings.seconds * len(x)
        until = time.monotonic() + seconds if seconds else None
        search = RadiusSearch(
            bounded, x, norm, tolerance=settings.tolerance, mutable=self.mutable, until=until
        )
        return search.radii("crown", domain).radius

    def _in_time(
        self, x: Tensor, stage: Stage, curve: Curve, norms: Sequence[str], seed: int
    ) -> dict[str, Radii]:
        most = self.settings
        share = stage.share() / len(norms)
        seconds = (1 - CROWN_PART) * min(most.seconds or share, share)
        self.settings = replace(most, seconds=max(1e-2, seconds))
        try:
            return super()._in_time(x, stage, curve, norms, seed)
        finally:
            self.settings = most


def _names(x: Tensor) -> list[str]:
    return [fingerprint([one]) for one in x]


def _radii(found: CertifiedRange) -> Radii:
    """Rows of a search: certified where anything was proved, a timeout where nothing was."""
    radius = found.radius.cpu().numpy()
    outcome = np.where(radius > 0, Outcome.CERTIFIED, Outcome.TIMEOUT)
    outcome[(radius == 0) & (found.ending == Ending.EXACT)] = Outcome.UNKNOWN
    return Radii(radius=radius, outcome=outcome, radius_upper=found.radius_upper.cpu().numpy())
