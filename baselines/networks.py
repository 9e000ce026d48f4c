"""Plain networks shared by the baselines: (N, *input_shape) in [0, 1] -> (N,) score, sensitive iff score > 0.

Each is a ``Sequential`` whose first layer normalises and whose last turns (N, 1) into (N,).
"""

import itertools
import math

import torch
from torch import Tensor, nn

NETWORKS = ("mlp", "convnet", "resnet18", "wrn40_2")
IMAGE_NETWORKS = ("convnet", "resnet18", "wrn40_2")
# The small ConvNet halves its feature maps until they are at most this wide, so its last layer stays small.
LARGEST_FINAL_SIDE = 8


class Normalise(nn.Module):
    """(x - mean) / std with constants that are part of the network's state."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float = 0.5, std: float = 0.5) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(float(mean)))
        self.register_buffer("std", torch.tensor(float(std)))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def build_network(
    name: str,
    input_shape: tuple[int, ...],
    hidden: tuple[int, ...] = (200, 50),
    mean: float = 0.5,
    std: float = 0.5,
) -> nn.Sequential:
    """Return an untrained network by name: mlp (any input), convnet, resnet18 or wrn40_2 (images (C, H, W)).

    hidden: widths of the mlp's hidden layers, unused by the others; mean, std: the normalisation in the first layer.
    Raises ValueError for an unknown name, or an image network on inputs that are no images.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}: choose from {', '.join(NETWORKS)}")
    if name in IMAGE_NETWORKS and len(input_shape) != 3:
        raise ValueError(
            f"network {name!r} needs images (C, H, W), not inputs of shape {input_shape}: use 'mlp'"
        )
    if name == "mlp":
        layers = _mlp(input_shape, hidden)
    else:
        layers = {"convnet": _convnet, "resnet18": _resnet18, "wrn40_2": _wrn40_2}[name](input_shape)
    return nn.Sequential(Normalise(mean, std), *layers, nn.Flatten(0))


def _mlp(input_shape: tuple[int, ...], hidden: tuple[int, ...]) -> list[nn.Module]:
    widths = (math.prod(input_shape), *hidden)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return [*layers, nn.Linear(widths[-1], 1)]


def _convnet(input_shape: tuple[int, ...]) -> list[nn.Module]:
    """A wide, strided first kernel averages noise away at little cost; 0.15 million multiplications at 28x28."""
    channels, height, width = input_shape
    height, width = (max(1, (side - 4) // 4 + 1) for side in (height, width))
    layers = [nn.Conv2d(channels, 16, 8, stride=4, padding=2), nn.ReLU()]
    before = 16
    while max(height, width) > LARGEST_FINAL_SIDE:
        layers += [nn.Conv2d(before, 32, 3, stride=2, padding=1), nn.ReLU()]
        height, width, before = (height + 1) // 2, (width + 1) // 2, 32
    layers += [nn.Conv2d(before, 32, 3, padding=1), nn.ReLU(), nn.Flatten()]
    return [*layers, nn.Linear(32 * height * width, 64), nn.ReLU(), nn.Linear(64, 1)]


def _resnet18(input_shape: tuple[int, ...]) -> list[nn.Module]:
    """ResNet-18 (He et al. 2016) with the 3x3 stem that small images need, and one output."""
    layers = [nn.Conv2d(input_shape[0], 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    before = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [_PostActivationBlock(before, width, stride), _PostActivationBlock(width, width, 1)]
        before = width
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1)]


def _wrn40_2(input_shape: tuple[int, ...]) -> list[nn.Module]:
    """Wide ResNet of depth 40 and width factor 2 (Zagoruyko, Komodakis 2016), with one output."""
    layers: list[nn.Module] = [nn.Conv2d(input_shape[0], 16, 3, padding=1, bias=False)]
    before = 16
    for width, stride in ((32, 1), (64, 2), (128, 2)):
        layers.append(_PreActivationBlock(before, width, stride))
        layers += [_PreActivationBlock(width, width, 1) for _ in range(5)]
        before = width
    return [*layers, nn.BatchNorm2d(128), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 1)]


class _PostActivationBlock(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))), (N, before, H, W) -> (N, width, H/stride, W/stride)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class _PreActivationBlock(nn.Module):
    """conv(relu(bn(conv(relu(bn(x)))))) + shortcut, shapes as in ``_PostActivationBlock``."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
        )
        self.changes_shape = stride != 1 or before != width
        self.shortcut = (
            nn.Conv2d(before, width, 1, stride, bias=False) if self.changes_shape else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        active = self.activate(x)
        return self.body(active) + self.shortcut(active if self.changes_shape else x)


# Modules that add up nothing themselves, but join what their layers return, number by number.
BLOCKS = (_PostActivationBlock, _PreActivationBlock)
