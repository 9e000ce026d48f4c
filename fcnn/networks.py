"""Input-convex networks: their score is convex in their input once ``project()`` has run.

A maximum, a sum and a non-negative combination of convex functions are convex, and so is relu of a convex function.
Hence it is enough that every weight acting on hidden units is non-negative; weights acting on the input are free.
Source: Amos, Xu, Kolter, "Input Convex Neural Networks" (ICML 2017), proposition 1; architectures after Pfrommer,
Anderson, Piet, Sojoudi, "Asymmetric Certified Robustness via Feature-Convex Neural Networks" (NeurIPS 2023).
"""

import math
from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fcnn.convex_network import (
    ConvexNetwork,
    NonNegativeBatchNorm2d,
    NonNegativeConv2d,
    NonNegativeLinear,
    smallest,
)

POOLS = ("average", "max")
MLP_HIDDEN_INIT = 0.003
CONV_HIDDEN_INIT = 0.005


class ConvexMLP(ConvexNetwork):
    """Input-convex multilayer perceptron, (N, *shape) -> (N,).

    z_0 = relu(A_0 x + b_0), z_k = relu(H_{k-1} z_{k-1} + A_k x + b_k), H >= 0; the last layer has width 1 and no
    relu. ``hidden`` lists the widths of the other layers; with hidden=() the score is affine. Without ``passthrough``,
    A_k = 0 for k >= 1. H starts uniform in [0, ``hidden_init``].
    """

    hidden_layers: Sequence[NonNegativeLinear]
    passthroughs: Sequence[nn.Linear]

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int] = (200, 50),
        passthrough: bool = True,
        hidden_init: float = MLP_HIDDEN_INIT,
    ) -> None:
        super().__init__()
        _require_positive(
            in_features=in_features, **{f"hidden[{k}]": width for k, width in enumerate(hidden)}
        )
        self.in_features = in_features
        self.hidden = tuple(hidden)
        self.passthrough = passthrough
        self.hidden_init = hidden_init
        widths = (*self.hidden, 1)
        self.first = nn.Linear(in_features, widths[0])
        hidden_layers = [
            NonNegativeLinear(width, following, hidden_init) for width, following in pairwise(widths)
        ]
        free = [nn.Linear(in_features, width, bias=False) for width in (widths[1:] if passthrough else ())]
        # A ModuleList does not tell what its layers are.
        self.hidden_layers = cast(Sequence[NonNegativeLinear], nn.ModuleList(hidden_layers))
        self.passthroughs = cast(Sequence[nn.Linear], nn.ModuleList(free))

    @classmethod
    def from_arrays(
        cls, input_weights: Sequence[Any], biases: Sequence[Any], hidden_weights: Sequence[Any]
    ) -> Self:
        """Build the network from arrays or tensors, in their own dtype (float32 at least).

        input_weights[k]: (width_k, d) acts on the input; biases[k]: (width_k,); hidden_weights[k]:
        (width_{k+1}, width_k) >= 0; the last width is 1. Raises ValueError naming the array that does not fit.
        """
        inputs, offsets, hidden = (
            [torch.as_tensor(array) for array in group] for group in (input_weights, biases, hidden_weights)
        )
        _check_arrays(inputs, offsets, hidden)
        dtype = reduce(
            torch.promote_types, [tensor.dtype for tensor in inputs + offsets + hidden], torch.float32
        )
        network = cls(inputs[0].shape[1], [len(offset) for offset in offsets[:-1]]).to(dtype)
        with torch.no_grad():
            network.first.weight.copy_(inputs[0])
            for layer, weight in zip(network.passthroughs, inputs[1:], strict=True):
                layer.weight.copy_(weight)
            for layer, weight in zip(network.hidden_layers, hidden, strict=True):
                layer.weight.copy_(weight)
            for layer, offset in zip([network.first, *network.hidden_layers], offsets, strict=True):
                layer.bias.copy_(offset)
        return network

    def to_arrays(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Return (input_weights, biases, hidden_weights) in float64, as ``from_arrays`` takes them."""
        layers = [self.first, *self.hidden_layers]
        free = [layer.weight for layer in self.passthroughs]
        if not self.passthrough:
            free = [
                layer.weight.new_zeros(layer.out_features, self.in_features) for layer in self.hidden_layers
            ]
        groups = (
            [self.first.weight, *free],
            [layer.bias for layer in layers],
            [layer.weight for layer in self.hidden_layers],
        )
        inputs, biases, hidden = ([tensor.detach().double().clone() for tensor in group] for group in groups)
        return inputs, biases, hidden

    def settings(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "hidden": list(self.hidden),
            "passthrough": self.passthrough,
            "hidden_init": self.hidden_init,
        }

    def floats_per_input(self, feature_shape: Sequence[int]) -> int:
        self._check_shape(feature_shape)
        return 3 * self.in_features + 3 * sum(self.hidden)

    def forward(self, x: Tensor) -> Tensor:
        self._check_shape(x.shape[1:])
        x = x.flatten(1)
        score = self.first(x)
        for index, layer in enumerate(self.hidden_layers):
            score = layer(functional.relu(score))
            if self.passthrough:
                score = score + self.passthroughs[index](x)
        return score.squeeze(1)

    def _check_shape(self, shape: Sequence[int]) -> None:
        if len(shape) == 0 or math.prod(shape) != self.in_features:
            raise ValueError(
                f"one input's features have shape {tuple(shape)}: expected {self.in_features} values"
            )


class ConvexBlock(nn.Module):
    """z -> relu(norm(conv(z) + passthrough(x)) + z), with conv >= 0 and norm non-decreasing."""

    def __init__(
        self, channels: int, input_channels: int, kernel: int, init: float, batch_norm: bool
    ) -> None:
        super().__init__()
        self.conv = NonNegativeConv2d(channels, kernel, init, bias=not batch_norm)
        self.passthrough: nn.Conv2d | None = None
        if input_channels:
            self.passthrough = nn.Conv2d(input_channels, channels, kernel, padding=kernel // 2, bias=False)
        self.norm = NonNegativeBatchNorm2d(channels) if batch_norm else nn.Identity()

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        update = self.conv(z)
        if self.passthrough is not None:
            update = update + self.passthrough(x)
        return functional.relu(self.norm(update) + z)


class ConvexConvNet(ConvexNetwork):
    """Input-convex residual convolutional network for images of any size, (N, C, H, W) -> (N,).

    A free convolution (``first_kernel``, ``first_stride``), batch normalisation, relu and pooling by ``pool_size`` are
    followed by ``depth`` - 1 non-negative residual blocks. Their output, pooled to ``readout_grid`` x ``readout_grid``
    values a channel (1 is global pooling), gives the score through a non-negative linear layer. ``pool`` is "average"
    or "max". ``passthrough`` feeds the (downsampled) input to every block; ``linear_grid`` > 0 adds a linear function
    of the input averaged over a ``linear_grid`` x ``linear_grid`` grid to the score. ``in_channels`` counts the
    channels of the features: CenteredAbs doubles those of the image.
    """

    def __init__(
        self,
        in_channels: int,
        features: int = 16,
        depth: int = 4,
        *,
        first_kernel: int = 11,
        kernel: int = 3,
        first_stride: int = 1,
        pool: str = "average",
        pool_size: int = 1,
        readout_grid: int = 1,
        linear_grid: int = 0,
        passthrough: bool = False,
        batch_norm: bool = True,
        hidden_init: float = CONV_HIDDEN_INIT,
    ) -> None:
        super().__init__()
        self._settings: dict[str, Any] = {
            "in_channels": in_channels,
            "features": features,
            "depth": depth,
            "first_kernel": first_kernel,
            "kernel": kernel,
            "first_stride": first_stride,
            "pool": pool,
            "pool_size": pool_size,
            "readout_grid": readout_grid,
            "linear_grid": linear_grid,
            "passthrough": passthrough,
            "batch_norm": batch_norm,
            "hidden_init": hidden_init,
        }
        _check_convnet_settings(self._settings)
        self.in_channels = in_channels
        self.pool = pool
        self.passthrough = passthrough
        self.pool_size = pool_size
        self.readout_grid = readout_grid
        self.linear_grid = linear_grid
        self.first = nn.Conv2d(
            in_channels, features, first_kernel, first_stride, padding=first_kernel // 2, bias=not batch_norm
        )
        self.first_norm = nn.BatchNorm2d(features) if batch_norm else nn.Identity()
        block_inputs = in_channels if passthrough else 0
        self.blocks = nn.ModuleList(
            ConvexBlock(features, block_inputs, kernel, hidden_init, batch_norm) for _ in range(depth - 1)
        )
        pooled = features * readout_grid**2
        # Weights of mean 1/pooled make the first score an average of the features.
        self.readout = NonNegativeLinear(pooled, 1, 2 / pooled)
        self.linear = nn.Linear(in_channels * linear_grid**2, 1, bias=False) if linear_grid else None

    def settings(self) -> dict[str, Any]:
        return dict(self._settings)

    def floats_per_input(self, feature_shape: Sequence[int]) -> int:
        self._check_shape(feature_shape)
        # Convolutions in float64 on a CPU unfold their input: kernel^2 copies at the output's resolution.
        height, width = (math.ceil(size / self.first.stride[0]) for size in feature_shape[-2:])
        unfolded_first = self.first.weight[0].numel() * height * width
        hidden = self.first.out_channels * height * width // self.pool_size**2
        kernel = self._settings["kernel"]
        return 3 * math.prod(feature_shape) + unfolded_first + hidden * (kernel**2 + 4 * len(self.blocks) + 4)

    def forward(self, x: Tensor) -> Tensor:
        self._check_shape(x.shape[1:])
        z = self._pool_by_size(functional.relu(self.first_norm(self.first(x))))
        small = functional.adaptive_avg_pool2d(x, (z.shape[-2], z.shape[-1])) if self.passthrough else x
        for block in self.blocks:
            z = block(z, small)
        score = self.readout(self._pool_to_grid(z).flatten(1))
        if self.linear is not None:
            score = score + self.linear(functional.adaptive_avg_pool2d(x, self.linear_grid).flatten(1))
        return score.squeeze(1)

    def _check_shape(self, shape: Sequence[int]) -> None:
        smallest = self.first.stride[0] * self.pool_size
        if len(shape) != 3 or shape[0] != self.in_channels or min(shape[1:]) < smallest:
            raise ValueError(
                f"one input's features have shape {tuple(shape)}: expected ({self.in_channels}, H, W) "
                f"with H, W >= {smallest}"
            )

    def _pool_by_size(self, z: Tensor) -> Tensor:
        if self.pool_size == 1:
            return z
        pool = functional.max_pool2d if self.pool == "max" else functional.avg_pool2d
        return pool(z, self.pool_size)

    def _pool_to_grid(self, z: Tensor) -> Tensor:
        pool = functional.adaptive_max_pool2d if self.pool == "max" else functional.adaptive_avg_pool2d
        return pool(z, self.readout_grid)


def _require_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} = {value}: must be at least 1")


def _check_convnet_settings(settings: dict[str, Any]) -> None:
    other = {"kernel", "pool", "linear_grid", "passthrough", "batch_norm", "hidden_init"}
    _require_positive(**{name: value for name, value in settings.items() if name not in other})
    if settings["linear_grid"] < 0:
        raise ValueError(f"linear_grid = {settings['linear_grid']}: must be 0 (none) or a grid size")
    if settings["kernel"] % 2 != 1:
        raise ValueError(f"kernel = {settings['kernel']}: must be odd, for residual blocks to keep the size")
    if settings["pool"] not in POOLS:
        raise ValueError(f"pool = {settings['pool']!r}: choose one of {', '.join(POOLS)}")


def _check_arrays(inputs: list[Tensor], biases: list[Tensor], hidden: list[Tensor]) -> None:
    """Refuse arrays that are no input-convex network, naming the first one that does not fit."""
    if not inputs or len(biases) != len(inputs) or len(hidden) != len(inputs) - 1:
        raise ValueError(
            f"got {len(inputs)} input weights, {len(biases)} biases and {len(hidden)} hidden weights: "
            "k layers need k, k and k - 1 of them"
        )
    if inputs[0].ndim != 2 or biases[-1].shape != (1,):
        raise ValueError(
            f"input_weights[0] has shape {tuple(inputs[0].shape)} and the last bias {tuple(biases[-1].shape)}: "
            "expected (width, d) and (1,)"
        )
    widths = [bias.numel() for bias in biases]
    for k, (weight, bias) in enumerate(zip(inputs, biases, strict=True)):
        _require_shape(f"biases[{k}]", bias, (widths[k],))
        _require_shape(f"input_weights[{k}]", weight, (widths[k], inputs[0].shape[1]))
    for k, weight in enumerate(hidden):
        _require_shape(f"hidden_weights[{k}]", weight, (widths[k + 1], widths[k]))
        if not bool((weight >= 0).all()):
            raise ValueError(f"hidden_weights[{k}] holds {smallest(weight)}: hidden weights must be >= 0")


def _require_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
