"""A Lipschitz network taken apart: the features that its last layer reads, and that layer as an affine function."""

from typing import Any

import torch
from torch import Tensor, nn

from baselines.lipschitz.certify import BOUND_SLACK, bound_from, conversion, layer_bound
from baselines.lipschitz.layers import CachedWeight
from baselines.lipschitz.linf import HalfDifference, LinfDistance
from baselines.lipschitz.networks import LipschitzNetwork, UnitRow
from baselines.lipschitz.rounding import output_error


class LipschitzFeatures(nn.Module):
    """phi(x), (N, *shape) -> (N, k): what the last layer of a Lipschitz network reads.

    inputs: how many coordinates x has. Where distances end in linf, what the last distance or dense layer reads is part
    of phi too: joining values does not stretch linf.
    """

    def __init__(self, network: LipschitzNetwork, inputs: int) -> None:
        super().__init__()
        self.norm, self.inputs = network.norm, inputs
        self.layers = nn.Sequential(*list(network.body)[:-1])
        self.inner = _inner_tap(self.layers) if layer_bound(self.layers, self.norm)[1] == "linf" else 0

    def forward(self, x: Tensor) -> Tensor:
        layers = list(self.layers)
        inner = nn.Sequential(*layers[: self.inner])(x)
        last = nn.Sequential(*layers[self.inner :])(inner)
        return torch.cat([last, inner], dim=1) if self.inner else last

    def lipschitz_bound(self, norm: str) -> tuple[float, str]:
        """Return L and q with ||phi(x) - phi(y)||_q <= L ||x - y||_p for p = ``norm``."""
        bounds = [bound_from(part, self.norm, norm, self.inputs) for part in self._parts()]
        return max(bounds) * (1 + BOUND_SLACK), layer_bound(self.layers, self.norm)[1]

    def rounding(self, x: Tensor, norm: str, reach: Tensor) -> Tensor:
        """Bound (N,) phi's rounding, measured where it lands, at x (N, *shape) and within ``reach`` (N,) of it."""
        native = conversion(self.norm, norm, self.inputs) * reach
        errors = [output_error(part, self.norm, x, native, layer_bound) for part in self._parts()]
        return torch.stack(errors).amax(dim=0)

    def _parts(self) -> list[nn.Sequential]:
        """The layers up to each of the values that are joined."""
        return [self.layers, nn.Sequential(*list(self.layers)[: self.inner])] if self.inner else [self.layers]


def _inner_tap(layers: nn.Sequential) -> int:
    """How many layers come before the last one with weights; 0 where that is the first."""
    weighted = [index for index, layer in enumerate(layers) if isinstance(layer, CachedWeight | LinfDistance)]
    return weighted[-1] if len(weighted) > 1 else 0


@torch.no_grad()
def affine_head(network: LipschitzNetwork, features: int) -> tuple[Tensor, Tensor]:
    """The network's last layer and threshold as weight (features,) and bias () on ``LipschitzFeatures``."""
    last: Any = network.body[-1]
    weight = torch.zeros(features)
    if isinstance(last, HalfDifference):
        weight[:2] = torch.tensor([-0.5, 0.5])
        return weight, -network.threshold
    row = last.raw / last.raw.norm() if isinstance(last, UnitRow) else last.weight()
    weight[: row.shape[1]] = row[0]
    return weight, last.bias[0] - network.threshold
