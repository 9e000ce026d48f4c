"""Training losses for scores with a known Lipschitz constant."""

import torch
from torch import Tensor


def margin_loss(score: Tensor, y: Tensor, margin: float = 0.5) -> Tensor:
    """Mean of max(0, margin - s score), s = +1 where y = 1 and -1 where y = 0; score and y are (N,).

    With a 1-Lipschitz score an input of zero loss has a certified radius of at least ``margin``.
    """
    return torch.relu(margin - (2 * y - 1) * score).mean()
