"""Randomized smoothing: noise, votes, confidence bounds, radii, the derandomised splitting method, training losses."""

from baselines.smoothing.calibration import decision_scores
from baselines.smoothing.classifier import SmoothedClassifier, stage_seed
from baselines.smoothing.confidence import lower_bound, randomised_lower_bound, upper_bound, votes_needed
from baselines.smoothing.losses import NoisyLoss
from baselines.smoothing.noise import add_noise
from baselines.smoothing.radii import NATIVE_NORMS, NOISES, radii, radius
from baselines.smoothing.splitting import LEVELS, SplittingClassifier, splitting_period
from baselines.smoothing.two_stage import TwoStage, TwoStageAtRadii
from baselines.smoothing.votes import count_votes, noisy_scores

__all__ = [
    "LEVELS",
    "NATIVE_NORMS",
    "NOISES",
    "NoisyLoss",
    "SmoothedClassifier",
    "SplittingClassifier",
    "TwoStage",
    "TwoStageAtRadii",
    "add_noise",
    "count_votes",
    "decision_scores",
    "lower_bound",
    "noisy_scores",
    "radii",
    "radius",
    "randomised_lower_bound",
    "splitting_period",
    "stage_seed",
    "upper_bound",
    "votes_needed",
]
