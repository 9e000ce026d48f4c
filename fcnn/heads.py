"""Convex heads for learned feature maps, which can start as the affine function that the map was trained with."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fcnn.networks import ConvexMLP, ConvexNetwork


class MaxAffine(ConvexNetwork):
    """g(z) = max_k a_k . z + b_k over ``pieces`` affine functions, (N, in_features) -> (N,): any polyhedral g."""

    def __init__(self, in_features: int, pieces: int = 16) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("pieces", pieces)):
            if value < 1:
                raise ValueError(f"{name} = {value}: must be at least 1")
        self.affine = nn.Linear(in_features, pieces)

    def settings(self) -> dict[str, Any]:
        return {"in_features": self.affine.in_features, "pieces": self.affine.out_features}

    def floats_per_input(self, feature_shape: Sequence[int]) -> int:
        if tuple(feature_shape) != (self.affine.in_features,):
            raise ValueError(
                f"one input's features have shape {tuple(feature_shape)}: expected ({self.affine.in_features},)"
            )
        return 3 * self.affine.in_features + 2 * self.affine.out_features

    def forward(self, z: Tensor) -> Tensor:
        return self.affine(z).amax(dim=1)


@torch.no_grad()
def start_affine(head: ConvexNetwork, weight: Tensor, bias: Tensor) -> None:
    """Make a head the affine function z -> weight . z + bias, in place; weight (k,), bias ().

    A ConvexMLP needs a passthrough. Its hidden units keep their weights but count for nothing, and the pieces of a
    MaxAffine are all the same: from there training can only add to what the map was trained with.
    """
    if isinstance(head, MaxAffine):
        head.affine.weight.copy_(weight.expand_as(head.affine.weight))
        head.affine.bias.fill_(bias)
        return
    if not isinstance(head, ConvexMLP) or not head.passthrough:
        raise ValueError("only MaxAffine and a ConvexMLP with a passthrough can start as an affine function")
    last = head.passthroughs[-1] if head.hidden else head.first
    last.weight.copy_(weight[None])
    if head.hidden:
        head.hidden_layers[-1].weight.zero_()
    (head.hidden_layers[-1] if head.hidden else head.first).bias.fill_(bias)
