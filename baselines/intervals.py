"""Interval arithmetic through a network, differentiable in its weights: for training, not for certificates."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.networks import Normalise


def interval_bounds(module: nn.Module, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds on the output of ``module`` over the box between two corners (N, *shape).

    Sequences of Linear, Conv2d, ReLU, average pooling, BatchNorm2d (in evaluation mode), Flatten, Identity and
    Normalise are known; raises ValueError for anything else. Source: Gowal et al. (2018), section 3.
    """
    if isinstance(module, nn.Sequential):
        for layer in module:
            lower, upper = interval_bounds(layer, lower, upper)
        return lower, upper
    if isinstance(module, nn.ReLU | nn.Flatten | nn.Identity | nn.AvgPool2d | nn.AdaptiveAvgPool2d):
        return module(lower), module(upper)
    center, reach = (lower + upper) / 2, (upper - lower) / 2
    center, reach = module(center), _reach(module, reach)
    return center - reach, center + reach


def _reach(module: nn.Module, reach: Tensor) -> Tensor:
    """Half width behind an affine layer of a box with half width ``reach`` before it."""
    if isinstance(module, nn.Linear):
        return functional.linear(reach, module.weight.abs())
    if isinstance(module, nn.Conv2d):
        return functional.conv2d(
            reach, module.weight.abs(), None, module.stride, module.padding, module.dilation, module.groups
        )
    if isinstance(module, nn.BatchNorm2d) and not module.training:
        scale = module.weight / torch.sqrt(module.running_var + module.eps)
        return reach * scale.abs()[None, :, None, None]
    if isinstance(module, Normalise):
        return reach / module.std
    raise ValueError(
        f"interval bounds for training know no layer {type(module).__name__}: use Linear, Conv2d, ReLU, average "
        "pooling, Flatten and, in evaluation mode, BatchNorm2d"
    )
