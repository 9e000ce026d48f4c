"""Score networks from Lipschitz layers: (N, *shape) in [0, 1] -> (N,), sensitive iff the score is positive."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from baselines.lipschitz.activations import MaxMin
from baselines.lipschitz.bro import BROConv2d, BROLinear
from baselines.lipschitz.cayley import CayleyConv2d, CayleyLinear
from baselines.lipschitz.l1 import BoundedEntries, UnitRows
from baselines.lipschitz.linf import HalfDifference, LinfDistance, MeanShift
from baselines.lipschitz.sll import SLLConv2d, SLLLinear


class LipschitzNetwork(nn.Module):
    """score(x) = body(x) - threshold, (N, *shape) -> (N,); its Lipschitz constant is known in ``norm``."""

    threshold: Tensor

    def __init__(self, body: nn.Sequential, norm: str) -> None:
        super().__init__()
        self.body = body
        self.norm = norm
        self.register_buffer("threshold", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).squeeze(1) - self.threshold

    def centre_on(self, mean: Tensor) -> None:
        """Let the network see x - mean, mean (*shape), where it begins with an ``InputShift``; else change nothing."""
        for layer in self.body:
            if isinstance(layer, InputShift):
                layer.mean.copy_(mean)

    def project(self) -> None:
        """Bring parameters back to where their layers have gradients; call it after each step of the training."""
        for layer in self.body.modules():
            if isinstance(layer, BoundedEntries):
                layer.project()


class InputShift(nn.Module):
    """x (N, *shape) -> x - mean, a translation: orthogonal layers carry what all inputs share to the end."""

    mean: Tensor

    def __init__(self, input_shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(*input_shape))

    def forward(self, x: Tensor) -> Tensor:
        return x - self.mean


class UnitRow(nn.Module):
    """x (N, d) -> w . x / ||w||_2 + b, (N, 1): the last layer, 1-Lipschitz in l2 (and as good as any other row)."""

    norm = "l2"

    def __init__(self, features: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.randn(1, features))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.raw / self.raw.norm(), self.bias)

    def lipschitz_bound(self) -> float:
        """Return the length of the row in use."""
        return (self.raw / self.raw.norm()).detach().double().norm().item()


class ChannelPad(nn.Module):
    """(N, C, H, W) -> (N, channels, H, W): appends channels of zeros, which changes no distance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, (0, 0, 0, 0, 0, self.channels - x.shape[1]))


