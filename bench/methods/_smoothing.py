"""What the adapters of randomized smoothing share: settings, training with noise, calibration, certification."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from baselines.networks import build_network
from baselines.smoothing import (
    NATIVE_NORMS,
    NoisyLoss,
    SmoothedClassifier,
    TwoStage,
    TwoStageAtRadii,
    add_noise,
    decision_scores,
    noisy_scores,
    radii,
)
from bench.basics.space import Choice, Range, SearchSpace, augmentation, training
from bench.calibration import ThresholdedScore
from bench.contract import Curve, FitContext, Method, Outcome, Radii, TrainingData
from bench.methods.given import Effort, Given, WhenChosen
from fcnn.training import TrainSettings, train

# Rough standard deviation of pixels and of min-max scaled table columns, used to normalise noisy inputs.
DATA_STD = 0.3
# Noisy copies whose mean score an attack differentiates, and the seed of their noise.
ATTACK_COPIES = 8
ATTACK_SEED = 0

# What tuning may change; l1 is native or the better of the conversions for every noise.
NOISE_SPACE = {
    "sigma": Range(0.2, 5.0, log=True, of="l1"),
    "consistency": Choice(0.0, 5.0, 10.0),
    **training(),
    **augmentation(),
}


@dataclass(frozen=True)
class NoisyTraining:
    """Recipe of a network trained with noise.

    network: ``auto`` is a small ConvNet for images and the MLP for tables; hidden: the MLP's layers.
    copies, consistency, entropy, stability: see baselines.smoothing.NoisyLoss; consistency takes two copies at least.
    consistency is that of Jeong and Shin, "Consistency Regularization for Certified Robustness of Smoothed
    Classifiers", NeurIPS 2020 (arXiv 2006.04062).
    """

    network: Literal["auto", "mlp", "convnet", "resnet18", "wrn40_2"] = "auto"
    hidden: tuple[int, ...] = (200, 50)
    copies: int = 1
    consistency: float = 0.0
    entropy: float = 0.5
    stability: float = 0.0
    train: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=30, batch_size=128))


@dataclass(frozen=True)
class SmoothingSettings(NoisyTraining):
    """Recipe of a smoothed classifier whose votes are sampled.

    sigma: standard deviation of the noise per coordinate; draws: n of the certificate, and the most that a prediction
    takes; draws_predict: the first look of a prediction; draws_calibrate: noisy scores per validation input.
    pilot: draws of a first stage that chooses n per input (0: every input gets ``draws``); pilot_loss: the share of
    the inputs of one batch that this may be expected to cost their certificate at any one radius. pilot_radii: if
    given, only certified accuracy at these radii (in the noise's first native norm) counts, and full draws are made
    where they buy pilot_price of these radii.
    interval: confidence bound of the certificate; ``randomised`` (Stevens 1950) has exact coverage, at the price of one
    uniform number per input.
    memory_budget_mb: megabytes that a batch of draws may take (0: a default for the device).
    """

    sigma: float = 0.5
    alpha: float = 0.001
    draws: int = 10_000
    draws_predict: int = 1_000
    draws_calibrate: int = 200
    pilot: int = 0
    pilot_loss: float = 0.005
    pilot_radii: tuple[float, ...] = ()
    pilot_price: float = 0.1
    interval: Literal["clopper_pearson", "randomised"] = "clopper_pearson"
    memory_budget_mb: float = 0.0


class Smoothing(Method):
    """Base of the three sampled methods; they differ in ``noise`` only."""

    kind = "smoothing"
    guarantee = "probabilistic"
    Settings = SmoothingSettings
    space = SearchSpace(
        NOISE_SPACE,
        starts=({"sigma": 1.5},),
        judging={"draws": 500, "draws_predict": 100, "draws_calibrate": 20, "pilot": 0},
        judged_inputs=400,
    )
    respects_mutable = True
    noise: ClassVar[str]

    model: ThresholdedScore

    def curves(self) -> Sequence[Curve]:
        return [Curve("smoothing", "free", native=NATIVE_NORMS[self.noise])]

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        return ThresholdedScore(network_for_noise(self.settings, self.settings.sigma, input_shape)).eval()

    def fit(self, data: TrainingData, context: FitContext) -> None:
        perturb = partial(
            add_noise, noise=self.noise, sigma=self.settings.sigma, mutable=self._mutable_in(data.x)
        )
        train_with_noise(self.model, perturb, self.settings, data, context)

    def decision_range(self, x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        settings = self.settings
        scores = noisy_scores(
            self.model.network,
            x,
            self.noise,
            settings.sigma,
            settings.draws_calibrate,
            seed=seed,
            memory_budget=self._memory_budget,
            mutable=self._mutable_in(x),
        )
        low, high = decision_scores(scores, settings.draws, settings.alpha / 2)
        return torch.from_numpy(low), torch.from_numpy(high)

    def score(self, x: Tensor) -> Tensor:
        """Return the mean score over a few fixed noisy copies: what an attack on the vote can differentiate."""
        generator = torch.Generator(x.device).manual_seed(ATTACK_SEED)
        fixed = add_noise(
            torch.zeros_like(x[:1].expand(ATTACK_COPIES, *x.shape[1:])),
            self.noise,
            self.settings.sigma,
            generator,
            self._mutable_in(x),
        )
        return self.model((x[None] + fixed[:, None]).flatten(0, 1)).reshape(ATTACK_COPIES, len(x)).mean(dim=0)

    def predict(self, x: Tensor, seed: int) -> Tensor:
        return self.predict_at(x, [self.threshold or 0.0], seed)[0]

    def predict_at(self, x: Tensor, thresholds: Sequence[float], seed: int) -> list[Tensor]:
        settings = self.settings
        draws = {"draws": settings.draws, "draws_first": settings.draws_predict}
        return list(self._smoothed(x).predict_at(x.float(), thresholds, **draws, seed=seed))

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        settings = self.settings
        two_stage = self._two_stage(self._noisy_coordinates(x)) if settings.pilot else None
        p_lower, draws = self._smoothed(x).p_lower(
            x.float(), draws=settings.draws, seed=seed, two_stage=two_stage
        )
        return self._radii(p_lower, draws, x, norms)

    def shares_thresholds(self, curve: Curve) -> bool:
        # A pilot plans the draws for one threshold.
        return not self.settings.pilot

    def radii_at(
        self,
        x: Tensor,
        thresholds: Sequence[float],
        wanted: Tensor,
        curve: Curve,
        norms: Sequence[str],
        seed: int,
    ) -> list[dict[str, Radii]]:
        settings, chosen = self.settings, wanted.cpu().numpy()
        bounds = self._smoothed(x).p_lower_at(x.float(), thresholds, chosen, draws=settings.draws, seed=seed)
        return [self._radii(p_lower, np.full(len(x), settings.draws), x, norms) for p_lower in bounds]

    def _radii(
        self, p_lower: np.ndarray, draws: np.ndarray, x: Tensor, norms: Sequence[str]
    ) -> dict[str, Radii]:
        """Radii of lower bounds (N,); a smoothed classifier whose bound does not clear 1/2 abstains."""
        found, dim = {}, self._noisy_coordinates(x)
        for norm in norms:
            radius = radii(self.noise, self.settings.sigma, p_lower, dim, norm)
            outcome = np.where(radius > 0, Outcome.CERTIFIED, Outcome.ABSTAINED)
            found[norm] = Radii(radius, outcome, draws=draws)
        return found

    def _two_stage(self, dim: int) -> TwoStage | TwoStageAtRadii:
        settings, norm = self.settings, NATIVE_NORMS[self.noise][0]
        radius_of = partial(radii, self.noise, settings.sigma, dim=dim, norm=norm)
        if settings.pilot_radii:
            return TwoStageAtRadii(settings.pilot, radius_of, settings.pilot_radii, settings.pilot_price)
        return TwoStage(settings.pilot, radius_of, settings.pilot_loss)

    @property
    def _memory_budget(self) -> int | None:
        return int(self.settings.memory_budget_mb * 2**20) or None

    def _mutable_in(self, x: Tensor) -> Tensor | None:
        """Which coordinates of an input get noise, in its shape; None: all."""
        return None if self.mutable is None else self.mutable.reshape(x.shape[1:]).to(x.device)

    def _noisy_coordinates(self, x: Tensor) -> int:
        return math.prod(x.shape[1:]) if self.mutable is None else int(self.mutable.sum())

    def _smoothed(self, x: Tensor) -> SmoothedClassifier:
        settings = self.settings
        return SmoothedClassifier(
            self.model.network,
            self.noise,
            settings.sigma,
            settings.alpha,
            float(self.model.threshold),
            self._memory_budget,
            settings.interval,
            self._mutable_in(x),
        )


def network_for_noise(settings: NoisyTraining, sigma: float, input_shape: tuple[int, ...]) -> nn.Sequential:
    """Return the untrained network that the settings name, its input normalised to unit scale under the noise."""
    name = settings.network
    if name == "auto":
        name = "convnet" if len(input_shape) == 3 else "mlp"
    return build_network(name, input_shape, settings.hidden, std=math.hypot(DATA_STD, sigma))


def train_with_noise(
    model: nn.Module,
    perturb: Callable[[Tensor], Tensor],
    settings: NoisyTraining,
    data: TrainingData,
    context: FitContext,
) -> None:
    """Train a network on copies of the training inputs that ``perturb`` has made noisy."""
    copies = max(2, settings.copies) if settings.consistency > 0 else settings.copies
    train(
        model,
        NoisyLoss(perturb, copies, settings.consistency, settings.entropy, settings.stability),
        (data.x, data.y),
        settings.train,
        seed=context.seed,
        checkpoint=context.checkpoint,
        progress=context.progress,
    )


class GivenInNoise(Given):
    """The first base of a smoothed classifier: another classifier, the majority vote of a given network under noise.

    Few inputs at a time, so that their number moves on; each batch draws noise of its own.
    """

    chosen: ClassVar[WhenChosen] = "by name"
    turn = 3
    needs_sigma = True
    chunk = 0
    batch_size = 8

    @classmethod
    def settings_for(cls, certificates: Sequence[str], effort: Effort) -> Any:
        assert effort.sigma is not None  # refused before
        return SmoothingSettings(sigma=effort.sigma, draws=effort.draws, draws_predict=effort.draws // 10)

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        return ThresholdedScore(super().network(input_shape).float()).eval()
