"""Derandomised smoothing with splitting noise: deterministic, native in l1."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from baselines.smoothing import LEVELS, SplittingClassifier, splitting_period
from bench.basics.space import SearchSpace
from bench.contract import Curve, FitContext, LinearScore, Method, Radii, TrainingData
from bench.methods._smoothing import (
    DATA_STD,
    NOISE_SPACE,
    NoisyTraining,
    network_for_noise,
    train_with_noise,
)

# Split copies whose mean score an attack differentiates, and the seed of their cuts.
ATTACK_COPIES = 8
ATTACK_SEED = 0
# |delta|_1 <= d^gap |delta|_p: by how much an l1 radius shrinks in the other norms.
DIMENSION_POWER = {"l1": 0.0, "l2": 0.5, "linf": 1.0}


@dataclass(frozen=True)
class SplittingSettings(NoisyTraining):
    """Recipe of a classifier smoothed by splitting noise.

    sigma: standard deviation of a cut's position, which sets the distance 2 sqrt(3) sigma between cuts;
    shifts_calibrate: positions of the cuts at which a validation input's score is taken.
    """

    sigma: float = 0.5
    shifts_calibrate: int = 200


class SmoothingSplitting(Method):
    """Exact majority vote over all positions of the splitting noise.

    Guarantee: deterministic, over all of R^d (not only perturbations on the grid of 256 levels: see
    baselines.smoothing.splitting); l1 native, l2 and linf by inequalities between norms. Source: Levine, Feizi,
    "Improved, Deterministic Smoothing for l1 Certified Robustness", ICML 2021, theorem 2 and its derandomisation.
    """

    name = "smoothing_splitting"
    title = "Smoothing (splitting)"
    kind = "smoothing"
    slot = 3
    reference = "Levine and Feizi, ICML 2021"
    guarantee = "deterministic"
    Settings = SplittingSettings
    space = SearchSpace(
        NOISE_SPACE, starts=({"sigma": 1.5},), judging={"shifts_calibrate": 50}, judged_inputs=400
    )

    model: SplittingClassifier

    def curves(self) -> Sequence[Curve]:
        return [Curve("splitting", "free", native=("l1",))]

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        network = network_for_noise(self.settings, DATA_STD, input_shape)
        return SplittingClassifier(network, input_shape, splitting_period(self.settings.sigma)).eval()

    def fit(self, data: TrainingData, context: FitContext) -> None:
        train_with_noise(self.model, self.model.random_split, self.settings, data, context)

    def decision_range(self, x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        median = self.model.median_score(x, self.settings.shifts_calibrate)
        return median, median

    def score(self, x: Tensor) -> Tensor:
        """Return the mean score over a few fixed cuts; the gradient passes the cuts as if they were not there."""
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            torch.manual_seed(ATTACK_SEED)
            split = self.model.random_split(x.detach().repeat(ATTACK_COPIES, *[1] * (x.dim() - 1)))
        through = split + (x - x.detach()).repeat(ATTACK_COPIES, *[1] * (x.dim() - 1))
        return self.model(through).reshape(ATTACK_COPIES, len(x)).mean(dim=0)

    def predict(self, x: Tensor, seed: int) -> Tensor:
        return self.predict_at(x, [self.threshold or 0.0], seed)[0]

    def predict_at(self, x: Tensor, thresholds: Sequence[float], seed: int) -> list[Tensor]:
        return list(torch.from_numpy(self.model.share_at(x, thresholds) > 0.5).to(torch.int8))

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        return self._radii(x, self.model.share(x), norms)

    def shares_thresholds(self, curve: Curve) -> bool:
        return True

    def radii_at(
        self,
        x: Tensor,
        thresholds: Sequence[float],
        wanted: Tensor,
        curve: Curve,
        norms: Sequence[str],
        seed: int,
    ) -> list[dict[str, Radii]]:
        anywhere = wanted.any(dim=0)
        shares = np.zeros(wanted.shape)
        shares[:, anywhere.cpu()] = self.model.share_at(x[anywhere], thresholds)
        return [self._radii(x, share, norms) for share in shares]

    def _radii(self, x: Tensor, share: np.ndarray, norms: Sequence[str]) -> dict[str, Radii]:
        # Cuts fall between all features; but only so many of them can share a change.
        dim = math.prod(x.shape[1:]) if self.mutable is None else int(self.mutable.sum())
        radius = self.model.radius(x, share)
        return {norm: Radii.from_radius(radius / dim ** DIMENSION_POWER[norm]) for norm in norms}

    def use_linear(self, weight: Tensor, bias: float) -> None:
        """Use the finest cuts, where the vote is closest to linear.

        An input and its split copy then differ by at most one level per coordinate; taking what that can change off the
        score keeps the smoothed classifier on the safe side of the plane.
        """
        linear = LinearScore(weight, bias - float(weight.abs().sum()) / LEVELS).linear
        network = nn.Sequential(nn.Flatten(), linear, nn.Flatten(0))
        self.model = SplittingClassifier(network, weight.shape, period=1).to(self.device).eval()
