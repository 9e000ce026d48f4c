"""A copy of a network that gives an input the same score to the last bit, in every batch, on any number of threads.

Floating-point sums depend on their order, and the order on the batch, so a network's score of one input is no single
number: where it is nearly 0, two batches may vote differently. Here no sum rounds. Each layer that adds up rounds its
input to whole multiples of a power of two (its largest entry takes 25 bits) and its weights, once, to multiples of
another (the absolute weights of an output add up to at most 27 bits). Products and all their partial sums are then
whole numbers of at most 52 bits, which float64 adds exactly in any order. Everything else works on single numbers and
rounds as IEEE 754 says. What the copy computes is thus one fixed function, as near to the network as float32 is.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.networks import BLOCKS, Normalise

INPUT_BITS = 25
WEIGHT_BITS = 27
# Layers whose outputs are each made of one input alone, or copied, or compared; blocks only join their parts.
ELEMENTWISE = (nn.ReLU, nn.Identity, nn.Flatten, nn.Unflatten, nn.MaxPool2d, Normalise, nn.Dropout)
JOINING = (nn.Sequential, *BLOCKS)


def exact_sums(network: nn.Module) -> nn.Module | None:
    """Return a float64 copy of ``network`` in evaluation mode whose sums are exact; None if a layer is not known.

    Known are dense and convolutional layers, batch normalisation, average pooling to one pixel, ReLU and what moves
    numbers about, without hooks, in ``Sequential`` and the blocks of :mod:`baselines.networks`.
    """
    copied = nn.Sequential(copy.deepcopy(network).double().eval())
    return copied if _replace_sums(copied) else None


def _replace_sums(parent: nn.Module) -> bool:
    """Replace, in place, every layer that adds up; say whether all layers were known."""
    # Not named_children, which leaves out a layer that is used a second time.
    for name, layer in parent._modules.items():
        if layer is None or layer._forward_hooks or layer._forward_pre_hooks:
            return False
        if type(layer) in REPLACED and _is_plain(layer):
            parent._modules[name] = REPLACED[type(layer)](layer)
        elif type(layer) in JOINING:
            if not _replace_sums(layer):
                return False
        elif type(layer) not in ELEMENTWISE:
            return False
    return True


def _is_plain(layer: nn.Module) -> bool:
    """Say whether a layer is of the one kind that its replacement computes."""
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros"
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return layer.output_size in (1, (1, 1))
    return not isinstance(layer, nn.BatchNorm2d) or (layer.affine and layer.track_running_stats)


def _whole(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x (N, ...) in whole numbers of INPUT_BITS bits, and their unit (N, 1, ...), a power of two for each."""
    largest = x.flatten(1).abs().amax(dim=1).view(-1, *[1] * (x.dim() - 1))
    unit = _power_of_two_above(largest) * 2.0**-INPUT_BITS
    return (x / unit).round_(), unit


def _power_of_two_above(size: Tensor) -> Tensor:
    """Return the smallest power of two above each size >= 0, exactly (which torch.ldexp and exp2 do not promise)."""
    size = size.clamp(min=2.0**-1000)
    return size / torch.frexp(size).mantissa


class _ExactProducts(nn.Module):
    """A dense or convolutional layer with whole weights: ``apply(x, weight)``, scaled back, plus the bias."""

    unit: Tensor
    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        weight = layer.weight.detach()
        sums = weight.abs().flatten(1).sum(dim=1)
        # The row sum may itself be rounded, and rounding the weights moves it: one bit is kept for both.
        unit = _power_of_two_above(sums) * 2.0 ** (1 - WEIGHT_BITS)
        self.register_buffer("unit", unit)
        self.register_buffer("weight", (weight / unit.view(-1, *[1] * (weight.dim() - 1))).round())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    def products(self, whole: Tensor) -> Tensor:
        return functional.linear(whole, self.weight)

    def forward(self, x: Tensor) -> Tensor:
        whole, unit = _whole(x)
        # Channels come second in images, last in rows of numbers of any other shape.
        shape = (1, -1, 1, 1) if self.weight.dim() == 4 else (-1,)
        out = self.products(whole) * self.unit.view(shape) * unit
        return out if self.bias is None else out + self.bias.view(shape)


class _ExactConvolution(_ExactProducts):
    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        self.layer_settings = (layer.stride, layer.padding, layer.dilation, layer.groups)

    def products(self, whole: Tensor) -> Tensor:
        # Fast algorithms of a GPU's library (Winograd, Fourier) do not compute plain sums of products.
        with torch.backends.cudnn.flags(enabled=False):
            stride, padding, dilation, groups = self.layer_settings
            return functional.conv2d(whole, self.weight, None, stride, padding, dilation, groups)


class _ExactMean(nn.Module):
    """Mean over all pixels: (N, C, H, W) -> (N, C, 1, 1)."""

    def __init__(self, _layer: nn.AdaptiveAvgPool2d) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        whole, unit = _whole(x)
        return whole.sum(dim=(2, 3), keepdim=True) / (x.shape[2] * x.shape[3]) * unit


class _Affine(nn.Module):
    """Batch normalisation by its running statistics: a product and a sum of single numbers, each rounded by itself."""

    scale: Tensor
    shift: Tensor

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        super().__init__()
        state = layer.state_dict()
        scale = state["weight"] / (state["running_var"] + layer.eps).sqrt()
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", (state["bias"] - state["running_mean"] * scale)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


REPLACED = {
    nn.Linear: _ExactProducts,
    nn.Conv2d: _ExactConvolution,
    nn.BatchNorm2d: _Affine,
    nn.AdaptiveAvgPool2d: _ExactMean,
}