class ConvexResidual(nn.Module):
    """(1 - a) x + a branch(x) with a = sigmoid(logit): 1-Lipschitz where the branch is."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.logit = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(x, self.branch(x), torch.sigmoid(self.logit))


def cayley_mlp(input_shape: Sequence[int], hidden: Sequence[int] = (200, 50)) -> LipschitzNetwork:
    """Orthogonal dense layers with MaxMin between them."""
    head = _cayley_head(math.prod(input_shape), hidden)
    return LipschitzNetwork(nn.Sequential(InputShift(input_shape), nn.Flatten(), *head), "l2")


def cayley_convnet(input_shape: Sequence[int], width: int = 16, dense: int = 100) -> LipschitzNetwork:
    """Two stride-2 convolutions and two dense layers, all orthogonal (the small network of Wong and Kolter, 2018)."""
    builder = _ConvBuilder(input_shape)
    builder.orthogonal(CayleyConv2d, width, stride=2)
    builder.orthogonal(CayleyConv2d, 2 * width, stride=2)
    return builder.finish(_cayley_head(builder.features, (dense,)))


def cayley_resnet9(input_shape: Sequence[int], width: int = 16) -> LipschitzNetwork:
    """Eight orthogonal convolutions, two pairs of them residual (as convex combinations), and a last row.

    The ResNet9 of Trockman and Kolter (2021) with strides in place of pooling.
    """
    builder = _ConvBuilder(input_shape)
    builder.orthogonal(CayleyConv2d, width)
    builder.orthogonal(CayleyConv2d, 2 * width, stride=2)
    builder.cayley_residual()
    builder.orthogonal(CayleyConv2d, 4 * width, stride=2)
    builder.orthogonal(CayleyConv2d, 8 * width, stride=2)
    builder.cayley_residual()
    return builder.finish([UnitRow(builder.features)])


def bro_mlp(input_shape: Sequence[int], turned: Sequence[int] = (100, 100)) -> LipschitzNetwork:
    """Block reflectors in input space with MaxMin between them, and a unit row."""
    features = math.prod(input_shape)
    layers = [layer for size in turned for layer in (BROLinear(features, size), MaxMin())]
    return LipschitzNetwork(
        nn.Sequential(InputShift(input_shape), nn.Flatten(), *layers, UnitRow(features)), "l2"
    )


def bro_convnet(
    input_shape: Sequence[int], width: int = 16, depth: int = 2, dense: int = 100
) -> LipschitzNetwork:
    """Block reflector convolutions, ``depth`` at half and at quarter resolution each, and orthogonal dense layers."""
    builder = _ConvBuilder(input_shape)
    for channels in (2 * width, 4 * width):
        for index in range(depth):
            builder.orthogonal(BROConv2d, channels, stride=1 if index else 2)
    return builder.finish(_cayley_head(builder.features, (dense,)))


def sll_mlp(input_shape: Sequence[int], widths: Sequence[int] = (256, 256, 256)) -> LipschitzNetwork:
    """Residual SLL blocks in input space and a unit row."""
    features = math.prod(input_shape)
    blocks = [SLLLinear(features, width) for width in widths]
    return LipschitzNetwork(
        nn.Sequential(InputShift(input_shape), nn.Flatten(), *blocks, UnitRow(features)), "l2"
    )


def sll_convnet(
    input_shape: Sequence[int], width: int = 16, depth: int = 2, dense: int = 128
) -> LipschitzNetwork:
    """Convolutional SLL blocks at half and at quarter resolution, a dense SLL block and a unit row."""
    builder = _ConvBuilder(input_shape)
    builder.sll(width, depth)
    builder.sll(4 * width, depth)
    features = builder.features
    return builder.finish([SLLLinear(features, dense), UnitRow(features)])


def linf_distance_net(input_shape: Sequence[int], hidden: Sequence[int] = (128, 128)) -> LipschitzNetwork:
    """Distance layers with mean shifts between them, and half the difference of two last distances."""
    layers: list[nn.Module] = [nn.Flatten()]
    features = math.prod(input_shape)
    for units in hidden:
        layers += [LinfDistance(features, units), MeanShift(units)]
        features = units
    layers += [LinfDistance(features, 2), MeanShift(2), HalfDifference()]
    return LipschitzNetwork(nn.Sequential(*layers), "linf")


def l1_mlp(input_shape: Sequence[int], hidden: Sequence[int] = (200, 50)) -> LipschitzNetwork:
    """A layer from l1 to linf and rows of l1 norm 1, with mean shifts and MaxMin between them."""
    layers: list[nn.Module] = [nn.Flatten()]
    features = math.prod(input_shape)
    kind: type[BoundedEntries] | type[UnitRows] = BoundedEntries
    for units in hidden:
        layers += [kind(features, units), MeanShift(units), MaxMin()]
        features, kind = units, UnitRows
    return LipschitzNetwork(nn.Sequential(*layers, kind(features, 1)), "l1")


def _cayley_head(features: int, hidden: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [CayleyLinear(features, units), MaxMin()]
        features = units
    return [*layers, UnitRow(features)]


class _ConvBuilder:
    """Collects convolutional layers while keeping track of channels and image size."""

    def __init__(self, input_shape: Sequence[int]) -> None:
        if len(input_shape) != 3:
            raise ValueError(
                f"input shape {tuple(input_shape)} is not an image (C, H, W): choose a dense network"
            )
        self.channels, self.height, self.width = input_shape
        self.layers: list[nn.Module] = [InputShift(input_shape)]

    @property
    def features(self) -> int:
        return self.channels * self.height * self.width

    def orthogonal(self, kind: type[CayleyConv2d | BROConv2d], channels: int, stride: int = 1) -> None:
        if stride == 2:
            self.downsample()
        self.layers += [kind(self.channels, channels, 3, (self.height, self.width)), MaxMin()]
        self.channels = channels

    def cayley_residual(self) -> None:
        size = (self.height, self.width)
        convs = [CayleyConv2d(self.channels, self.channels, 3, size) for _ in range(2)]
        self.layers.append(ConvexResidual(nn.Sequential(convs[0], MaxMin(), convs[1], MaxMin())))

    def sll(self, channels: int, depth: int) -> None:
        self.downsample()
        self.layers.append(ChannelPad(max(channels, self.channels)))
        self.channels = max(channels, self.channels)
        self.layers += [SLLConv2d(self.channels, self.channels) for _ in range(depth)]

    def downsample(self) -> None:
        """Halve the resolution without loss: each 2 x 2 square of pixels becomes four channels."""
        self.layers += [nn.ZeroPad2d((0, self.width % 2, 0, self.height % 2)), nn.PixelUnshuffle(2)]
        self.channels, self.height, self.width = (
            4 * self.channels,
            (self.height + 1) // 2,
            (self.width + 1) // 2,
        )

    def finish(self, head: Sequence[nn.Module]) -> LipschitzNetwork:
        return LipschitzNetwork(nn.Sequential(*self.layers, nn.Flatten(), *head), "l2")
