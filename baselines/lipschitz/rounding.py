"""How far a float64 score can lie from the score in real numbers: a forward-error bound along a network's layers.

A layer of real constant L (from its norm to the next) turns an error e of its input into at most L e and adds its own
rounding, at most

    u k (L (||z|| + reach) + offset),      u = 2^-53,

where ||z|| is the size of its input, reach how far a perturbed input can bring it from z, offset the size of what it
adds or subtracts (bias, mean, centres), and k depends on its sums (Higham, *Accuracy and Stability of Numerical
Algorithms*, chapters 3 and 24): a sum of n products, in whatever order, errs by at most (n + 1) u times the sum of the
absolute products, which is at most L ||z|| from l1 and in linf, and sqrt(n) L ||z|| in l2, where |W| may be that much
longer than W.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.lipschitz.activations import MaxMin
from baselines.lipschitz.bro import BROLinear
from baselines.lipschitz.fourier import FourierConv2d
from baselines.lipschitz.layers import spectral_norm
from baselines.lipschitz.linf import HalfDifference, LinfDistance, MeanShift
from baselines.lipschitz.networks import ChannelPad, ConvexResidual, InputShift, LipschitzNetwork
from baselines.lipschitz.sll import SLLConv2d, SLLLinear

LayerBound = Callable[[nn.Module, str], tuple[float, str]]

UNIT = 2.0**-53
ORDER = {"l1": 1.0, "l2": 2.0, "linf": math.inf}
# Layers that only move, copy, compare and sort numbers.
EXACT = (nn.Flatten, nn.PixelUnshuffle, nn.ZeroPad2d, ChannelPad, MaxMin)
# Rounding of a Fourier transform per doubling of its length, with room for lengths that are no powers of two.
FOURIER = 30.0
# For what the bounds above leave out: products of errors, and the rounding of the bounds themselves.
MARGIN = 1 + 1e-6


@dataclass
class _Passing:
    """Values z (N, ...), measured in ``norm``; error (N,) of z; how far a perturbed input can be from z, (N,)."""

    z: Tensor
    norm: str
    error: Tensor
    reach: Tensor

    @property
    def size(self) -> Tensor:
        return torch.linalg.vector_norm(self.z.flatten(1), ORDER[self.norm], dim=1)


def score_error(
    network: LipschitzNetwork, x: Tensor, reach: Tensor, threshold: float, bound: LayerBound
) -> Tensor:
    """Bound (N,) the rounding of the score, in any batch, at x (N, *shape) and wherever within ``reach`` (N,) of it.

    reach: in ``network.norm``; threshold: the largest size of one that is subtracted; bound(layer, norm) -> its
    Lipschitz constant and the norm behind it.
    """
    start = _Passing(x, network.norm, torch.zeros_like(reach), reach)
    end = _through(network.body, start, bound)
    return MARGIN * (end.error + UNIT * (end.size + end.reach + threshold))


def output_error(layers: nn.Module, norm: str, x: Tensor, reach: Tensor, bound: LayerBound) -> Tensor:
    """Bound (N,) the rounding of the layers' output, in the norm behind them; the rest as for ``score_error``."""
    return MARGIN * _through(layers, _Passing(x, norm, torch.zeros_like(reach), reach), bound).error


def _through(layer: nn.Module, before: _Passing, bound: LayerBound) -> _Passing:
    if isinstance(layer, nn.Sequential):
        for part in layer:
            before = _through(part, before, bound)
        return before
    z = layer(before.z)
    if isinstance(layer, EXACT):
        return _Passing(z, before.norm, before.error, before.reach)
    constant, norm = bound(layer, before.norm)
    if isinstance(layer, ConvexResidual):
        branch = _through(layer.branch, before, bound)
        error = torch.maximum(before.error, branch.error)
        own = 4 * UNIT * (before.size + before.reach + branch.size + branch.reach)
        return _Passing(z, norm, error + own, constant * before.reach)
    factor, offset = _sums(layer, before.z, before.norm)
    own = UNIT * factor * (constant * (before.size + before.reach) + offset)
    return _Passing(z, norm, constant * before.error + own, constant * before.reach)


def _sums(layer: nn.Module, z: Tensor, norm: str) -> tuple[float, Tensor]:
    """Return k and the offset of a layer whose input is z."""
    nothing = z.new_zeros(())
    if isinstance(layer, LinfDistance):
        return 2.0, layer.centre.detach().abs().max()
    if isinstance(layer, MeanShift | InputShift):
        return 2.0, torch.linalg.vector_norm(layer.mean, ORDER[norm])
    if isinstance(layer, HalfDifference):
        return 2.0, nothing
    bias = getattr(layer, "bias", None)
    offset = nothing if bias is None else torch.linalg.vector_norm(bias.detach(), ORDER[norm])
    if isinstance(layer, FourierConv2d):
        channels, pixels = max(layer.raw.shape[:2]), z.shape[2] * z.shape[3]
        transforms = 2 * FOURIER * math.log2(4 * pixels)
        return transforms + 4 * _products(channels, norm), offset * math.sqrt(pixels)
    if isinstance(layer, SLLLinear | SLLConv2d):
        # Two products; between them T^(-1/2) (W' z + b) is no longer than z and T^(-1/2) b together.
        scaled = torch.linalg.vector_norm(layer.bias.detach() / layer.weight().sqrt())
        terms = max(layer.raw.shape[0], layer.raw.shape[1]) * layer.raw[0, 0].numel()
        pixels = z.shape[2] * z.shape[3] if z.dim() == 4 else 1
        return 2 + 4 * _products(terms, "l2"), scaled * math.sqrt(pixels)
    if isinstance(layer, BROLinear):
        # Two products, with values between them that may be longer than z where directions almost depend.
        between = spectral_norm(layer.raw) * spectral_norm(layer.weight())
        return 2 + 8 * between * _products(z[0].numel(), "l2"), offset
    return _products(z[0].numel(), norm), offset


def _products(terms: int, norm: str) -> float:
    """k of a matrix of so many columns, with room for a bias, a division and the rounding of its entries."""
    return (terms + 4) * (math.sqrt(terms) if norm == "l2" else 1.0)
