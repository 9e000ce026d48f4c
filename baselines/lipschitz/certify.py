"""Radii from a score with a known Lipschitz constant L: no x' with ||x' - x|| < score(x) / L changes the sign."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from baselines.lipschitz.activations import MaxMin
from baselines.lipschitz.layers import spectral_norm
from baselines.lipschitz.linf import MeanShift
from baselines.lipschitz.networks import ChannelPad, ConvexResidual, LipschitzNetwork

# Layers that increase no distance in any norm: they move, copy, sort or translate coordinates.
ONE_LIPSCHITZ = (nn.Flatten, nn.PixelUnshuffle, nn.ZeroPad2d, ChannelPad, MaxMin, MeanShift)
# Relative shave for the rounding of the constants (eigenvalues of n rows err by about n 1e-16).
BOUND_SLACK = 1e-9
# Rounding of a float64 score, per unit of input length: a layer of d inputs errs by less than d sqrt(d) 1e-16.
SCORE_SLACK = 1e-10


def certify(network: LipschitzNetwork, x: Tensor, norms: Sequence[str]) -> dict[str, Tensor]:
    """Return norm -> (N,) float64 radii in the units of x, 0 where the score is not positive (domain free).

    Native in ``network.norm``; converted ones use ||v||_inf <= ||v||_2 <= ||v||_1 and ||v||_2 <= sqrt(d) ||v||_inf, and
    from l1 to l2 the longest column of a dense first layer, which is shorter than 1 when that layer narrows.
    Raises ValueError unless the network is in float64 and in evaluation mode: ``network.double().eval()``.
    """
    if network.training or network.threshold.dtype != torch.float64:
        raise ValueError("certificates need float64 and evaluation mode: call network.double().eval() first")
    with torch.no_grad():
        x = x.double()
        slack = SCORE_SLACK * (1 + x.flatten(1).norm(dim=1))
        score = network(x) - slack
    # Compared, not clamped, so that an input that is no number gets 0 and not NaN.
    positive = torch.where(score > 0, score, 0)
    bounds = {norm: _bound_from(network, norm, x[0].numel()) for norm in norms}
    return {norm: positive / (bounds[norm] * (1 + BOUND_SLACK)) for norm in norms}


def lipschitz_bound(module: nn.Module, norm: str) -> float:
    """Bound the Lipschitz constant of a module in a norm ("l2" or "linf") by the product of its layers' bounds.

    Computed from the weights in use, not assumed. Raises ValueError for a layer whose constant in that norm is unknown.
    """
    if isinstance(module, nn.Sequential):
        return math.prod(lipschitz_bound(layer, norm) for layer in module)
    if isinstance(module, ConvexResidual):
        return max(1.0, lipschitz_bound(module.branch, norm))
    if isinstance(module, nn.Linear):
        weight = module.weight.detach().double()
        return spectral_norm(weight) if norm == "l2" else weight.abs().sum(dim=1).max().item()
    if isinstance(module, ONE_LIPSCHITZ):
        return 1.0
    if getattr(module, "norm", None) == norm:
        return module.lipschitz_bound()
    raise ValueError(
        f"no Lipschitz bound in {norm} for layer {type(module).__name__}: use layers made for {norm}"
    )


def _bound_from(network: LipschitzNetwork, norm: str, features: int) -> float:
    """Bound the change of the score per unit of change of the input (d = features), measured in ``norm``."""
    if network.norm == "l2" and norm == "l1":
        return _bound_from_l1(network.body)
    native = lipschitz_bound(network.body, network.norm)
    return native * math.sqrt(features) if (network.norm, norm) == ("l2", "linf") else native


def _bound_from_l1(body: nn.Sequential) -> float:
    """Bound the score's change per unit of l1: the first layer's own constant where it has one, then l2 onwards."""
    first = next(index for index, layer in enumerate(body) if not isinstance(layer, ONE_LIPSCHITZ))
    if not hasattr(body[first], "bound_from_l1"):
        return lipschitz_bound(body, "l2")
    return body[first].bound_from_l1() * lipschitz_bound(body[first + 1 :], "l2")
