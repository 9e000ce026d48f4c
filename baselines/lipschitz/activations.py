"""Gradient-norm preserving activation."""

import torch
from torch import Tensor, nn


class MaxMin(nn.Module):
    """GroupSort with groups of two (Anil, Lucas and Grosse, ICML 2019): sorts pairs of channels of (N, C, ...).

    A permutation of its input everywhere, so 1-Lipschitz in every norm. An unpaired last channel passes through.
    """

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        first, second, rest = x[:, :half], x[:, half : 2 * half], x[:, 2 * half :]
        return torch.cat([torch.maximum(first, second), torch.minimum(first, second), rest], dim=1)
