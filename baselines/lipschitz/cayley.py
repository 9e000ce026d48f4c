"""Orthogonal layers by the Cayley transform (Trockman and Kolter, ICLR 2021): 1-Lipschitz in l2."""

import math

import torch
from torch import Tensor, nn

from baselines.lipschitz.fourier import FourierConv2d
from baselines.lipschitz.layers import CachedWeight, spectral_norm


def cayley_transform(weight: Tensor) -> Tensor:
    """Map (..., m, n) matrices to semi-orthogonal ones of the same shape (Trockman and Kolter, 2021, section 3).

    With m >= n, U the upper n rows, V the others and A = U - U* + V*V, the result is
    [(I + A)^-1 (I - A); -2 V (I + A)^-1], whose columns are orthonormal. With m < n its rows are.
    """
    rows, columns = weight.shape[-2:]
    if rows < columns:
        return cayley_transform(weight.mH).mH
    upper, lower = weight[..., :columns, :], weight[..., columns:, :]
    skew = upper - upper.mH + lower.mH @ lower
    identity = torch.eye(columns, dtype=weight.dtype, device=weight.device)
    # The Hermitian part of I + A is at least I, so the inverse exists and is well conditioned.
    inverse = torch.linalg.inv(identity + skew)
    # (I + A)^-1 (I - A) = 2 (I + A)^-1 - I saves one product.
    return torch.cat([2 * inverse - identity, -2 * lower @ inverse], dim=-2)


class CayleyLinear(CachedWeight):
    """x (N, in_features) -> W x + b (N, out_features) with W semi-orthogonal."""

    norm = "l2"

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(nn.init.xavier_normal_(torch.empty(out_features, in_features)))
        self.gain = nn.Parameter(self.raw.detach().norm().reshape(1))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def compute_weight(self) -> Tensor:
        # The gain frees the length of the raw weight, which sets how far W is from +-I (as in the paper's code).
        return cayley_transform(self.gain * self.raw / self.raw.norm())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight(), self.bias)

    def lipschitz_bound(self) -> float:
        """Return the spectral norm of W."""
        return spectral_norm(self.weight())

    def bound_from(self, norm: str) -> float:
        """Bound ||W v||_2 per unit of v: from l1 the longest column of W, exactly; inf for a norm not known."""
        return self.weight().detach().double().norm(dim=0).max().item() if norm == "l1" else math.inf


class CayleyConv2d(FourierConv2d):
    """Circular convolution (N, in, H, W) -> (N, out, H, W), semi-orthogonal at every frequency.

    The Cayley transform of each block makes the whole operator semi-orthogonal.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, size: tuple[int, int]) -> None:
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        kernel = torch.randn(shape) / math.sqrt(in_channels * kernel_size**2)
        super().__init__(kernel, out_channels, size)

    def blocks(self, spectrum: Tensor) -> Tensor:
        return cayley_transform(spectrum)
