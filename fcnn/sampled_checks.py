"""Networks and feature maps from outside held against their own claims at random points: a net under the proofs."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fcnn.certificates import DUAL_ORDER
from fcnn.convexity import Proof
from fcnn.convexity_bounds import NotProved

SEED = 0
SEGMENTS = 24
SCALES = (1e-3, 1e-1, 1.0, 10.0, 1e3)
POWER_STEPS = 4
LOOSENESS = 1e-9
EPSILON = torch.finfo(torch.float64).eps


def check_convex(network: Callable[[Tensor], Tensor], features: Tensor, proof: Proof) -> None:
    """Raise NotProved where a score lies below a tangent or above a chord by more than rounding; features (N, *shape).

    The segments start near the given features and near 0, with lengths from 0.001 to 1000.
    """
    generator = torch.Generator().manual_seed(SEED)

    def normal() -> Tensor:
        return torch.randn(SEGMENTS, *features.shape[1:], generator=generator, dtype=torch.float64).to(
            features.device
        )

    starts = features[torch.arange(SEGMENTS, device=features.device) % len(features)]
    for scale in SCALES:
        for start in (starts, starts + normal(), scale * normal()):
            _check_segments(network, start, start + scale * normal(), proof)


def _check_segments(network: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, proof: Proof) -> None:
    start = start.detach().requires_grad_()
    with torch.enable_grad():
        score = network(start)
        (gradient,) = torch.autograd.grad(score.sum(), start, allow_unused=True)
    score, start = score.detach(), start.detach()
    gradient = torch.zeros_like(start) if gradient is None else gradient
    with torch.no_grad():
        middle, far = network((start + end) / 2), network(end)
    tangent = score + (gradient * (end - start)).flatten(1).sum(1)
    sizes = (proof.slope[:1].abs() * (start.abs() + end.abs())).flatten(1).sum(1) + proof.offset[0]
    rounding = 8 * proof.roundings * EPSILON * sizes
    if bool((tangent - far > rounding).any()):
        raise NotProved(
            "the score lies below one of its tangents, so its gradients or its convexity are not right"
        )
    if bool((middle - (score + far) / 2 > rounding).any()):
        raise NotProved("the score lies above one of its chords, so it is not convex")


def check_lipschitz(
    feature_map: Callable[[Tensor], Tensor],
    x: Tensor,
    constant: float,
    norm: str,
    to: str,
    step_error: Callable[[Tensor, str, Tensor], Tensor],
) -> None:
    """Raise ValueError where a feature map stretches a step by more than its constant; x (N, *shape), in float64.

    norm, to: those that the step and the features' change are measured in. step_error: see ``FeatureMap``.
    Steps from x and from random points of the box, of three lengths: random ones, single coordinates, and those that
    power iteration finds to be stretched most.
    """
    order, order_to = ({"l1": 1.0, "l2": 2.0, "linf": math.inf}[name] for name in (norm, to))
    generator = torch.Generator().manual_seed(SEED)
    drawn = torch.rand(len(x), *x.shape[1:], generator=generator, dtype=torch.float64).to(x.device)
    step = torch.randn(2 * len(x), *x.shape[1:], generator=generator, dtype=torch.float64).to(x.device)
    start = torch.cat([x, drawn])
    steps = [step, step.sign()]
    for _ in range(POWER_STEPS):
        step = _most_stretched(feature_map, start, step, norm, to)
        steps.append(step)
    for length in (1e-3, 0.3, 10.0):
        for step in steps:
            with torch.no_grad():
                moved = length * step
                change = _norm(feature_map(start + moved) - feature_map(start), order_to)
                length_of_step = _norm((start + moved) - start, order)
                most = constant * length_of_step * (1 + LOOSENESS)
                room = LOOSENESS * feature_map(start).abs().flatten(1).sum(1)
                room = room + step_error(start, norm, length_of_step)
            if bool((change > most + room).any()):
                raise ValueError(
                    f"{type(feature_map).__name__} stretches a step by {float((change / most).max()) * constant:.6g} "
                    f"in {norm if to == norm else f'{norm} to {to}'}, but lipschitz says {constant:.6g}: nothing "
                    "can be certified; correct it"
                )


def check_weights(
    feature_map: Callable[[Tensor], Tensor], weights: Callable[[Tensor], Tensor | None], x: Tensor
) -> None:
    """Raise ValueError where a step takes more from a tangent than ``weights`` of its gradient allow; x (N, *shape)."""
    generator = torch.Generator().manual_seed(SEED)
    for length in (1e-3, 0.3, 10.0):
        with torch.no_grad():
            step = length * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device)
            before, after = feature_map(x), feature_map(x + step)
            gradient = torch.randn(before.shape, generator=generator, dtype=torch.float64).to(x.device)
            # The gradient that the step takes most from, and a random one.
            for slope in (gradient, -(after - before).sign(), -(after - before)):
                taken = -(slope * (after - before)).flatten(1).sum(1)
                by_coordinate = weights(slope)
                if by_coordinate is None:
                    raise ValueError(
                        f"{type(feature_map).__name__}.tangent_decrease_weights knows some gradients and not others: "
                        "nothing can be certified; correct them"
                    )
                allowed = (by_coordinate * step.flatten(1).abs()).sum(1) * (1 + LOOSENESS)
                room = LOOSENESS * (slope * before).abs().flatten(1).sum(1)
                if bool((taken > allowed + room).any()):
                    raise ValueError(
                        f"{type(feature_map).__name__}.tangent_decrease_weights allow {float(allowed.min()):.6g} where "
                        f"a step takes {float(taken.max()):.6g} from a tangent: nothing can be certified; correct them"
                    )


def _most_stretched(
    feature_map: Callable[[Tensor], Tensor], start: Tensor, step: Tensor, norm: str, to: str
) -> Tensor:
    """One round of power iteration for the derivative's norm: the step that its image's dual vector favours."""
    point = start.detach().requires_grad_()
    with torch.enable_grad():
        features = feature_map(point)
        if not features.requires_grad:
            return step
        image = (feature_map(start + 1e-6 * step) - features).detach()
        (pulled,) = torch.autograd.grad((features * _dual_vector(image, to)).sum(), point)
    # The maximiser of pulled . step over the unit ball is the dual vector in the dual norm.
    return _dual_vector(pulled, {1.0: "l1", 2.0: "l2", math.inf: "linf"}[DUAL_ORDER[norm]])


def _dual_vector(values: Tensor, norm: str) -> Tensor:
    """The vector of dual norm 1 that attains ‖values‖_p for each row, shape (N, *shape)."""
    flat = values.flatten(1)
    if norm == "l1":
        return flat.sign().reshape(values.shape)
    if norm == "l2":
        return (flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-300)).reshape(values.shape)
    largest = flat.abs().argmax(1, keepdim=True)
    return torch.zeros_like(flat).scatter(1, largest, flat.gather(1, largest).sign()).reshape(values.shape)


def _norm(values: Tensor, order: float) -> Tensor:
    return torch.linalg.vector_norm(values.flatten(1), ord=order, dim=1)
