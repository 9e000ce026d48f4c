"""Functions at the end of a network that never fall, so that a threshold on them is one on what they are given."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from bench.model_files.layers import Clip, Exp, Leaky, Log


@dataclass(frozen=True)
class Monotone:
    """A function that never falls: its inverse, the ends of its range, and whether it always rises."""

    inverse: Callable[[float], float]
    of: Callable[[float], float]
    low: float = -math.inf
    high: float = math.inf
    strict: bool = True


def monotone(layer: nn.Module) -> Monotone | None:
    """What is known of a layer that never falls; None of any other."""

    def of(x: float) -> float:
        if math.isinf(x):
            return x
        return float(layer(torch.full((1, 1), x, dtype=torch.float64)))

    if isinstance(layer, nn.Sigmoid):
        return Monotone(lambda t: math.log(t) - math.log1p(-t), of, 0.0, 1.0)
    if isinstance(layer, nn.Tanh):
        return Monotone(math.atanh, of, -1.0, 1.0)
    if isinstance(layer, nn.ReLU):
        return Monotone(lambda t: t, of, low=0.0, strict=False)
    if isinstance(layer, Clip):
        low = -math.inf if layer.low is None else layer.low
        return Monotone(lambda t: t, of, low, math.inf if layer.high is None else layer.high, strict=False)
    if isinstance(layer, Leaky) and layer.slope.numel() == 1 and float(layer.slope) > 0:
        return Monotone(lambda t: t if t > 0 else t / float(layer.slope), of)
    if isinstance(layer, nn.ELU) and layer.alpha > 0:
        return Monotone(lambda t: t if t > 0 else math.log1p(t / layer.alpha), of, low=-layer.alpha)
    if isinstance(layer, nn.Softplus):
        return Monotone(lambda t: t + math.log(-math.expm1(-t)), of, low=0.0)
    if isinstance(layer, Exp):
        return Monotone(math.log, of, low=0.0)
    if isinstance(layer, Log):
        return Monotone(
            math.exp, lambda x: math.log(x) if 0 < x < math.inf else math.copysign(math.inf, x - 1)
        )
    return None


def log_odds(t: float, logarithm: bool) -> float:
    """log(p / (1 - p)) of a probability p, given as itself or by its logarithm."""
    return t - math.log(-math.expm1(t)) if logarithm else math.log(t) - math.log1p(-t)
