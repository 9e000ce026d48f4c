"""What a feature-convex method keeps of its training: the epoch or start with the widest radii on validation data."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench.calibration import OperatingPoint, calibrated_threshold
from bench.contract import TrainingData
from fcnn.classifier import FeatureConvexClassifier
from fcnn.losses import score_and_gradient
from fcnn.training import History

Validate = Callable[[FeatureConvexClassifier], float]
# A median of 0 counts as this share of the widest: where no epoch certifies half at a point, the others still decide.
LEAST_SHARE = 1e-3


def validation_radius(
    model: FeatureConvexClassifier,
    data: TrainingData,
    points: Sequence[OperatingPoint],
    slope: Callable[[Tensor], Tensor],
    batch_size: int,
) -> float:
    """Median radius of the sensitive validation inputs, 0 where not certified: the geometric mean over the points.

    Medians count as LEAST_SHARE of the widest at least.
    At each point the threshold is the one that validation data gives, so that no epoch wins by calling everything
    sensitive. slope: gradients (N, k) -> what a step of length 1 can take from the score, (N,).
    """
    model.eval()
    found = [score_and_gradient(model, batch) for batch in data.x_val.split(batch_size)]
    score = torch.cat([each.detach() for each, _ in found])
    size = torch.cat([slope(gradient.detach()) for _, gradient in found]).clamp(min=1e-12)
    medians = []
    for point in points:
        radius = (score - calibrated_threshold(score, data.y_val, point)).clamp(min=0) / size
        medians.append(float(radius[data.y_val > 0.5].median()))
    least = LEAST_SHARE * max(medians)
    return math.prod(max(median, least) for median in medians) ** (1 / len(medians))


def train_from(model: FeatureConvexClassifier, validate: Validate, training: Callable[[], History]) -> None:
    """Train a model that is something already, and put its start back where no epoch is better by ``validate``."""
    begun = validate(model)
    start = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    history = training()
    if max(history.validation, default=-math.inf) <= begun:
        model.load_state_dict(start)
