"""Losses that train a feature-convex classifier for its certified radius.

The closed-form radius of a sensitive input is margin / (Lip_p(phi) ||gradient of g at phi(x)||_{p*}). Training can
raise it by shrinking the gradient's dual norm (``RegularisedLoss``, the paper's choice with the norm left open), or aim
at the quotient itself (``RadiusLoss``, this suite's). Both take several norms at once. Source of the regulariser:
Pfrommer, Anderson, Piet, Sojoudi (NeurIPS 2023), section 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from fcnn.certificates import DUAL_ORDER, check_norm
from fcnn.classifier import FeatureConvexClassifier
from fcnn.feature_maps import Identity

TINY = 1e-12
LEVEL_STEPS = 15


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
class WeightedLoss:
    """As ``RegularisedLoss``, for targets (N, 2): each row's label, and its weight in both sums.

    mutable: (d,) bool, the coordinates of a table whose gradient counts; None: all. It needs a feature map that acts on
    each coordinate alone.
    """

    weights: Mapping[str, float]
    mutable: Tensor | None = None

    def __post_init__(self) -> None:
        _check_weights(self.weights)

    def __call__(self, model: FeatureConvexClassifier, x: Tensor, y: Tensor, done: float) -> Tensor:
        label, weight = y.unbind(dim=1)
        score, gradient = score_and_gradient(model, x)
        if self.mutable is not None:
            gradient = gradient * self.mutable.repeat(gradient.shape[1] // len(self.mutable)).to(gradient)
        loss = functional.binary_cross_entropy_with_logits(score, label, reduction="none")
        for norm, strength in self.weights.items():
            loss = loss + strength * torch.linalg.vector_norm(gradient, ord=DUAL_ORDER[norm], dim=1)
        return (loss * weight).mean()


@dataclass(frozen=True)
class RadiusLoss:
    """Cross-entropy + for sensitive inputs a smooth hinge on the closed-form radius in each norm.

    radii: norm -> radius r to aim for; an input of radius rho adds weight x softplus(sharpness (1 - rho / r)) /
    sharpness, close to weight x max(0, 1 - rho / r). Inputs that are not sensitive add the same for the distance by
    which they should be rejected when ``other_share`` > 0 (their score is -margin, so -rho): it keeps the classes'
    recalls in balance. box_radii: the same for the tangent's radius inside [0, 1]^d, where a coordinate has only so
    much room: rho / r is then margin / (most that a move of norm r inside the box takes from the tangent), which is 1
    exactly where the radius is r.
    """

    radii: Mapping[str, float]
    weight: float = 1.0
    sharpness: float = 5.0
    other_share: float = 0.0
    box_radii: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_weights(self.radii)
        _check_weights(self.box_radii)

    def __call__(self, model: FeatureConvexClassifier, x: Tensor, y: Tensor, done: float) -> Tensor:
        score, gradient = score_and_gradient(model, x)
        loss = functional.binary_cross_entropy_with_logits(score, y)
        shares_of_target = [
            signed_radius(model, score, gradient, norm) / target for norm, target in self.radii.items()
        ] + [
            score / box_decrease(model, x, gradient, norm, target).clamp(min=TINY)
            for norm, target in self.box_radii.items()
        ]
        for reached in shares_of_target:
            hinge = radius_hinge(reached, y, self.other_share, self.sharpness)
            loss = loss + self.weight * hinge / len(shares_of_target)
        return loss


def radius_hinge(reached: Tensor, y: Tensor, other_share: float, sharpness: float = 5.0) -> Tensor:
    """Return the mean smooth hinge () on signed radii in units of their target, (N,): the term of ``RadiusLoss``.

    Inputs that are not sensitive (y = 0, (N,)) are to be as far on the other side, and count ``other_share``.
    """
    hinge = functional.softplus(sharpness * (1 - (2 * y - 1) * reached)) / sharpness
    return (torch.where(y > 0.5, 1.0, other_share) * hinge).mean()


def score_and_gradient(model: FeatureConvexClassifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores (N,) and gradients of g at phi(x), (N, k), both part of the graph that training differentiates."""
    features = model.feature_map(x)
    if not features.requires_grad:
        features = features.detach().requires_grad_()
    score = model.network(features) - model.threshold
    (gradient,) = torch.autograd.grad(score.sum(), features, create_graph=True)
    return score, gradient.flatten(1)


def signed_radius(model: FeatureConvexClassifier, score: Tensor, gradient: Tensor, norm: str) -> Tensor:
    """Return score / (Lip_p->q ||gradient||_{q*}), (N,): the closed-form radius where the score is positive."""
    size = torch.linalg.vector_norm(gradient, ord=DUAL_ORDER[model.feature_map.lands_in(norm)], dim=1)
    return score / (model.feature_map.constant(norm) * size).clamp(min=TINY)


def box_decrease(
    model: FeatureConvexClassifier, x: Tensor, gradient: Tensor, norm: str, radius: float
) -> Tensor:
    """Return the most (N,) that a move of norm <= radius inside [0, 1]^d takes from the tangent at x (N, *shape).

    Exact for Identity; for other maps that act on each coordinate alone no less than the exact value. Differentiable
    in the gradient (N, k); the best move is held fixed meanwhile, which leaves the derivative right (envelope
    theorem). Raises ValueError for a feature map that mixes coordinates.
    """
    feature_map, x = model.feature_map, x.flatten(1)
    weights = feature_map.coordinate_weights(gradient)
    if weights is None:
        raise ValueError(
            f"{type(feature_map).__name__} mixes coordinates, so there is no box radius to train for: use radii instead"
        )
    rooms = torch.maximum(x, 1 - x)
    if feature_map.is_exactly(Identity):
        rooms = torch.where(gradient.detach() > 0, x, 1 - x)
    return (weights * farthest_move(weights.detach(), rooms, norm, radius)).sum(dim=1)


def farthest_move(weights: Tensor, rooms: Tensor, norm: str, radius: float) -> Tensor:
    """Return the m (N, d), 0 <= m <= rooms, ||m||_p <= radius, that maximises weights . m; all (N, d), >= 0."""
    if norm == "linf":
        return rooms.clamp(max=radius)
    if norm == "l1":
        order = weights.argsort(dim=1, descending=True)
        filled = rooms.gather(1, order).cumsum(dim=1).clamp(max=radius)
        moves = filled.diff(dim=1, prepend=torch.zeros_like(filled[:, :1]))
        return torch.zeros_like(moves).scatter(1, order, moves)
    # min(level x weight, room), the level rising from below until the free coordinates spend what the full ones leave.
    level = torch.zeros_like(weights[:, :1])
    for _ in range(LEVEL_STEPS):
        full = level * weights >= rooms
        left = radius**2 - torch.where(full, rooms, 0.0).square().sum(dim=1, keepdim=True)
        steepness = torch.where(full, 0.0, weights).square().sum(dim=1, keepdim=True)
        level = torch.maximum(level, (left.clamp(min=0) / steepness.clamp(min=TINY)).sqrt())
    return torch.minimum(level * weights, rooms)


@torch.no_grad()
def balanced_accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the mean of the two classes' recalls at score 0: the measure for early stopping on accuracy."""
    predicted = torch.cat([model(batch) > 0 for batch in x.split(1024)])
    sensitive = y > 0.5
    return float((predicted[sensitive].double().mean() + (~predicted[~sensitive]).double().mean()) / 2)


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
