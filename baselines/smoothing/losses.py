"""Training losses for the base classifiers of randomized smoothing: cross-entropy under noise, with regularisers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class NoisyLoss:
    """Binary cross-entropy of noisy copies of the input, plus ``consistency`` and ``stability`` terms.

    perturb: x (N, *shape) -> a noisy copy, with the noise the classifier is to be smoothed with; copies: noisy copies
    per input; consistency: weight of KL(mean prediction || prediction) over the copies, with ``entropy`` times the
    entropy of the mean prediction (Jeong, Shin 2020; needs two copies); stability: weight of KL(clean prediction ||
    noisy prediction), the clean one held fixed (Zheng et al. 2016; Li et al. 2019).
    """

    perturb: Callable[[Tensor], Tensor]
    copies: int = 1
    consistency: float = 0.0
    entropy: float = 0.5
    stability: float = 0.0

    def __post_init__(self) -> None:
        if self.copies < 1 or (self.consistency > 0 and self.copies < 2):
            raise ValueError(f"copies = {self.copies}: give at least 1, and at least 2 with consistency")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        """Return the scalar loss of a batch x (N, *shape) with labels y (N,) in {0, 1}."""
        noisy = self.perturb(x.repeat(self.copies, *[1] * (x.dim() - 1)))
        scores = model(noisy).reshape(self.copies, len(x))
        loss = functional.binary_cross_entropy_with_logits(scores, y.expand_as(scores))
        if self.consistency > 0:
            loss = loss + self.consistency * self._inconsistency(scores)
        if self.stability > 0:
            with torch.no_grad():
                clean = model(x).sigmoid()
            loss = loss + self.stability * (_cross_entropy(clean, scores) - _entropy(clean)).mean()
        return loss

    def _inconsistency(self, scores: Tensor) -> Tensor:
        """KL(mean || copy) + entropy * H(mean), averaged; scores (copies, N)."""
        mean = scores.sigmoid().mean(dim=0)
        certainty = _entropy(mean)
        return (_cross_entropy(mean, scores) - (1 - self.entropy) * certainty).mean()


def _cross_entropy(probability: Tensor, scores: Tensor) -> Tensor:
    """-sum over both classes of probability * log(sigmoid(scores)), elementwise."""
    return -(probability * functional.logsigmoid(scores) + (1 - probability) * functional.logsigmoid(-scores))


def _entropy(probability: Tensor) -> Tensor:
    """Entropy of Bernoulli(probability) in nats, elementwise; finite gradients at 0 and 1."""
    probability = probability.clamp(1e-7, 1 - 1e-7)
    return -(probability * probability.log() + (1 - probability) * (1 - probability).log())
