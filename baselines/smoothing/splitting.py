"""Splitting noise, derandomised: deterministic l1 certificates (Levine, Feizi, ICML 2021).

Cut the line at s_i + 2 lambda k (k whole) and tell the base classifier, for each coordinate, only between which cuts it
lies: x~_i is the middle of that interval within [0, 1]. If s_i is uniform on [0, 2 lambda), a cut falls between x_i and
x'_i with probability at most |x_i - x'_i| / (2 lambda), so by the union bound, for *any* joint distribution of the s_i,

    p(x) = P(base classifier says sensitive on x~)   is   1 / (2 lambda)-Lipschitz in l1,

and p(x) > 1/2 certifies the radius 2 lambda (p(x) - 1/2). In units of 1/255 let 2 lambda = J be a whole number and
s_i = ((j + v_i) mod J) + u with fixed whole offsets v_i, j uniform on 0..J-1 and u uniform on [0, 1), where the base
classifier is shown the middle of cells, u = 1/2. Then x~ depends on x through whole numbers, and p(x) is a finite sum:

* x on the grid of 256 levels: u does not matter, p(x) is the average over the J values of j, as in the paper;
* any other x: coordinate i's interval changes at u = the fraction of 255 x_i, for the one j whose cut lies in its cell.
  So J + d evaluations, weighted by the length of their interval of u, give p(x) exactly.

s_i is uniform on the real interval, so, unlike the paper's version, the guarantee covers *every* x' in R^d, not only
those on the grid; at inputs on the grid p(x), and so the radius, is the paper's.

All this needs *one* base classifier: the same x~ must get the same vote at x and at every x', whatever batch it is
computed in. Votes are therefore cast in float64 by a copy of the network whose sums are exact (``exact_sums``), or,
where a layer is not known to it, by the network in float64 on one x~ at a time.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from baselines.smoothing.exact_sums import exact_sums

LEVELS = 255
# 255 x of an x = k / 255 stored in float32 is this close to k; such inputs are taken to lie on the grid.
GRID_TOLERANCE = 2e-5
# Rounding of the weighted average, far above what summing a million weights in float64 costs.
SHARE_SHAVE = 1e-12
BATCH_BYTES = 16 * 2**20


def splitting_period(sigma: float) -> int:
    """Return J = 2 lambda in units of 1/255 for uniform noise of the standard deviation sigma = lambda / sqrt(3)."""
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma = {sigma}: give a positive finite standard deviation")
    return max(1, round(2 * math.sqrt(3) * sigma * LEVELS))


@dataclass(frozen=True)
class _Pieces:
    """The pieces of constant x~ of one input: j, start of the interval of u, and its length, all (P,)."""

    shift: Tensor
    start: Tensor
    length: Tensor


class SplittingClassifier(nn.Module):
    """score of a network on split inputs, minus a threshold; the smoothed classifier is its exact majority vote.

    network: (N, *shape) -> (N,) score of split inputs x~; input_shape; period: J, see the module docstring. The offsets
    v_i are drawn from torch's global generator and are part of the state, as is the threshold.
    """

    threshold: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, input_shape: tuple[int, ...], period: int) -> None:
        super().__init__()
        if period < 1:
            raise ValueError(f"period = {period}: give a whole number of grid steps, at least 1")
        self.network, self.input_shape, self.period = network, tuple(input_shape), int(period)
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("offset", torch.randint(self.period, (math.prod(input_shape),)))

    def forward(self, split: Tensor) -> Tensor:
        """Return (N,) scores of inputs (N, *shape) that are already split, for training and attacks; see ``share``."""
        return self.network(split) - self.threshold

    def random_split(self, x: Tensor) -> Tensor:
        """Return x~ for one random j and u per input x (N, *shape): the noise to train with."""
        cell, fraction = _cells(x.flatten(1))
        shift = torch.randint(self.period, (len(x), 1), device=x.device)
        start = torch.rand(len(x), 1, device=x.device, dtype=fraction.dtype)
        return self._split(cell, fraction, shift, start).to(x.dtype).reshape(x.shape)

    def share(self, x: Tensor) -> np.ndarray:
        """Return (N,) float64, the exact p(x) of inputs (N, *shape); the same bits at each call.

        Inputs within float32 rounding of the grid are taken to lie on it, here and in :meth:`radius`.
        """
        return self.share_at(x, [float(self.threshold)])[0]

    def share_at(self, x: Tensor, thresholds: Sequence[float]) -> np.ndarray:
        """Return (T, N) what ``share`` returns with each of T thresholds, from one pass through all cuts."""
        shares, voter = np.zeros((len(thresholds), len(x))), _Voter(self.network)
        for index, (cell, fraction) in enumerate(zip(*_cells(x.flatten(1)), strict=True)):
            pieces = self._pieces(cell, fraction)
            scores = self._scores(voter, cell, fraction, pieces)
            for place, threshold in enumerate(thresholds):
                shares[place, index] = float(pieces.length[scores > threshold].sum()) / self.period
        return shares

    def radius(self, x: Tensor, share: np.ndarray) -> np.ndarray:
        """Return (N,) certified l1 radii over R^d given ``share(x)``; 0 where p(x) does not exceed 1/2.

        Both ends of a perturbation may have been moved to the grid; the distance moved is taken off the radius, at
        x as it is and at x' as it can be at most.
        """
        moved = _distance_to_grid_used(x.flatten(1)) + math.prod(self.input_shape) * GRID_TOLERANCE
        radius = ((share - SHARE_SHAVE - 0.5) * self.period - moved) / LEVELS
        return np.maximum(radius * (1 - SHARE_SHAVE), 0.0)

    def median_score(self, x: Tensor, shifts: int) -> Tensor:
        """Return (N,) medians of the score over at most ``shifts`` evenly spaced j; for choosing the threshold."""
        kept = torch.linspace(0, self.period - 1, min(shifts, self.period), device=x.device).round().long()
        pieces = _Pieces(kept, torch.full_like(kept, 0.5, dtype=torch.float64), torch.ones_like(kept))
        cells = zip(*_cells(x.flatten(1)), strict=True)
        voter = _Voter(self.network)
        return torch.stack([self._scores(voter, *one, pieces).median() for one in cells]) - self.threshold

    def _pieces(self, cell: Tensor, fraction: Tensor) -> _Pieces:
        """List the pieces of one input: whole j, cut where a coordinate off the grid changes its interval."""
        off_grid = fraction > 0
        shift = torch.cat(
            (torch.arange(self.period, device=cell.device), (cell - self.offset)[off_grid] % self.period)
        )
        start = torch.cat((fraction.new_zeros(self.period), fraction[off_grid]))
        order = torch.argsort(shift + start)
        shift, start = shift[order], start[order]
        end = torch.where(shift.diff(append=shift.new_tensor([-1])) == 0, start.roll(-1), 1.0)
        return _Pieces(shift, start, end - start)

    def _scores(self, voter: "_Voter", cell: Tensor, fraction: Tensor, pieces: _Pieces) -> Tensor:
        """Return (P,) float64, the network's scores of one input's pieces, computed in batches."""
        rows = max(1, BATCH_BYTES // (32 * cell.numel()))
        batches = zip(pieces.shift.split(rows), pieces.start.split(rows), strict=True)
        return torch.cat(
            [
                voter(
                    self._split(cell, fraction, shift[:, None], start[:, None])
                    .double()
                    .reshape(-1, *self.input_shape)
                )
                for shift, start in batches
            ]
        )

    def _split(self, cell: Tensor, fraction: Tensor, shift: Tensor, start: Tensor) -> Tensor:
        """Return the middles (P, d) of the intervals that hold x for j = shift (P, 1) and u just above start (P, 1).

        The cut s + J k lies below x iff its cell does, or is x's own and u < the fraction; since whole numbers are
        compared, one floor finds k. Float32 is exact here: the numbers are whole and below 2^24.
        """
        cut = ((shift + self.offset) % self.period).float()
        below = cell.float() - (fraction <= start).float()
        low = cut + self.period * torch.floor((below - cut) / self.period) + 0.5
        return (low.clamp(0, LEVELS) + (low + self.period).clamp(0, LEVELS)) / (2 * LEVELS)


class _Voter:
    """Scores of a network that depend on nothing but the input they are of, not on the batch that it is in."""

    def __init__(self, network: nn.Module) -> None:
        exact = exact_sums(network)
        self.one_by_one = exact is None
        self.network = copy.deepcopy(network).double().eval() if exact is None else exact

    def __call__(self, split: Tensor) -> Tensor:
        """Return (P,) float64 scores of split inputs (P, *shape)."""
        with torch.inference_mode():
            if not self.one_by_one:
                return self.network(split)
            # Cloned, so that each has the same place in memory, which some operators go by.
            return torch.cat([self.network(one.clone()).reshape(1) for one in split.split(1)])


def _cells(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return whole parts (int64) and fractions (float64) of 255 x, fractions 0 where x lies on the grid."""
    if not torch.isfinite(x).all():
        raise ValueError("inputs hold NaN or infinity: give finite numbers")
    scaled = x.double() * LEVELS
    nearest = scaled.round()
    scaled = torch.where((scaled - nearest).abs() <= GRID_TOLERANCE, nearest, scaled)
    cell = scaled.floor()
    return cell.long(), scaled - cell


def _distance_to_grid_used(x: Tensor) -> np.ndarray:
    """Return (N,) how far :func:`_cells` moved x (N, d), in l1 and units of 1/255."""
    cell, fraction = _cells(x)
    return (x.double() * LEVELS - cell - fraction).abs().sum(dim=1).cpu().numpy()
