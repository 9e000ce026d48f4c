"""Where a threshold must lie for a smoothed classifier to decide, from noisy scores of an input."""

import numpy as np
from torch import Tensor

from baselines.smoothing.confidence import votes_needed


def decision_scores(scores: Tensor, draws: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) low and (N,) high: with threshold t an input is sensitive iff t < low, not sensitive iff t >= high.

    scores: (N, m) noisy scores of each input. In between it abstains: neither side has the share of votes that a
    decision from ``draws`` draws at level ``alpha`` needs. Raises ValueError where no number of votes would decide.
    """
    needed = votes_needed(draws, alpha)
    if needed > draws:
        raise ValueError(f"{draws} draws can never decide at alpha = {alpha}: draw more or raise alpha")
    ordered = np.sort(scores.double().cpu().numpy(), axis=1)
    count = ordered.shape[1]
    position = min(count, int(np.ceil(needed / draws * count)))
    return ordered[:, count - position], ordered[:, position - 1]
