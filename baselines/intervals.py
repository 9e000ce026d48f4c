"""Bounds of a network's score that are differentiable in its weights: for training, not for certificates.

Sequences of Linear, Conv2d, ReLU, average pooling, BatchNorm2d (in evaluation mode), Flatten, Identity and Normalise
are known. Sources: Gowal et al. (2018), section 3, for intervals; Zhang et al., "Towards Stable and Efficient Training
of Verifiably Robust Neural Networks" (CROWN-IBP, ICLR 2020) for linear bounds whose ReLUs are bounded by intervals.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.networks import Normalise

# Increasing in every input, so corners go to corners.
INCREASING = (nn.ReLU, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity)
SMALLEST_WIDTH = 1e-12


@dataclass(frozen=True)
class LayerBounds:
    """A layer and the box (N, *shape) that its input lies in."""

    layer: nn.Module
    lower: Tensor
    upper: Tensor


def propagate(network: nn.Module, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, list[LayerBounds]]:
    """Bounds (N, ...) on the output of ``network`` over the box between two corners (N, *shape), and those on the way.

    Raises ValueError for a layer that is not known.
    """
    if type(network) is nn.Sequential:
        passed: list[LayerBounds] = []
        for layer in network:
            lower, upper, inner = propagate(layer, lower, upper)
            passed += inner
        return lower, upper, passed
    passed = [LayerBounds(network, lower, upper)]
    if type(network) in INCREASING:
        return network(lower), network(upper), passed
    reach = _reach(network, (upper - lower) / 2)
    center = network((lower + upper) / 2)
    return center - reach, center + reach, passed


def linear_lower_bound(passed: list[LayerBounds], sign: Tensor) -> Tensor:
    """Lower bound (N,) of sign x score over the box, by CROWN through the layers that ``propagate`` passed.

    sign: (N,) +1 or -1; -1 bounds the score from above.
    """
    last = passed[-1]
    with torch.no_grad():
        shape = last.layer(last.lower).shape
    coefficients, constant = sign.reshape(-1, *[1] * (len(shape) - 1)).expand(shape), torch.zeros_like(sign)
    for bounds in reversed(passed):
        if isinstance(bounds.layer, nn.ReLU):
            coefficients, added = _through_relu(coefficients, bounds)
        else:
            coefficients, added = _through_affine(coefficients, bounds)
        constant = constant + added
    first = passed[0]
    lowest = coefficients.clamp(min=0) * first.lower + coefficients.clamp(max=0) * first.upper
    return lowest.flatten(1).sum(dim=1) + constant


def _through_relu(coefficients: Tensor, bounds: LayerBounds) -> tuple[Tensor, Tensor]:
    """Coefficients before a ReLU: the chord where they are negative, the nearer of slopes 0 and 1 elsewhere."""
    low, high = bounds.lower.clamp(max=0), bounds.upper.clamp(min=0)
    chord = high / (high - low).clamp(min=SMALLEST_WIDTH)
    slope = (bounds.upper > -bounds.lower).to(chord.dtype)
    down, up = coefficients.clamp(max=0), coefficients.clamp(min=0)
    return down * chord + up * slope, (-down * chord * low).flatten(1).sum(dim=1)


def _through_affine(coefficients: Tensor, bounds: LayerBounds) -> tuple[Tensor, Tensor]:
    """Coefficients before an affine layer, by its gradient, and what its bias adds."""
    origin = torch.zeros_like(bounds.lower).requires_grad_()
    value = bounds.layer(origin)
    (before,) = torch.autograd.grad(value, origin, coefficients, create_graph=True)
    return before, (coefficients * value).reshape(len(origin), -1).sum(dim=1)


def _is_fixed(layer: nn.BatchNorm2d) -> bool:
    return not layer.training and layer.running_var is not None


def _reach(layer: nn.Module, reach: Tensor) -> Tensor:
    """Half width behind an affine layer of a box with half width ``reach`` before it."""
    kind = type(layer)  # a subclass may compute something else
    if isinstance(layer, nn.Linear) and kind is nn.Linear:
        return functional.linear(reach, layer.weight.abs())
    if isinstance(layer, nn.Conv2d) and kind is nn.Conv2d and layer.padding_mode == "zeros":
        return functional.conv2d(
            reach, layer.weight.abs(), None, layer.stride, layer.padding, layer.dilation, layer.groups
        )
    if (
        isinstance(layer, nn.BatchNorm2d)
        and kind is nn.BatchNorm2d
        and not layer.training
        and layer.running_var is not None
    ):
        scale = torch.rsqrt(layer.running_var.add(layer.eps))
        scale = scale if layer.weight is None else layer.weight * scale
        return reach * scale.abs()[None, :, None, None]
    if isinstance(layer, Normalise) and kind is Normalise:
        return reach / layer.std.abs()
    raise ValueError(
        f"bounds for training know no layer {kind.__name__}: use Linear, Conv2d, ReLU, average pooling, Flatten "
        "and, in evaluation mode, BatchNorm2d"
    )
