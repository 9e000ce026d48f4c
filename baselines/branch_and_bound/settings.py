"""When to stop, how to search, and what an answer looks like."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from torch import Tensor


class Status(StrEnum):
    """Answer to: is every allowed input within the radius given a positive score?"""

    ROBUST = "robust"
    NOT_ROBUST = "not_robust"
    TIMEOUT = "timeout"


class Ending(StrEnum):
    """How well a radius is known: up to the tolerance, from below only, or not at all."""

    EXACT = "exact"
    LOWER_BOUND = "lower_bound"
    TIMEOUT = "timeout"


@dataclass(frozen=True)
class Budget:
    """When to give up. max_domains: sub-domains bounded per query; this limit makes runs repeat exactly.

    seconds: additional wall-clock limit per query; a call with N queries stops after N times as long.
    """

    max_domains: int = 2000
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.max_domains < 0:
            raise ValueError(f"max_domains is {self.max_domains}: it must be 0 (no splitting) or more")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds is {self.seconds}: it must be positive, or None for no limit")


@dataclass(frozen=True)
class Search:
    """How to search; every choice gives sound answers, they differ in speed.

    root_steps, steps: ascent steps on the bound of a query and of a sub-domain. rounds: times a query's pre-activation
    bounds are tightened before it is split; refine_depth: they are tightened again on sub-domains of at most so many
    splits (worth more with a large budget). batch: sub-domains split at once. attack_steps, restarts: the attack
    before any bounding.
    """

    root_steps: int = 20
    steps: int = 6
    rounds: int = 8
    refine_depth: int = 4
    batch: int = 256
    attack_steps: int = 50
    restarts: int = 5
    seed: int = 0


DEFAULT_BUDGET = Budget()
DEFAULT_SEARCH = Search()


@dataclass(frozen=True)
class Verdicts:
    """Answers to N queries.

    status: (N,) of Status. counterexample: (N, *shape) float64, an input with score <= 0 where not_robust, else nan.
    bound: (N,) float64, positive where robust: with it, score > 0 on the whole region was proved in float64; else
    the least bound of the sub-domains left open. domains: (N,) sub-domains that were bounded.
    """

    status: np.ndarray
    counterexample: Tensor
    bound: Tensor
    domains: np.ndarray

    @property
    def robust(self) -> np.ndarray:
        """(N,) whether robustness was proved."""
        return self.status == Status.ROBUST

    @property
    def not_robust(self) -> np.ndarray:
        """(N,) whether a counterexample was found."""
        return self.status == Status.NOT_ROBUST
