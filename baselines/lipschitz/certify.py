"""Radii from a score with a known Lipschitz constant L: no x' with ||x' - x|| < score(x) / L changes the sign."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from baselines.lipschitz.activations import MaxMin
from baselines.lipschitz.layers import spectral_norm
from baselines.lipschitz.linf import MeanShift
from baselines.lipschitz.networks import ChannelPad, ConvexResidual, InputShift, LipschitzNetwork
from baselines.lipschitz.rounding import UNIT, score_error

# Layers that increase no distance in any norm: they move, copy, sort or translate coordinates.
ONE_LIPSCHITZ = (nn.Flatten, nn.PixelUnshuffle, nn.ZeroPad2d, ChannelPad, MaxMin, MeanShift, InputShift)
ORDER = {"l1": 1.0, "l2": 2.0, "linf": math.inf}
# Relative shave for the rounding of the constants (eigenvalues of n rows err by about n 1e-16).
BOUND_SLACK = 1e-9
# No radius reaches this far in units of x.
FARTHEST = 2.0**40


def certify(
    network: LipschitzNetwork, x: Tensor, norms: Sequence[str], features: int | None = None
) -> dict[str, Tensor]:
    """Return norm -> (N,) float64 radii in the units of x, 0 where the score is not positive (domain free).

    Native in ``network.norm``. The others are converted by ||v||_q <= max(1, d^(1/q - 1/p)) ||v||_p, or by the constant
    that the first layer has from the other norm (``bound_from``) where that is smaller. Every x' within the radius has
    a positive score as it is computed in float64, in any batch: rounding at x and at x' is taken off the score.
    features: how many coordinates may change together (default: all d). Raises ValueError unless the network is in
    float64 and in evaluation mode: ``network.double().eval()``.
    """
    return certify_at_thresholds(network, x, [float(network.threshold)], norms, features)[0]


def certify_at_thresholds(
    network: LipschitzNetwork,
    x: Tensor,
    thresholds: Sequence[float],
    norms: Sequence[str],
    features: int | None = None,
) -> list[dict[str, Tensor]]:
    """Return what ``certify`` returns with each of the thresholds, at the price of one pass for all."""
    if network.training or network.threshold.dtype != torch.float64:
        raise ValueError("certificates need float64 and evaluation mode: call network.double().eval() first")
    with torch.no_grad():
        x = x.double()
        score, features = network.body(x).squeeze(1), features or x[0].numel()
        bounds = {norm: bound_from(network.body, network.norm, norm, features) for norm in norms}
        stretch = max(conversion(network.norm, norm, features) / bounds[norm] for norm in norms)
        # The error is convex in how far a radius reaches: below its chord, and so the same whatever else is asked for.
        here = score_error(network, x, torch.zeros_like(score), 0.0, layer_bound)
        slope = score_error(network, x, torch.full_like(score, FARTHEST), 0.0, layer_bound) / FARTHEST
    found = []
    for threshold in thresholds:
        reach = stretch * (score - threshold).clamp(min=0)
        error = here + slope * reach + 2 * UNIT * abs(threshold)
        # Twice: the score of x may be computed too large, and that of x' too small.
        margin = torch.where(reach <= FARTHEST, score - threshold - 2 * error, 0)
        # Compared, not clamped, so that an input that is no number gets 0 and not NaN.
        positive = torch.where(margin > 0, margin, 0)
        found.append({norm: positive / (bounds[norm] * (1 + BOUND_SLACK)) for norm in norms})
    return found


def lipschitz_bound(module: nn.Module, norm: str) -> float:
    """Bound the Lipschitz constant of a module from a norm ("l1", "l2" or "linf") to the one its last layer ends in.

    The product of its layers' bounds, computed from the weights in use, not assumed. Raises ValueError for a layer
    whose constant from the norm that reaches it is unknown.
    """
    return layer_bound(module, norm)[0]


def layer_bound(module: nn.Module, norm: str) -> tuple[float, str]:
    """The bound from ``norm``, and the norm that distances are measured in behind the module."""
    if isinstance(module, nn.Sequential):
        product = 1.0
        for layer in module:
            factor, norm = layer_bound(layer, norm)
            product *= factor
        return product, norm
    if isinstance(module, ConvexResidual):
        return max(1.0, lipschitz_bound(module.branch, norm)), norm
    if isinstance(module, nn.Linear):
        return _bound_of_linear(module.weight.detach().double(), norm)
    if isinstance(module, ONE_LIPSCHITZ):
        return 1.0, norm
    declared: Any = module
    if getattr(declared, "norm", None) == norm:
        return declared.lipschitz_bound(), getattr(declared, "norm_out", norm)
    raise ValueError(
        f"no Lipschitz bound in {norm} for layer {type(module).__name__}: use layers made for {norm}"
    )


def _bound_of_linear(weight: Tensor, norm: str) -> tuple[float, str]:
    if norm == "l2":
        return spectral_norm(weight), "l2"
    return (weight.abs().max() if norm == "l1" else weight.abs().sum(dim=1).max()).item(), "linf"


def bound_from(body: nn.Sequential, native: str, norm: str, features: int) -> float:
    """Bound how far the output moves per unit of the input's change (d = features) measured in ``norm``.

    native: the norm that the body's first layer is made for.
    """
    constant = lipschitz_bound(body, native)
    if norm == native:
        return constant
    converted = constant * conversion(native, norm, features)
    return min(converted, _bound_through_first_layer(body, norm))


def conversion(native: str, norm: str, features: int) -> float:
    """The largest ||v||_native of a v (features,) with ||v||_norm = 1."""
    return max(1.0, features ** (1 / ORDER[native] - 1 / ORDER[norm]))


def _bound_through_first_layer(body: nn.Sequential, norm: str) -> float:
    """The first layer's own constant from ``norm`` times those of the others from where it ends; inf without one."""
    weighted = [index for index, layer in enumerate(body) if not isinstance(layer, ONE_LIPSCHITZ)]
    if not weighted or not hasattr(body[weighted[0]], "bound_from"):
        return math.inf
    first = weighted[0]
    layer: Any = body[first]
    return layer.bound_from(norm) * lipschitz_bound(body[first + 1 :], getattr(layer, "norm_out", layer.norm))
