"""Training losses for scores with a known Lipschitz constant."""

import torch
from torch import Tensor


def margin_loss(score: Tensor, y: Tensor, margin: float = 0.5) -> Tensor:
    """Mean of max(0, margin - s score), s = +1 where y = 1 and -1 where y = 0; score and y are (N,).

    With a 1-Lipschitz score an input of zero loss has a certified radius of at least ``margin``.
    """
    return torch.relu(margin - (2 * y - 1) * score).mean()


def one_sided_radius_loss(
    score: Tensor, y: Tensor, margin: float, target: float, weight: float = 1.0
) -> Tensor:
    """Margin loss in units of the margin + weight x mean over sensitive inputs of max(0, 1 - score / target).

    The score is 1-Lipschitz, so for a sensitive input (y = 1) it is the certified radius, which the second term pushes
    up to ``target``; nobody certifies the other class, which only has to stay ``margin`` away. score and y are (N,).
    """
    hinge = torch.relu(1 - score / target)
    return margin_loss(score, y, margin) / margin + weight * (y * hinge).mean()
