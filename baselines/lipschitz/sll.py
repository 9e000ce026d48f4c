"""SDP-based Lipschitz layers (SLL; Araujo, Havens, Delattre, Allauzen and Hu, ICLR 2023): 1-Lipschitz in l2."""

import math

import torch
from torch import Tensor, nn

from baselines.lipschitz.layers import CachedWeight, spectral_norm


class SLLLinear(CachedWeight):
    """x (N, d) -> x - 2 W T^-1 relu(W' x + b), with W (d, width) and T diagonal, T_i = sum_j |W'W|_ij q_j / q_i.

    By diagonal dominance W'W <= T, which makes the block 1-Lipschitz (theorem 3 of the paper).
    """

    norm = "l2"

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(nn.init.xavier_normal_(torch.empty(width, features)))
        self.bias = nn.Parameter(torch.zeros(width))
        self.log_q = nn.Parameter(torch.zeros(width))

    def compute_weight(self) -> Tensor:
        """Return T, (width,)."""
        gram = (self.raw @ self.raw.T).abs()
        return _weighted_row_sums(gram, self.log_q)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(nn.functional.linear(x, self.raw, self.bias)) / self.weight()
        return x - 2 * hidden @ self.raw

    def lipschitz_bound(self) -> float:
        """Bound the Jacobian I - 2 V D V' with 0 <= D <= I by max(1, 2 ||V||^2 - 1), V = W T^(-1/2)."""
        scaled = self.raw.detach().double() / self.weight().double().sqrt()[:, None]
        return max(1.0, 2 * spectral_norm(scaled) ** 2 - 1)


class SLLConv2d(CachedWeight):
    """The same block with a zero-padded convolution as W', (N, C, H, W) -> (N, C, H, W); odd kernel sizes.

    T_i sums |(kernel_i correlated with kernel_j)| over j and all shifts: the row sums of W'W on an unbounded image, of
    which the zero-padded operator is a part, so it bounds that one too.
    """

    norm = "l2"

    def __init__(self, channels: int, width: int, kernel_size: int = 3) -> None:
        super().__init__()
        shape = (width, channels, kernel_size, kernel_size)
        self.raw = nn.Parameter(torch.randn(shape) / math.sqrt(channels * kernel_size**2))
        self.bias = nn.Parameter(torch.zeros(width))
        self.log_q = nn.Parameter(torch.zeros(width))

    def compute_weight(self) -> Tensor:
        """Return T, (width,)."""
        return _weighted_row_sums(self._correlations(self.raw), self.log_q)

    @staticmethod
    def _correlations(kernel: Tensor) -> Tensor:
        """Sum over all shifts of the absolute correlation of each pair of kernels, (width, width)."""
        return nn.functional.conv2d(kernel, kernel, padding=kernel.shape[-1] - 1).abs().sum(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        padding = self.raw.shape[-1] // 2
        hidden = torch.relu(nn.functional.conv2d(x, self.raw, self.bias, padding=padding))
        hidden = hidden / self.weight()[:, None, None]
        return x - 2 * nn.functional.conv_transpose2d(hidden, self.raw, padding=padding)

    def lipschitz_bound(self) -> float:
        """Return max(1, 2 s - 1), s the largest ratio of the row sums, recomputed in float64, to the T in use."""
        sums = _weighted_row_sums(
            self._correlations(self.raw.detach().double()), self.log_q.detach().double()
        )
        return max(1.0, 2 * (sums / self.weight().double()).max().item() - 1)


def _weighted_row_sums(gram: Tensor, log_q: Tensor) -> Tensor:
    """Sum_j |gram_ij| q_j / q_i, kept away from zero so that an all-zero row stays harmless."""
    ratio = torch.exp(log_q[None, :] - log_q[:, None])
    return (gram * ratio).sum(dim=1).clamp_min(1e-12)
