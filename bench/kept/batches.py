"""Radii of batches: refused when they break the contract, packed and joined, and widened to all inputs."""

from collections.abc import Mapping, Sequence

import numpy as np

from bench.basics.radii import joined_reasons
from bench.contract import Outcome, Radii

OUTCOMES = frozenset(Outcome)


class ContractError(RuntimeError):
    """A method returned something the contract forbids: a wrong shape, NaN, an unknown outcome."""


def checked_predictions(predicted: np.ndarray, count: int) -> np.ndarray:
    """Return the predictions (N,) int8 of a batch; raise ContractError unless they are 1, 0 or -1."""
    if predicted.shape != (count,) or not np.isin(predicted, (-1, 0, 1)).all():
        raise ContractError(
            f"predict returned shape {predicted.shape} for {count} inputs, or values other than 1, 0 and -1"
        )
    return predicted.astype(np.int8)


def checked_scores(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the scores (N,) of a batch; raise ContractError unless there is one for each input."""
    if scores.shape != (count,):
        raise ContractError(f"decision_range returned shape {scores.shape} for {count} inputs")
    return scores


def checked_radii(radii: Mapping[str, Radii], norm: str, count: int) -> Radii:
    """Return the radii of a batch of ``count`` inputs in one norm; raise ContractError for what no table may hold."""
    if norm not in radii:
        raise ContractError(f"certify returned no radii for {norm}")
    part = radii[norm]
    part.radius, part.outcome = np.asarray(part.radius, np.float64), np.asarray(part.outcome, object)
    if part.radius.shape != (count,) or part.outcome.shape != (count,):
        raise ContractError(
            f"certify returned radii of shape {part.radius.shape} and outcomes of shape {part.outcome.shape} "
            f"in {norm} for {count} inputs"
        )
    if np.isnan(part.radius).any() or (part.radius < 0).any():
        raise ContractError(f"certify returned NaN or negative radii in {norm}")
    if not OUTCOMES.issuperset(part.outcome):
        raise ContractError(
            f"certify returned unknown outcomes {sorted(set(map(str, part.outcome)) - OUTCOMES)}"
        )
    if (part.radius[part.outcome == Outcome.CERTIFIED] <= 0).any():
        raise ContractError(f"certify called a radius of 0 certified in {norm}: it proves nothing")
    return part


def packed(radii: Radii, norm: str) -> dict[str, np.ndarray]:
    """Return the radii of a batch as arrays, named after their norm, that can be stored and joined."""
    return {
        f"{norm}.radius": radii.radius,
        f"{norm}.outcome": radii.outcome.astype(str),
        f"{norm}.radius_upper": radii.uppers,
        f"{norm}.draws": radii.counted,
        f"{norm}.reason": np.array([radii.reason]),
    }


def unpacked(arrays: Mapping[str, np.ndarray], norm: str) -> Radii:
    """Return the radii that ``packed`` made arrays of, those of several batches joined."""
    return Radii(
        radius=arrays[f"{norm}.radius"],
        outcome=arrays[f"{norm}.outcome"].astype(object),
        radius_upper=arrays[f"{norm}.radius_upper"],
        draws=arrays[f"{norm}.draws"],
        reason=joined_reasons(arrays[f"{norm}.reason"].tolist()),
    )


def spread(radii: Radii, certified: np.ndarray, predicted: np.ndarray) -> Radii:
    """Widen radii of the inputs at positions ``certified`` to all inputs, the others keeping their own outcome.

    predicted: (N,), 1 at the certified positions, 0 (misclassified) or -1 (abstained) elsewhere.
    """
    outcome = np.where(predicted == 0, Outcome.MISCLASSIFIED, Outcome.ABSTAINED).astype(object)
    outcome[certified] = radii.outcome

    def widen(values: np.ndarray, default: float) -> np.ndarray:
        full = np.full(len(predicted), default)
        full[certified] = values
        return full

    return Radii(
        radius=widen(radii.radius, 0.0),
        outcome=outcome,
        radius_upper=widen(radii.uppers, np.inf),
        draws=widen(radii.counted, np.nan),
        reason=radii.reason,
    )


def joined_arrays(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays of consecutive batches as those of one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
