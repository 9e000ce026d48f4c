"""Dense layers for scores that are 1-Lipschitz in l1 (after Anil, Lucas and Grosse, ICML 2019).

A first layer whose entries are at most 1 maps l1 to linf without stretching: |w . v| <= max|w_i| ||v||_1. Layers whose
rows have l1 norm 1 go on from linf to linf, as do MaxMin and the last row.
"""

import torch
from torch import Tensor, nn

from baselines.lipschitz.layers import CachedWeight

DUAL_ORDER = {"l1": torch.inf, "l2": 2, "linf": 1}


class BoundedEntries(CachedWeight):
    """x (N, in_features) -> W x + b (N, out_features) with every |W_ij| <= 1: 1-Lipschitz from l1 to linf.

    The entries are projected: ``project()`` after each step of the training keeps the raw ones where they have a
    gradient.
    """

    norm = "l1"
    norm_out = "linf"

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(2 * torch.rand(out_features, in_features) - 1)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def compute_weight(self) -> Tensor:
        return self.raw.clamp(-1, 1)

    @torch.no_grad()
    def project(self) -> None:
        """Clamp the raw entries, in place."""
        self.raw.clamp_(-1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight(), self.bias)

    def lipschitz_bound(self) -> float:
        """Return the largest |W_ij|."""
        return self.bound_from("l1")

    def bound_from(self, norm: str) -> float:
        """Bound ||W v||_inf per unit of v in a norm, exactly: the largest dual norm of a row."""
        return _longest_row(self.weight(), norm)


class UnitRows(CachedWeight):
    """x (N, in_features) -> W x + b (N, out_features) with rows of l1 norm 1: 1-Lipschitz in linf."""

    norm = "linf"

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def compute_weight(self) -> Tensor:
        return self.raw / self.raw.abs().sum(dim=1, keepdim=True).clamp_min(1e-12)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight(), self.bias)

    def lipschitz_bound(self) -> float:
        """Return the largest l1 norm of a row."""
        return _longest_row(self.weight(), "linf")


def _longest_row(weight: Tensor, norm: str) -> float:
    lengths = torch.linalg.vector_norm(weight.detach().double(), ord=DUAL_ORDER[norm], dim=1)
    return lengths.max().item()
