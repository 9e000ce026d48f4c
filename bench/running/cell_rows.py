"""Turns what a method returned into rows of the tables; what is not known is missing, never a magic number."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.calibration import Calibration
from bench.contract import Curve, Outcome, Radii
from bench.kept.rows import PREDICTION_COLUMNS
from bench.running.plan import CellPlan

SELF_EXPLAINING = [Outcome.CERTIFIED, Outcome.MISCLASSIFIED, Outcome.ABSTAINED]


@dataclass(frozen=True)
class RowMaker:
    """What all rows of a cell at one operating point share."""

    plan: CellPlan
    guarantee: str
    alpha: float | None
    calibration: Calibration

    def radii(
        self, curve: Curve, norm: str, index: np.ndarray, predicted: np.ndarray, radii: Radii, seconds: float
    ) -> pd.DataFrame:
        """Rows of one curve and norm: one per sensitive test input.

        index, predicted: (N,), predicted being 1, 0 or -1 (abstained); radii: of N inputs; seconds: of
        the call that certified in all of the plan's norms that the curve has, per input that was certified.
        """
        covered = [one for one in self.plan.norms if one in curve.norms]
        count = len(index)
        certified = radii.outcome == Outcome.CERTIFIED
        upper = radii.radius_upper if radii.radius_upper is not None else np.full(count, np.inf)
        draws = radii.draws if radii.draws is not None else np.full(count, np.nan)
        abstained = (predicted == -1) | (radii.outcome == Outcome.ABSTAINED)
        return pd.DataFrame(
            {
                "dataset": self.plan.dataset,
                "method": self.plan.method_id,
                "certificate": curve.certificate,
                "norm": norm,
                "domain": curve.domain,
                "operating_point": self.calibration.point,
                "guarantee": self.guarantee,
                "alpha": pd.array([self.alpha] * count, dtype="Float64"),
                "draws": _optional(draws, "Int64", missing=np.isnan(draws)),
                "native": norm in curve.native,
                "calibrated_on": self.plan.calibrate,
                "calibration_others": pd.array([self.calibration.others] * count, dtype="Int64"),
                "seed": self.plan.seed,
                "index": index,
                "label": 1,
                "predicted": _optional(predicted, "Int8", missing=abstained),
                "outcome": [str(outcome) for outcome in radii.outcome],
                "radius": _optional(radii.radius, "Float64", missing=~certified),
                "radius_upper": _optional(upper, "Float64", missing=~np.isfinite(upper)),
                "seconds": np.where((predicted == 1) & (norm in covered), seconds, 0.0),
                "norms_in_call": len(covered) if norm in covered else 0,
                "reason": np.where(np.isin(radii.outcome, SELF_EXPLAINING), "", radii.reason),
            }
        )

    def predictions(
        self,
        index: np.ndarray,
        labels: np.ndarray,
        predicted: np.ndarray,
        scores: np.ndarray,
        seconds: float,
    ) -> pd.DataFrame:
        """Rows of all test inputs used; index, labels, predicted, scores: (N,); seconds: per prediction."""
        return pd.DataFrame(
            {
                "dataset": self.plan.dataset,
                "method": self.plan.method_id,
                "operating_point": self.calibration.point,
                "seed": self.plan.seed,
                "index": index,
                "label": labels,
                "predicted": _optional(predicted, "Int8", missing=predicted == -1),
                "score": _optional(scores, "Float64", missing=np.isnan(scores)),
                "seconds": seconds,
            }
        )


def no_predictions() -> pd.DataFrame:
    """The table of a cell that failed before it predicted anything."""
    return pd.DataFrame(columns=list(PREDICTION_COLUMNS))


def _optional(values: np.ndarray, dtype: str, missing: np.ndarray) -> pd.api.extensions.ExtensionArray:
    """A nullable column: ``values`` (N,) except where ``missing``."""
    column = pd.array(np.where(missing, 0, values), dtype=dtype)
    column[missing] = pd.NA
    return column
