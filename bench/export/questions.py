"""Questions in VNN-LIB: is every input of a box around a test input given a positive score?

A question holds when no input X of its box has an output Y <= 0, which verifiers call ``unsat``. VNN-LIB bounds each
input on its own, so a box, that is a ball in linf, can be asked about, and balls in l1 and l2 cannot.
Source: the VNN-LIB standard, versions 1.0 (used by the verifier competitions) and 2.0.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Question:
    """A box around one test input; lower and upper: (*shape) float32, reach: its linf radius, >= ``radius``."""

    lower: np.ndarray
    upper: np.ndarray
    radius: float
    reach: float


def ask(x: np.ndarray, radius: float, domain: str, mutable: np.ndarray | None = None) -> Question:
    """Return the question for an input x (*shape) float32 and an linf radius, kept in [0, 1] if domain is ``box``.

    mutable: (d,) bool, the only features that move; None: all.

    Its bounds are rounded outward to float32, so that verifiers read the same box in single and double precision, and
    an answer for it is one for the ball.
    """
    exact = x.astype(np.float64)
    lower, upper = _outward(exact - radius, -np.inf), _outward(exact + radius, np.inf)
    if domain == "box":
        lower, upper = np.clip(lower, 0, 1), np.clip(upper, 0, 1)
    if mutable is not None:
        moves = mutable.reshape(x.shape)
        lower, upper = np.where(moves, lower, x), np.where(moves, upper, x)
    reach = float(max((exact - lower).max(), (upper - exact).max(), radius))
    return Question(lower, upper, radius, reach)


def vnnlib(question: Question, version: str, comment: str) -> str:
    """Return the question as the text of a .vnnlib file."""
    shape = question.lower.shape
    bounds = zip(np.ndindex(shape), question.lower.ravel(), question.upper.ravel(), strict=True)
    if version == "1.0":
        names = [f"X_{place}" for place in range(question.lower.size)]
        output = "Y_0"
        head = [*(f"(declare-const {name} Real)" for name in names), f"(declare-const {output} Real)"]
    else:
        names = [f"X[0,{','.join(map(str, place))}]" for place in np.ndindex(shape)]
        output = "Y[0,0]"
        sizes = ",".join(map(str, (1, *shape)))
        head = [
            "(vnnlib-version <2.0>)",
            "(declare-network N",
            f"  (declare-input X float32 [{sizes}])",
            "  (declare-output Y float32 [1,1])",
            ")",
        ]
    lines = [f"; {comment}", *head]
    for name, (_, low, high) in zip(names, bounds, strict=True):
        lines += [f"(assert (>= {name} {decimal(low)}))", f"(assert (<= {name} {decimal(high)}))"]
    return "\n".join([*lines, f"(assert (<= {output} 0.0))", ""])


def decimal(value: float) -> str:
    """A number without exponent whose nearest double, and nearest float32, is the value."""
    return np.format_float_positional(np.float64(value), trim="0")


def _outward(values: np.ndarray, direction: float) -> np.ndarray:
    """Round float64 values to float32 towards a direction."""
    rounded = values.astype(np.float32)
    inside = rounded > values if direction < 0 else rounded < values
    return np.where(inside, np.nextafter(rounded, np.float32(direction)), rounded)
