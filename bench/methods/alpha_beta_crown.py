"""Complete verification of an adversarially trained network by branch and bound."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import Tensor

from baselines.branch_and_bound import Budget, CertifiedRange, Search, UnsupportedNetwork, certify
from baselines.branch_and_bound import Outcome as Ending
from bench.contract import Curve, Outcome, Radii
from bench.methods._bounds import ADVERSARIAL_SPACE, BoundPropagation
from bench.space import SearchSpace
from fcnn.training import TrainSettings


@dataclass(frozen=True)
class AlphaBetaCROWNSettings:
    """Recipe: how the network is trained (see ``BoundsSettings``) and how long its radii are searched.

    domains: curves to issue. max_domains: sub-domains per input and radius tried; seconds: limit per input and norm,
    0 for none (with a limit, tables depend on the machine). tolerance: relative width at which an input is done.
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
    rounds: int = 6
    train: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=60, batch_size=64))


class AlphaBetaCROWN(BoundPropagation):
    """Branch and bound over ReLU splits on an adversarially trained MLP (200): a lower and an upper radius per input.

    Guarantee: deterministic, all three norms native; ``radius_upper`` is the norm of a counterexample that was found.
    Source: Wang et al., "Beta-CROWN: Efficient Bound Propagation with Per-neuron Split Constraints for Complete and
    Incomplete Neural Network Robustness Verification", NeurIPS 2021; own implementation.
    """

    name = "alpha_beta_crown"
    title = "α,β-CROWN"
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
        settings = self.settings
        budget = Budget(settings.max_domains, settings.seconds or None)
        search = Search(
            rounds=settings.rounds,
            root_steps=20,
            refine_depth=0,
            restarts=2,
            attack_steps=30,
            seed=seed % 2**31,
        )
        try:
            found = {
                norm: certify(self.bounded(), x, norm, curve.domain, budget, search, settings.tolerance)
                for norm in norms
            }
        except UnsupportedNetwork as error:
            return {norm: Radii.without(len(x), Outcome.UNSUPPORTED, str(error)) for norm in norms}
        return {norm: _radii(found[norm]) for norm in norms}


def _radii(found: CertifiedRange) -> Radii:
    """Rows of a search: certified where anything was proved, a timeout where nothing was."""
    radius = found.radius.cpu().numpy()
    outcome = np.where(radius > 0, Outcome.CERTIFIED, Outcome.TIMEOUT)
    outcome[(radius == 0) & (found.outcome == Ending.EXACT)] = Outcome.UNKNOWN
    return Radii(radius=radius, outcome=outcome, radius_upper=found.radius_upper.cpu().numpy())
