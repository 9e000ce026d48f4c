"""Losses that train a feature-convex classifier for its certified radius.

The closed-form radius of a sensitive input is margin / (Lip_p(phi) ||gradient of g at phi(x)||_{p*}). Training can
raise it by shrinking the gradient's dual norm (``RegularisedLoss``, the paper's choice with the norm left open), or aim
at the quotient itself (``RadiusLoss``, this suite's). Both take several norms at once. Source of the regulariser:
Pfrommer, Anderson, Piet, Sojoudi (NeurIPS 2023), section 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fcnn.certificates import DUAL_ORDER, check_norm
from fcnn.classifier import FeatureConvexClassifier

TINY = 1e-12


@dataclass(frozen=True)
class RegularisedLoss:
    """Cross-entropy + sum over norms of weight x batch mean of the dual norm of the per-example gradient of g.

    weights: norm whose radius one cares for -> weight; {"l1": 0.2} penalises the gradient's linf norm. The gradient
    is taken at every input of the batch, or at the sensitive ones only (``sensitive_only``): no radius is ever
    asked of the others.
    """

    weights: Mapping[str, float]
    sensitive_only: bool = False

    def __post_init__(self) -> None:
        _check_weights(self.weights)

    def __call__(self, model: FeatureConvexClassifier, x: Tensor, y: Tensor, done: float) -> Tensor:
        score, gradient = score_and_gradient(model, x)
        loss = functional.binary_cross_entropy_with_logits(score, y)
        chosen = y if self.sensitive_only else torch.ones_like(y)
        for norm, weight in self.weights.items():
            size = torch.linalg.vector_norm(gradient, ord=DUAL_ORDER[norm], dim=1)
            loss = loss + weight * (size * chosen).sum() / chosen.sum().clamp(min=1)
        return loss


@dataclass(frozen=True)
class RadiusLoss:
    """Cross-entropy + for sensitive inputs a smooth hinge on the closed-form radius in each norm.

    radii: norm -> radius r to aim for; an input of radius rho adds weight x softplus(sharpness (1 - rho / r)) /
    sharpness, close to weight x max(0, 1 - rho / r). Inputs that are not sensitive add the same for the distance by
    which they should be rejected when ``other_share`` > 0 (their score is -margin, so -rho): it keeps the classes'
    recalls in balance.
    """

    radii: Mapping[str, float]
    weight: float = 1.0
    sharpness: float = 5.0
    other_share: float = 0.0

    def __post_init__(self) -> None:
        _check_weights(self.radii)

    def __call__(self, model: FeatureConvexClassifier, x: Tensor, y: Tensor, done: float) -> Tensor:
        score, gradient = score_and_gradient(model, x)
        loss = functional.binary_cross_entropy_with_logits(score, y)
        side = 2 * y - 1
        share = torch.where(y > 0.5, 1.0, self.other_share)
        for norm, target in self.radii.items():
            radius = signed_radius(model, score, gradient, norm)
            hinge = functional.softplus(self.sharpness * (1 - side * radius / target)) / self.sharpness
            loss = loss + self.weight * (share * hinge).mean() / len(self.radii)
        return loss


def score_and_gradient(model: FeatureConvexClassifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores (N,) and gradients of g at phi(x), (N, k), both part of the graph that training differentiates."""
    features = model.feature_map(x)
    if not features.requires_grad:
        features = features.detach().requires_grad_()
    score = model.network(features) - model.threshold
    (gradient,) = torch.autograd.grad(score.sum(), features, create_graph=True)
    return score, gradient.flatten(1)


def signed_radius(model: FeatureConvexClassifier, score: Tensor, gradient: Tensor, norm: str) -> Tensor:
    """Return score / (Lip_p ||gradient||_{p*}), (N,): the closed-form radius where the score is positive."""
    size = torch.linalg.vector_norm(gradient, ord=DUAL_ORDER[norm], dim=1)
    return score / (model.feature_map.lipschitz(norm) * size).clamp(min=TINY)


def median_radius(model: FeatureConvexClassifier, x: Tensor, y: Tensor, norm: str) -> float:
    """Return the median closed-form radius over the sensitive inputs of x (N, *shape), not certified counting as 0.

    The measure for early stopping on certified radius: in the model's own dtype, so no certificate.
    """
    radii = []
    for batch in x[y > 0.5].split(1024):
        score, gradient = score_and_gradient(model, batch)
        radii.append(signed_radius(model, score, gradient, norm).detach().clamp(min=0))
    return float(torch.cat(radii).median())


def _check_weights(weights: Mapping[str, float]) -> None:
    for norm, value in weights.items():
        check_norm(norm)
        if not value >= 0:
            raise ValueError(f"{norm} = {value}: must be a number >= 0")
