"""The networks of the paper as they were published: where they normalise, what is fed through, how scores are read out.

They differ from :mod:`fcnn.networks` in details that decide how they train: the MLP normalises each hidden layer by one
mean and one variance for all its units; the ConvNet normalises its input and before each block instead of inside it,
and reads the score from every position of the last feature map instead of from averages.
Source: Pfrommer, Anderson, Piet, Sojoudi, "Asymmetric Certified Robustness via Feature-Convex Neural Networks" (NeurIPS
2023), section 4 and appendix, and the code published with it.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from fcnn.networks import (
    CONV_HIDDEN_INIT,
    MLP_HIDDEN_INIT,
    ConvexNetwork,
    NonNegativeBatchNorm2d,
    NonNegativeConv2d,
    NonNegativeLinear,
)


class PublishedMLP(ConvexNetwork):
    """z_0 = norm(relu((A + A_0) x + b_0)), z_k = norm(relu(H_k z_{k-1} + A_k x + b_k)), (N, *shape) -> (N,), H >= 0.

    The last layer has width 1, no relu and no norm. The first layer is the sum of two, which doubles its steps in
    training.
    """

    def __init__(self, in_features: int, hidden: Sequence[int] = (200, 50)) -> None:
        super().__init__()
        if in_features < 1 or min(hidden, default=0) < 1:
            raise ValueError(
                f"in_features = {in_features}, hidden = {list(hidden)}: give at least one hidden layer, all widths >= 1"
            )
        self.in_features, self.hidden = in_features, tuple(hidden)
        widths = (*self.hidden, 1)
        self.first = nn.Linear(in_features, widths[0], bias=False)
        self.hidden_layers = nn.ModuleList(
            NonNegativeLinear(width, following, MLP_HIDDEN_INIT) for width, following in pairwise(widths)
        )
        for layer in self.hidden_layers:
            layer.register_parameter("bias", None)  # the passthrough has one
        self.passthroughs = nn.ModuleList(nn.Linear(in_features, width) for width in widths)
        self.norms = nn.ModuleList(NonNegativeBatchNorm2d(1) for _ in self.hidden)

    def settings(self) -> dict[str, Any]:
        return {"in_features": self.in_features, "hidden": list(self.hidden)}

    def floats_per_input(self, feature_shape: Sequence[int]) -> int:
        return 3 * math.prod(feature_shape) + 4 * sum(self.hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        z = self.first(x) + self.passthroughs[0](x)
        for layer, passthrough, norm in zip(
            self.hidden_layers, self.passthroughs[1:], self.norms, strict=True
        ):
            # As images of one channel all units share one mean and one variance.
            z = norm(functional.relu(z)[:, None, None])[:, 0, 0]
            z = layer(z) + passthrough(x)
        return z.squeeze(1)


class PublishedBlock(nn.Module):
    """z -> relu(conv(norm(z)) + norm(z)), with conv >= 0 and norm non-decreasing."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.norm = NonNegativeBatchNorm2d(channels)
        self.conv = NonNegativeConv2d(channels, kernel, CONV_HIDDEN_INIT, bias=True)

    def forward(self, z: Tensor) -> Tensor:
        z = self.norm(z)
        return functional.relu(self.conv(z) + z)


class PublishedConvNet(ConvexNetwork):
    """Normalisation, a free convolution, ``depth`` residual blocks, pooling, normalisation and a non-negative readout.

    (N, C, H, W) -> (N,) for images of one size: in_shape is (C, H, W) of the features, CenteredAbs doubling C. The
    last feature map is pooled by maxima over ``pool_size`` x ``pool_size``.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        features: int = 16,
        depth: int = 4,
        *,
        first_kernel: int = 11,
        kernel: int = 3,
        first_stride: int = 1,
        pool_size: int = 1,
    ) -> None:
        super().__init__()
        if len(in_shape) != 3 or first_kernel % 2 != 1 or kernel % 2 != 1:
            raise ValueError(
                f"in_shape = {tuple(in_shape)}, first_kernel = {first_kernel}, kernel = {kernel}: give (C, H, W) and "
                "odd kernels"
            )
        self.in_shape = tuple(in_shape)
        self._settings: dict[str, Any] = {
            "in_shape": list(in_shape),
            "features": features,
            "depth": depth,
            "first_kernel": first_kernel,
            "kernel": kernel,
            "first_stride": first_stride,
            "pool_size": pool_size,
        }
        self.pool_size = pool_size
        self.first_norm = nn.BatchNorm2d(self.in_shape[0])
        self.first = nn.Conv2d(
            self.in_shape[0], features, first_kernel, first_stride, padding=first_kernel // 2
        )
        self.blocks = nn.ModuleList(PublishedBlock(features, kernel) for _ in range(depth))
        self.last_norm = NonNegativeBatchNorm2d(features)
        positions = math.prod(math.ceil(side / first_stride) // pool_size for side in self.in_shape[1:])
        self.readout = NonNegativeLinear(features * positions, 1, MLP_HIDDEN_INIT)

    def settings(self) -> dict[str, Any]:
        return dict(self._settings)

    def floats_per_input(self, feature_shape: Sequence[int]) -> int:
        # Convolutions in float64 on a CPU unfold their input: kernel^2 copies at the output's resolution.
        height, width = (math.ceil(side / self.first.stride[0]) for side in feature_shape[-2:])
        hidden = self.first.out_channels * height * width
        unfolded_first = self.first.weight[0].numel() * height * width
        kernel = self._settings["kernel"]
        return 4 * math.prod(feature_shape) + unfolded_first + hidden * (kernel**2 + 4 * len(self.blocks) + 4)

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.in_shape:
            raise ValueError(
                f"one input's features have shape {tuple(x.shape[1:])}: expected {self.in_shape}"
            )
        z = functional.relu(self.first(self.first_norm(x)))
        for block in self.blocks:
            z = block(z)
        z = self.last_norm(functional.max_pool2d(z, self.pool_size))
        return self.readout(z.flatten(1)).squeeze(1)
