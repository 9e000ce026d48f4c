"""Operating points by their names, as people write them.

``balanced``: the recalls of the two classes are as close as they can be. ``other_recall=0.99``: at least this share of
the other class's inputs is called not sensitive, so at most 1 % are false positives. ``given``: the threshold that the
network came with; nothing is chosen.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bench.basics.errors import UsageError

BALANCED = "balanced"
GIVEN = "given"
OTHER_RECALL = "other_recall"
DEFAULT_POINTS = (BALANCED, "other_recall=0.99")
# Rounding of n (1 - q) in float64: far below one input.
SLACK = 1e-9


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold is chosen for. other_recall: the least recall of the other class, None for balanced recalls."""

    other_recall: float | None = None

    @classmethod
    def parse(cls, text: str) -> "OperatingPoint":
        """Return the point that ``balanced`` or ``other_recall=0.99`` stands for; raise UsageError for other texts."""
        if text == BALANCED:
            return cls()
        name, _, level = text.partition("=")
        if name == OTHER_RECALL and re.fullmatch(r"[0-9]*\.?[0-9]+", level) and 0 < float(level) < 1:
            return cls(float(level))
        raise UsageError(
            f"operating point {text!r}: write {BALANCED}, or {OTHER_RECALL}=Q with Q between 0 and 1, for example "
            f"{OTHER_RECALL}=0.99 for at most 1 % false positives"
        )

    def __str__(self) -> str:
        return BALANCED if self.other_recall is None else f"{OTHER_RECALL}={self.other_recall:g}"

    @property
    def false_positive_rate(self) -> float | None:
        """The share of the other class that may be called sensitive, None for balanced recalls."""
        return None if self.other_recall is None else 1 - self.other_recall


BALANCED_POINT = OperatingPoint()


def parse_points(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the operating points in their canonical form without repeats; raise UsageError for a wrong or no point."""
    points = tuple(dict.fromkeys(str(OperatingPoint.parse(text)) for text in texts))
    if not points:
        raise UsageError(f"no operating point given: write for example {' '.join(DEFAULT_POINTS)}")
    return points


def resolves(point: str, others: int) -> bool:
    """Say whether a split with so many inputs of the other class allows at least one false positive at the point.

    Where it does not, the threshold lies above all of them: the recall holds on this split, but one input fewer or
    more would say nothing about a false positive rate this small.
    """
    if point == GIVEN:
        return True
    rate = OperatingPoint.parse(point).false_positive_rate
    return rate is None or others * rate >= 1 - SLACK


def shown_point(point: str) -> str:
    """Return what people call an operating point."""
    if point in (BALANCED, GIVEN):
        return {BALANCED: "balanced recalls", GIVEN: "threshold as given"}[point]
    return f"other class's recall >= {OperatingPoint.parse(point).other_recall:g}"
