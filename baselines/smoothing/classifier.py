"""The smoothed classifier: predicts by confident majority, bounds the probability of the sensitive class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from baselines.smoothing.confidence import lower_bound, randomised_lower_bound, upper_bound
from baselines.smoothing.two_stage import TwoStage, TwoStageAtRadii
from baselines.smoothing.votes import count_votes

# Stages of sampling; each has draws of its own, so that no bound ever sees draws that chose it.
FIRST_LOOK, SECOND_LOOK, PILOT, COUNT, UNIFORM = range(5)

# With a smaller uniform number a bound may be close to 1 though the votes hardly speak for it.
LEAST_UNIFORM = 0.05


@dataclass(frozen=True)
class SmoothedClassifier:
    """g(x) = sensitive iff P(model(x + noise) > threshold) > 1/2 (Cohen, Rosenfeld, Kolter 2019).

    model: network (N, *shape) -> (N,) in evaluation mode; noise, sigma: see ``radii``; alpha: probability with which an
    answer may be wrong, per input and call; memory_budget, mutable: see ``count_votes``. interval: of the lower bounds,
    ``randomised`` spends one uniform number per input beside the draws; predictions use Clopper and Pearson's. With
    ``mutable`` the vote is of the network in which the other coordinates are constants: radii are for changes of these.
    """

    model: nn.Module
    noise: str
    sigma: float
    alpha: float = 0.001
    threshold: float = 0.0
    memory_budget: int | None = None
    interval: Literal["clopper_pearson", "randomised"] = "clopper_pearson"
    mutable: Tensor | None = None

    def predict(self, x: Tensor, *, draws: int, draws_first: int, seed: int) -> Tensor:
        """Return (N,) int8: 1 sensitive, 0 not sensitive, -1 abstains; wrong with probability at most alpha.

        All inputs get ``draws_first`` draws, undecided ones ``draws`` fresh ones; each look may fail with alpha / 2.
        """
        thresholds = [self.threshold]
        return self.predict_at(x, thresholds, draws=draws, draws_first=draws_first, seed=seed)[0]

    def predict_at(
        self, x: Tensor, thresholds: Sequence[float], *, draws: int, draws_first: int, seed: int
    ) -> Tensor:
        """Return (T, N) what ``predict`` returns at each of T thresholds, all from the same draws.

        Each answer is wrong with probability at most alpha for itself, not all of an input's at once.
        """
        answer = self._decide(self._count(x, draws_first, seed, FIRST_LOOK, thresholds), draws_first)
        undecided = answer < 0
        if undecided.any():
            # Every input keeps its own noise, whichever others are undecided.
            wanted = np.where(undecided.any(axis=0), draws, 0)
            second = self._decide(self._count(x, wanted, seed, SECOND_LOOK, thresholds), draws)
            answer = np.where(undecided, second, answer)
        return torch.from_numpy(answer)

    def p_lower(
        self, x: Tensor, *, draws: int, seed: int, two_stage: TwoStage | TwoStageAtRadii | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (N,) lower bounds on the probability of the sensitive class and (N,) the draws they count.

        Each bound fails with probability at most alpha. With ``two_stage`` a pilot chooses how many draws, at most
        ``draws``, an input gets; its own draws are not counted, so the bound stays exact.
        """
        wanted = np.full(len(x), draws)
        if two_stage is not None:
            pilot_votes = self._count(x, two_stage.pilot, seed, PILOT)
            wanted = two_stage.plan(pilot_votes, draws, self.alpha)
        votes = self._count(x, wanted, seed, COUNT)
        return self._lower_bound(votes, wanted, seed), wanted

    def p_lower_at(
        self, x: Tensor, thresholds: Sequence[float], wanted: np.ndarray, *, draws: int, seed: int
    ) -> np.ndarray:
        """Return (T, N) what ``p_lower`` bounds at each of T thresholds, all from the same draws; 0 where not wanted.

        wanted: (T, N) bool; an input wanted nowhere is not drawn for. Each bound fails with probability at most alpha
        for itself; whoever takes the best of an input's thresholds spends alpha on each of them.
        """
        votes = self._count(x, np.where(wanted.any(axis=0), draws, 0), seed, COUNT, thresholds)
        return np.where(wanted, self._lower_bound(np.where(wanted, votes, 0), draws, seed), 0.0)

    def _lower_bound(self, votes: np.ndarray, draws: int | np.ndarray, seed: int) -> np.ndarray:
        """Bound from votes (..., N); an input's uniform number is the same at all thresholds."""
        if self.interval == "clopper_pearson":
            return lower_bound(votes, draws, self.alpha)
        uniform = np.random.default_rng(stage_seed(seed, UNIFORM)).random(votes.shape[-1])
        # Larger numbers give lower bounds, so that multiples of 2^-53 below 1 may be rounded up.
        uniform = np.maximum(uniform + 2.0**-53, LEAST_UNIFORM)
        return randomised_lower_bound(votes, draws, self.alpha, uniform)

    def _count(
        self,
        x: Tensor,
        draws: int | np.ndarray,
        seed: int,
        stage: int,
        thresholds: Sequence[float] | None = None,
    ) -> np.ndarray:
        return count_votes(
            self.model,
            x,
            self.noise,
            self.sigma,
            draws,
            seed=stage_seed(seed, stage),
            threshold=self.threshold if thresholds is None else thresholds,
            memory_budget=self.memory_budget,
            mutable=self.mutable,
        )

    def _decide(self, votes: np.ndarray, draws: int) -> np.ndarray:
        # If the truth is one class, only the bound on the other side can err: one-sided bounds at alpha / 2 per look.
        sensitive = lower_bound(votes, draws, self.alpha / 2) > 0.5
        other = upper_bound(votes, draws, self.alpha / 2) < 0.5
        return np.where(sensitive, 1, np.where(other, 0, -1)).astype(np.int8)


def stage_seed(seed: int, stage: int) -> int:
    """Return the seed of one stage of sampling."""
    return int(np.random.SeedSequence(seed, spawn_key=(stage,)).generate_state(1, np.uint64)[0])
