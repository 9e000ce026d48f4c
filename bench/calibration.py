"""Operating points: where on the scores of validation data the threshold lies, and what that data can resolve.

``balanced``: the recalls of the two classes are as close as they can be. ``other_recall=0.99``: at least this share of
the other class's inputs is called not sensitive, so at most 1 % are false positives. ``given``: the threshold that the
network came with; nothing is chosen.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.basics.operating_points import (
    BALANCED,
    BALANCED_POINT,
    DEFAULT_POINTS,
    GIVEN,
    OTHER_RECALL,
    SLACK,
    OperatingPoint,
    parse_points,
    resolves,
    shown_point,
)

__all__ = [
    "BALANCED",
    "BALANCED_POINT",
    "DEFAULT_POINTS",
    "GIVEN",
    "OTHER_RECALL",
    "Calibration",
    "OperatingPoint",
    "ThresholdedScore",
    "balanced_threshold",
    "calibrated_threshold",
    "parse_points",
    "recall_threshold",
    "resolves",
    "shown_point",
]


class ThresholdedScore(nn.Module):
    """score(x) = network(x) - threshold, the threshold being part of the state; sensitive iff score > 0."""

    threshold: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("threshold", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) - self.threshold


@dataclass(frozen=True)
class Calibration:
    """A threshold and what it was chosen for.

    point: text of the operating point; threshold: as set in the network, None where it has none to set; others,
    false_positives: inputs
    of the other class that it was chosen on, and those above it (None where nothing was chosen, or not known).
    """

    point: str
    threshold: float | None
    others: int | None = None
    false_positives: int | None = None


def calibrated_threshold(scores: Tensor, y: Tensor, point: OperatingPoint) -> float:
    """Return the threshold t at an operating point for the rule "sensitive iff score > t".

    scores: (N,), y: (N,) with 1 = sensitive, both classes present; raises ValueError where one is missing, or a score
    is no number.
    """
    scores = scores.detach().double().flatten().cpu()
    sensitive = y.flatten().cpu() > 0.5
    if not sensitive.any() or sensitive.all():
        raise ValueError("a threshold needs inputs of both classes: found only one")
    if scores.isnan().any():
        raise ValueError("a threshold needs scores: found NaN")
    if point.other_recall is None:
        return balanced_threshold(scores, sensitive)
    return recall_threshold(scores, sensitive, point.other_recall)


def balanced_threshold(scores: Tensor, sensitive: Tensor) -> float:
    """Return the threshold for which the recalls of the two classes are closest; scores, sensitive: (N,).

    Among equally balanced thresholds the one with the highest smaller recall wins, then the widest gap between the
    scores on its two sides; it lies mid-gap.
    """
    values = torch.unique(scores)
    if len(values) == 1:
        return float(values[0])
    middles = values[:-1] + (values[1:] - values[:-1]) / 2
    recall_sensitive = 1 - _share_up_to(scores[sensitive], middles)
    recall_other = _share_up_to(scores[~sensitive], middles)
    imbalance = (recall_sensitive - recall_other).abs()
    smaller = torch.minimum(recall_sensitive, recall_other)
    gaps = values[1:] - values[:-1]
    order = sorted(
        range(len(middles)), key=lambda i: (imbalance[i].item(), -smaller[i].item(), -gaps[i].item())
    )
    return float(middles[order[0]])


def recall_threshold(scores: Tensor, sensitive: Tensor, recall: float) -> float:
    """Return the smallest threshold that keeps at least the share ``recall`` of the other class at or below it.

    scores, sensitive: (N,). It lies mid-gap between the highest score of the other class that must be kept and the next
    higher score of either class; ties are kept together, so that more may be kept than asked for, never fewer.
    """
    others = torch.sort(scores[~sensitive]).values
    kept = math.ceil(recall * len(others) - SLACK)
    last = others[kept - 1]
    above = scores[scores > last]
    return float(last + (above.min() - last) / 2) if len(above) else float(last)


def _share_up_to(scores: Tensor, thresholds: Tensor) -> Tensor:
    """Return, per threshold, the share of the scores that are not above it."""
    return torch.searchsorted(torch.sort(scores).values, thresholds, right=True).double() / len(scores)
