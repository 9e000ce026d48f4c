"""Certified radii of a batch, and what became of each input."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from torch import Tensor


class Outcome(StrEnum):
    """What became of one test input in one norm; each says what the reader can do about it."""

    CERTIFIED = "certified"
    ABSTAINED = "abstained"
    MISCLASSIFIED = "misclassified"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"
    UNSUPPORTED = "unsupported"
    ERROR = "error"

    @property
    def advice(self) -> str:
        """One line for people: the meaning, and what would change it."""
        return {
            Outcome.CERTIFIED: "predicted sensitive with a radius that holds",
            Outcome.ABSTAINED: "the vote was too close to call: draw more samples or use less noise",
            Outcome.MISCLASSIFIED: "the sensitive input is predicted not sensitive: nothing to certify",
            Outcome.UNKNOWN: "predicted sensitive, but no positive radius could be proved",
            Outcome.TIMEOUT: "the budget ended before any radius was proved: raise the budget",
            Outcome.UNSUPPORTED: "the method does not apply to this network or norm: see the reason",
            Outcome.ERROR: "the method failed: see the reason and the cell's log",
        }[self]


@dataclass
class Radii:
    """Certificates of a batch in one norm on one curve.

    radius: (N,) float64, the certified radius; only read where the outcome is ``certified`` and positive there
        (``inf``: the whole domain is certified).
    outcome: (N,) outcomes; ``from_radius`` fills them in for methods without special cases.
    radius_upper: (N,) float64 norm of a known adversarial perturbation, ``inf`` where none is known.
    draws: (N,) number of noise draws counted (probabilistic methods only).
    reason: a sentence for outcomes that need one (for example the layer that is not supported).
    """

    radius: np.ndarray
    outcome: np.ndarray
    radius_upper: np.ndarray | None = None
    draws: np.ndarray | None = None
    reason: str = ""

    @classmethod
    def from_radius(cls, radius: Tensor | np.ndarray, **rest: Any) -> "Radii":
        """Positive radii are ``certified``; a radius of 0 proves nothing and is ``unknown``."""
        radius = np.asarray(radius.detach().cpu() if isinstance(radius, Tensor) else radius, dtype=np.float64)
        outcome = np.where(radius > 0, Outcome.CERTIFIED, Outcome.UNKNOWN)
        return cls(radius=radius, outcome=outcome, **rest)

    def of(self, chosen: np.ndarray) -> "Radii":
        """The certificates of the inputs ``chosen`` (N,) bool."""
        upper, draws = (None if part is None else part[chosen] for part in (self.radius_upper, self.draws))
        return Radii(self.radius[chosen], self.outcome[chosen], upper, draws, self.reason)

    @classmethod
    def without(cls, count: int, outcome: Outcome, reason: str) -> "Radii":
        """A batch of ``count`` inputs that all share one outcome other than ``certified``."""
        return cls(np.zeros(count), np.full(count, outcome, dtype=object), reason=reason)

    @property
    def uppers(self) -> np.ndarray:
        """``radius_upper`` (N,), inf where none is given."""
        return (
            np.full(len(self.radius), np.inf)
            if self.radius_upper is None
            else np.asarray(self.radius_upper, float)
        )

    @property
    def counted(self) -> np.ndarray:
        """``draws`` (N,), NaN where none are given."""
        return np.full(len(self.radius), np.nan) if self.draws is None else np.asarray(self.draws, float)

    @classmethod
    def joined(cls, parts: Sequence["Radii"]) -> "Radii":
        """The certificates of consecutive batches as those of one."""
        return cls(
            radius=np.concatenate([part.radius for part in parts]),
            outcome=np.concatenate([part.outcome for part in parts]),
            radius_upper=np.concatenate([part.uppers for part in parts]),
            draws=np.concatenate([part.counted for part in parts]),
            reason=joined_reasons([part.reason for part in parts]),
        )


def joined_reasons(reasons: Sequence[str]) -> str:
    """The sentences of several batches as one, each once."""
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))
