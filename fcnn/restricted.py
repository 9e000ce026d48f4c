"""Certificates over some coordinates only: what an adversary cannot change stays as it is.

Where delta vanishes in the fixed coordinates, a tangent's slope there takes nothing from it, so setting the slope to 0
leaves every bound valid and makes the radius that of the function of the other coordinates. The network is wrapped, not
rebuilt: its values are the same bit by bit.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fcnn.convex_network import ConvexNetwork
from fcnn.convexity import Proof
from fcnn.feature_maps import CenteredAbs, FeatureMap, Identity
from fcnn.score import FeatureConvexScore


class MutableSlopes(ConvexNetwork):
    """A convex network whose gradient is 0 in the features that stay as they are; mutable: (*feature shape) bool.

    Its values are those of the network, and so is what is proved of them.
    """

    mutable: Tensor

    def __init__(self, network: ConvexNetwork, mutable: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mutable", mutable)

    def forward(self, features: Tensor) -> Tensor:
        return self.network(torch.where(self.mutable, features, features.detach()))

    def settings(self) -> dict[str, Any]:
        return {"network": self.network, "mutable": self.mutable}

    def floats_per_input(self, feature_shape: Sequence[int]) -> int:
        return self.network.floats_per_input(feature_shape)

    def require_nonnegative(self) -> None:
        self.network.require_nonnegative()

    def proof(self, features: Tensor) -> Proof:
        return self.network.proof(features)

    def is_flat(self, features: Tensor) -> Tensor:
        return self.network.is_flat(features)


def restricted(classifier: FeatureConvexScore, mutable: Tensor, x: Tensor) -> FeatureConvexScore:
    """Return the same score with tangents for changes of the ``mutable`` coordinates of x (N, *shape) only.

    mutable: (*shape) bool. A feature map that is not of this package may mix coordinates: it keeps its certificates for
    any change, which hold for these changes too. Raises ValueError for a mask that is not boolean, does not fit, or
    leaves nothing mutable.
    """
    if mutable.shape != x.shape[1:]:
        raise ValueError(f"mutable has shape {tuple(mutable.shape)}, one input {tuple(x.shape[1:])}")
    if mutable.dtype != torch.bool or not bool(mutable.any()):
        raise ValueError("mutable must be a boolean mask with at least one coordinate that may change")
    features = _mutable_features(classifier.feature_map, mutable)
    if features is None:
        return classifier
    network = MutableSlopes(classifier.network, features.to(classifier.threshold.device))
    return FeatureConvexScore(network, classifier.feature_map, float(classifier.threshold))


def _mutable_features(feature_map: FeatureMap, mutable: Tensor) -> Tensor | None:
    """Which features (*feature shape) the mutable coordinates move; None where the map may mix them."""
    if feature_map.is_exactly(Identity):
        return mutable
    return torch.cat([mutable, mutable]) if feature_map.is_exactly(CenteredAbs) else None
