"""Circular convolutions given by one matrix per frequency: what orthogonal convolutions have in common."""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from baselines.lipschitz.layers import CachedWeight, spectral_norm


class FourierConv2d(CachedWeight):
    """Circular convolution (N, in, H, W) -> (N, out, H, W), computed frequency by frequency.

    The Fourier transform block-diagonalises a circular convolution into one (out, in) matrix per frequency. A subclass
    turns the kernel's blocks into matrices whose singular values are at most 1. ``size`` is (H, W), fixed at
    construction.
    """

    norm = "l2"

    def __init__(self, kernel: Tensor, out_channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.raw = nn.Parameter(kernel)
        self.gain = nn.Parameter(self.raw.detach().norm().reshape(1))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    @abstractmethod
    def blocks(self, spectrum: Tensor) -> Tensor:
        """Return the matrices (H, W // 2 + 1, out, in) for the kernel's spectrum (H, W // 2 + 1, *raw's channels)."""

    def compute_weight(self) -> Tensor:
        """Return the complex blocks (H, W // 2 + 1, out, in)."""
        return self.blocks(self._spectrum(self.gain * self.raw / self.raw.norm()))

    def _spectrum(self, kernel: Tensor) -> Tensor:
        """Discrete Fourier transform of the centred kernel; kernels larger than the image wrap around it."""
        height, width = self.size
        offsets = torch.arange(kernel.shape[-1], device=kernel.device) - kernel.shape[-1] // 2
        down = _fourier_matrix(height, height, offsets, kernel.dtype)
        across = _fourier_matrix(width, width // 2 + 1, offsets, kernel.dtype)
        return torch.einsum("hk,wl,oikl->hwoi", down, across, kernel.to(down.dtype))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != self.size:
            raise ValueError(
                f"image size {tuple(x.shape[-2:])} differs from {self.size}: build the layer for it"
            )
        spectrum = torch.fft.rfft2(x).permute(2, 3, 1, 0)
        filtered = (self.weight() @ spectrum).permute(3, 2, 0, 1)
        return torch.fft.irfft2(filtered, s=self.size) + self.bias[:, None, None]

    def lipschitz_bound(self) -> float:
        """Return the largest singular value over all frequencies: the spectral norm of the circular convolution."""
        return spectral_norm(self.weight())


def _fourier_matrix(period: int, frequencies: int, offsets: Tensor, dtype: torch.dtype) -> Tensor:
    """exp(-2 pi i f k / period) for f < frequencies and the given offsets k, as (frequencies, len(offsets))."""
    product = torch.outer(torch.arange(frequencies, device=offsets.device), offsets)
    # Reducing modulo the period in integers keeps the angles small and so exact to the last bits.
    angle = -2 * math.pi * torch.remainder(product, period).to(dtype) / period
    return torch.polar(torch.ones_like(angle), angle)
