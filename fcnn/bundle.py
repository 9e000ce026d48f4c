"""The tangents a refinement keeps for each input."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fcnn.feature_maps import Identity
from fcnn.interior_point import Cuts
from fcnn.score import CertifiedScore

GUARD = 1e-14
NEW_CUT_WEIGHT = 0.1


@dataclass(frozen=True)
class Tangents:
    """Tangents of the score at points y, as seen from x.

    score (N,): at y. score(x + δ) >= feature_offset + feature_slope . (φ(x + δ) - φ(x)) always holds, but for the
    rounding of the slope (``tangent_radii``): the offset is lowered by that of everything else. offset and slope
    linearise φ at y too: offset + slope . δ guides the walk, and bounds the score only for the identity map, where both
    pairs are the same tensors. Slopes are flat: (N, k) and (N, d).
    """

    score: Tensor
    feature_offset: Tensor
    feature_slope: Tensor
    offset: Tensor
    slope: Tensor


def tangents_at(certified: CertifiedScore, y: Tensor, x: Tensor, error_at_x: Tensor) -> Tangents:
    """Tangents at y (N, *shape), seen from x: one forward and one backward pass.

    error_at_x (N,): ``error_at_input`` of the features of x, which is part of every tangent's error.
    """
    frozen = certified.frozen
    if frozen.feature_map.is_exactly(Identity):
        features = frozen.feature_map(y)
        score, slope = certified.tangent(features)
        offset = _offset(score, slope, x - y) - 2 * (certified.error(features) + error_at_x)
        slope = slope.flatten(1)
        return Tangents(score, offset, slope, offset, slope)
    y = y.detach().requires_grad_()
    with torch.enable_grad():
        features = frozen.feature_map(y)
        score = frozen.network(features) - frozen.threshold
        feature_slope, slope = torch.autograd.grad(score.sum(), (features, y))
    score, features = score.detach(), features.detach()
    with torch.no_grad():
        feature_offset = _offset(score, feature_slope, frozen.feature_map(x) - features)
        feature_offset = feature_offset - 2 * (certified.error(features) + error_at_x)
        offset = _offset(score, slope, x - y)
    return Tangents(score, feature_offset, feature_slope.flatten(1), offset, slope.flatten(1))


def _offset(score: Tensor, slope: Tensor, towards: Tensor) -> Tensor:
    """score + slope . towards, less what rounding may have added to the sum."""
    terms = (slope * towards).flatten(1)
    return score + terms.sum(1) - GUARD * (score.abs() + terms.abs().sum(1))


class Bundle:
    """Tangents of N inputs, at most ``capacity`` for each; the one with the smallest weight makes room.

    They are kept in units in which the margin and the first certified radius are 1: offsets (N, K), slopes (N, K, d).
    """

    def __init__(self, first: Tangents, radius: Tensor, capacity: int) -> None:
        self.unit, self.margin = radius, first.score
        # Not by the slopes: behind a translation autograd returns one tensor for both.
        self.lifted = first.feature_offset is not first.offset
        self.count = 0
        self._slopes = self._room(first.slope, capacity)
        self._feature_slopes = self._room(first.feature_slope, capacity) if self.lifted else self._slopes
        self._offsets = torch.zeros_like(self._slopes[:, :, 0])
        self._feature_offsets = torch.zeros_like(self._offsets) if self.lifted else self._offsets
        self._weights = torch.zeros_like(self._offsets)
        self.add(first)

    @property
    def weights(self) -> Tensor:
        """λ (N, K) >= 0, those of the last solution and a small one for the tangent added since."""
        return self._weights[:, : self.count]

    @weights.setter
    def weights(self, values: Tensor) -> None:
        self._weights[:, : self.count] = values

    def cuts(self, radius: Tensor, lower: Tensor, upper: Tensor) -> Cuts:
        """The cuts and the bounds on δ, all in the bundle's units; ``radius`` (N,) is the one certified by now."""
        unit = self.unit[:, None]
        slopes, offsets = self._slopes[:, : self.count], self._offsets[:, : self.count]
        return Cuts(slopes, offsets, lower.flatten(1) / unit, upper.flatten(1) / unit, radius[:, None] / unit)

    def combination(self) -> tuple[Tensor, Tensor]:
        """Margin (N,) and feature-space gradient (N, k) of the tangents' λ-combination, Σ λ = 1."""
        weights = self.weights * (self.margin / self.weights.sum(1))[:, None]
        terms = weights * self._feature_offsets[:, : self.count]
        slope = torch.bmm(weights[:, None], self._feature_slopes[:, : self.count])[:, 0]
        return terms.sum(1) - GUARD * terms.abs().sum(1), slope / self.unit[:, None]

    def add(self, tangents: Tangents) -> None:
        """Keep one more tangent for each input."""
        rows = torch.arange(len(self.unit), device=self.unit.device)
        if self.count < self._slopes.shape[1]:
            slot = torch.full_like(rows, self.count)
            self.count += 1
        else:
            slot = self._weights.argmin(1)
        self._weights[rows, slot] = 0.0
        total = self._weights.sum(1)
        self._weights[rows, slot] = torch.where(total > 0, NEW_CUT_WEIGHT * total, 1.0)
        scale = (self.unit / self.margin)[:, None]
        self._offsets[rows, slot] = tangents.offset / self.margin
        self._slopes[rows, slot] = tangents.slope * scale
        if self.lifted:
            self._feature_offsets[rows, slot] = tangents.feature_offset / self.margin
            self._feature_slopes[rows, slot] = tangents.feature_slope * scale

    def keep(self, rows: Tensor) -> None:
        """Forget all inputs but these."""
        self.unit, self.margin, self._weights = self.unit[rows], self.margin[rows], self._weights[rows]
        self._slopes, self._offsets = self._slopes[rows], self._offsets[rows]
        same = (self._feature_slopes[rows], self._feature_offsets[rows]) if self.lifted else ()
        self._feature_slopes, self._feature_offsets = same or (self._slopes, self._offsets)

    @staticmethod
    def _room(slope: Tensor, capacity: int) -> Tensor:
        return torch.zeros(len(slope), capacity, slope.shape[1], dtype=slope.dtype, device=slope.device)
