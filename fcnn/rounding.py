"""How much of a score and of its slope may be rounding, and what that takes from a certificate.

A network's terms add up to at most slope . |features| + offset in absolute value (``convexity.Proof``) and each passes
at most so many roundings, so a score computed in float64 is off by at most ``unit`` times that, whatever the order of
the sums, and a gradient by ``unit`` times slope. Theorem and proof: ``docs/certificates.md``, section Rounding.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from fcnn.certificates import DUAL_ORDER, row_norms
from fcnn.convexity import Proof

HALF_EPSILON = torch.finfo(torch.float64).eps / 2
# Products that underflow lose no more than this.
UNDERFLOW = 1e-290
# Errors of a slope: in the tangent, in the score at the perturbed input, and in the sums of a combination.
SLOPE_UNITS = 3.0


@dataclass(frozen=True)
class Rounding:
    """Error bounds of a score in float64: ``unit`` times (slope . |features| + offset); slope (k,), flat."""

    unit: float
    slope: Tensor
    offset: float

    @classmethod
    def of(cls, proof: Proof, threshold: float) -> Self:
        """From the proof for a network whose score is compared with ``threshold``."""
        # Two more for the feature map and the threshold; the factor takes in the terms of second order.
        unit = (proof.roundings + 2) * HALF_EPSILON * (1 + 1e-6)
        slope = proof.slope[0].flatten().nan_to_num(nan=torch.finfo(torch.float64).max)
        offset = float(proof.offset[0]) + abs(threshold)
        return cls(unit, slope, offset if math.isfinite(offset) else math.inf)

    def of_score(self, features: Tensor) -> Tensor:
        """Largest error (N,) of the scores at features (N, *feature shape); inf where sizes overflow."""
        sizes = torch.mv(features.flatten(1).abs(), self.slope)
        return self.unit * sizes + (self.unit * self.offset + UNDERFLOW)

    def of_slope(self) -> Tensor:
        """Largest error (k,) of a tangent's slope in each feature, for all that it stands for; see SLOPE_UNITS."""
        return SLOPE_UNITS * self.unit * self.slope

    def of_steps(self, norm: str) -> float:
        """How much the errors of the slope can take for each unit of ‖change of the features‖_p."""
        (size,) = row_norms(self.of_slope()[None], [DUAL_ORDER[norm]])
        return float(size)
