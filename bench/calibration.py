"""The class-balancing threshold, chosen on validation data."""

import torch
from torch import Tensor, nn


class ThresholdedScore(nn.Module):
    """score(x) = network(x) - threshold, the threshold being part of the state; sensitive iff score > 0."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("threshold", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) - self.threshold


def balanced_threshold(scores: Tensor, y: Tensor) -> float:
    """Return the threshold t for which the recalls of "score > t" in the two classes are closest.

    scores: (N,), y: (N,) with 1 = sensitive, both classes present. Among equally balanced thresholds the one with
    the highest smaller recall wins, then the widest gap between the scores on its two sides; t lies mid-gap.
    """
    scores = scores.detach().double().flatten().cpu()
    sensitive = y.flatten().cpu() > 0.5
    if not sensitive.any() or sensitive.all():
        raise ValueError("a balanced threshold needs inputs of both classes: found only one")
    values = torch.unique(scores)
    if len(values) == 1:
        return float(values[0])
    middles = (values[1:] + values[:-1]) / 2
    recall_sensitive = (scores[sensitive][None] > middles[:, None]).double().mean(dim=1)
    recall_other = (scores[~sensitive][None] <= middles[:, None]).double().mean(dim=1)
    imbalance = (recall_sensitive - recall_other).abs()
    smaller = torch.minimum(recall_sensitive, recall_other)
    gaps = values[1:] - values[:-1]
    order = sorted(
        range(len(middles)), key=lambda i: (imbalance[i].item(), -smaller[i].item(), -gaps[i].item())
    )
    return float(middles[order[0]])
