"""Block reflector orthogonal (BRO) layers (Lai, Huang, Kung and Chen, ICML 2025): 1-Lipschitz in l2."""

import math

import torch
from torch import Tensor, nn

from baselines.lipschitz.fourier import FourierConv2d
from baselines.lipschitz.layers import CachedWeight, spectral_norm


def block_reflector(directions: Tensor, rows: int, columns: int) -> Tensor:
    """Map V (..., m, n) to the upper left (rows, columns) of I - 2 V (V* V)^-1 V* (Lai et al., 2025, section 4).

    The reflector turns round the span of V's columns: it is orthogonal, and a part of it is 1-Lipschitz.
    """
    identity = torch.eye(rows, columns, dtype=directions.dtype, device=directions.device)
    return identity - 2 * directions[..., :rows, :] @ _dual_directions(directions)[..., :columns]


def _dual_directions(directions: Tensor) -> Tensor:
    """(V* V)^-1 V*, with n unknowns and not m: what makes the layer cheap."""
    gram = directions.mH @ directions
    # Dependent columns leave V* V invertible then; 2 V (V* V + e)^-1 V* has eigenvalues in [0, 2]: still 1-Lipschitz.
    scale = gram.diagonal(dim1=-2, dim2=-1).real.mean(dim=-1)[..., None, None]
    identity = torch.eye(directions.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + (1e-6 * scale + 1e-12) * identity, directions.mH)


class BROLinear(CachedWeight):
    """x (N, d) -> (I - 2 V (V' V)^-1 V') x + b, with V (d, ``turned``), at most half of the directions."""

    norm = "l2"

    def __init__(self, features: int, turned: int) -> None:
        super().__init__()
        # Turning all directions round would leave nothing to learn: W = -I.
        turned = min(turned, max(1, features // 2))
        self.raw = nn.Parameter(nn.init.xavier_normal_(torch.empty(features, turned)))
        self.bias = nn.Parameter(torch.zeros(features))

    def compute_weight(self) -> Tensor:
        """Return (V' V)^-1 V', (turned, d): the reflector itself is not needed."""
        return _dual_directions(self.raw)

    def forward(self, x: Tensor) -> Tensor:
        return x - 2 * nn.functional.linear(x, self.weight()) @ self.raw.mT + self.bias

    def lipschitz_bound(self) -> float:
        """Return the spectral norm of the reflector."""
        raw, dual = self.raw.detach().double(), self.weight().detach().double()
        return spectral_norm(torch.eye(len(raw), dtype=raw.dtype, device=raw.device) - 2 * raw @ dual)


class BROConv2d(FourierConv2d):
    """Circular convolution (N, in, H, W) -> (N, out, H, W), at every frequency a part of a block reflector.

    A quarter of the channels' directions is turned, as in the paper's networks.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, size: tuple[int, int]) -> None:
        widest = max(in_channels, out_channels)
        shape = (widest, max(1, widest // 4), kernel_size, kernel_size)
        super().__init__(torch.randn(shape) / math.sqrt(math.prod(shape[1:])), out_channels, size)
        self.channels = (out_channels, in_channels)

    def blocks(self, spectrum: Tensor) -> Tensor:
        return block_reflector(spectrum, *self.channels)
