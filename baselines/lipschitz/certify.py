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

    Native in ``network.norm``; converted ones use ||v||_inf <= ||v||_2 <= ||v||_1 and ||v||_2 <= sqrt(d) ||v||_inf.
    Raises ValueError unless the network is in float64 and in evaluation mode: ``network.double().eval()``.
    """
    if network.training or network.threshold.dtype != torch.float64:
        raise ValueError("certificates need float64 and evaluation mode: call network.double().eval() first")
    bound = lipschitz_bound(network.body, network.norm) * (1 + BOUND_SLACK)
    with torch.no_grad():
        x = x.double()
        slack = SCORE_SLACK * (1 + x.flatten(1).norm(dim=1))
        score = network(x) - slack
    # Compared, not clamped, so that an input that is no number gets 0 and not NaN.
    native = torch.where(score > 0, score, 0) / bound
    features = x[0].numel()
    return {norm: native / _conversion(network.norm, norm, features) for norm in norms}


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


def _conversion(native: str, norm: str, features: int) -> float:
    """The largest ||v||_native over v in R^features with ||v||_norm = 1."""
    if native == "l2" and norm == "linf":
        return math.sqrt(features) * (1 + BOUND_SLACK)
    return 1.0
