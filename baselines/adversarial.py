"""Losses for networks that are certified afterwards: adversarial training and certified training.

Each is called as loss(model, x, y, done): x (N, *shape) in [0, 1], y (N,) floats with 1 = sensitive, done in [0, 1) the
share of training done; it returns a scalar. The radius trained for grows linearly from 0 to ``epsilon`` while
done < ``ramp``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.intervals import linear_lower_bound, propagate


@dataclass(frozen=True)
class AdversarialLoss:
    """Cross-entropy at the worst point that PGD finds in the linf ball and the box (Madry et al., ICLR 2018).

    steps: gradient steps of PGD from a random start; step_share: their length as a share of the radius.
    """

    epsilon: float
    ramp: float = 0.5
    steps: int = 7
    step_share: float = 0.35

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, done: float) -> Tensor:
        worst = pgd(model, x, y, ramped(self.epsilon, self.ramp, done), self.steps, self.step_share)
        return functional.binary_cross_entropy_with_logits(model(worst), y)


@dataclass(frozen=True)
class CertifiedLoss:
    """clean_share x cross-entropy + the rest x cross-entropy of the worst score that bounds over linf balls allow.

    The clean share starts at 1 and falls to ``clean_share`` along the ramp. The worst score is crown_share x the bound
    of CROWN-IBP + the rest x the interval bound. Sources: Gowal et al., "On the Effectiveness of Interval Bound
    Propagation for Training Verifiably Robust Models" (2018), crown_share = 0; otherwise Zhang et al. (CROWN-IBP, ICLR
    2020).
    """

    epsilon: float
    ramp: float = 0.5
    clean_share: float = 0.5
    crown_share: float = 0.0

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, done: float) -> Tensor:
        share = 1 - ramped(1 - self.clean_share, self.ramp, done)
        clean = functional.binary_cross_entropy_with_logits(model(x), y)
        worst = self.worst_case(model, x, y, ramped(self.epsilon, self.ramp, done))
        return share * clean + (1 - share) * worst

    def worst_case(self, model: nn.Module, x: Tensor, y: Tensor, radius: float) -> Tensor:
        """Cross-entropy of the worst score that the bounds allow within ``radius``."""
        lower, upper, passed = propagate(model, (x - radius).clamp(min=0), (x + radius).clamp(max=1))
        worst = torch.where(y > 0.5, lower, -upper)
        if self.crown_share > 0:
            worst = torch.lerp(worst, linear_lower_bound(passed, 2 * y - 1), self.crown_share)
        return functional.softplus(-worst).mean()


@dataclass(frozen=True)
class ExpressiveLoss:
    """(1 - bound_share) x cross-entropy at PGD's worst point + bound_share x that of the worst interval bound: MTL-IBP.

    The two bracket the worst case of the ball from both sides, and a small share of the bound makes an accurate network
    verifiable.
    Source: De Palma, Bunel, Dvijotham, Kumar, Stanforth and Lomuscio, "Expressive Losses for Verified Robustness via
    Convex Combinations" (ICLR 2024), section 4.
    """

    epsilon: float
    bound_share: float = 0.1
    ramp: float = 0.5
    steps: int = 7
    step_share: float = 0.35

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, done: float) -> Tensor:
        attacked = AdversarialLoss(self.epsilon, self.ramp, self.steps, self.step_share)(model, x, y, done)
        bounded = CertifiedLoss(self.epsilon, self.ramp, clean_share=0.0)
        radius = ramped(self.epsilon, self.ramp, done)
        return (1 - self.bound_share) * attacked + self.bound_share * bounded.worst_case(model, x, y, radius)


def ramped(value: float, ramp: float, done: float) -> float:
    """``value`` after a linear rise from 0 over the first ``ramp`` of the training (0: from the start)."""
    return value * min(1.0, done / ramp) if ramp > 0 else value


def pgd(model: nn.Module, x: Tensor, y: Tensor, radius: float, steps: int, step_share: float) -> Tensor:
    """Points (N, *shape) in the linf balls around x, within [0, 1], that raise the cross-entropy by signed gradients.

    The network is in evaluation mode meanwhile, so that batch statistics are not those of adversarial points.
    """
    if radius == 0:
        return x
    was_training = model.training
    model.eval()
    low, high = (x - radius).clamp(min=0), (x + radius).clamp(max=1)
    point = low + (high - low) * torch.rand_like(x)
    for _ in range(steps):
        point.requires_grad_()
        loss = functional.binary_cross_entropy_with_logits(model(point), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, point)
        with torch.no_grad():
            point = torch.minimum(torch.maximum(point + step_share * radius * gradient.sign(), low), high)
    model.train(was_training)
    return point
