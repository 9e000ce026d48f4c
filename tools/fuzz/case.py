"""A case: a score, inputs, the radii that were certified for them, and what is known of the truth beforehand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from torch import Tensor

from tools.fuzz.recipes import Recipe

ORDER = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}
Score = Callable[[Tensor], Tensor]


class Key(NamedTuple):
    """What a row of the table is about."""

    method: str
    certificate: str
    norm: str
    domain: str


@dataclass
class Case:
    """score: (M, *shape) float64 -> (M,), the function that predicts; x (N, *shape); radii: key -> (N,).

    hints: (norm, domain) -> points (N, *shape) that may be adversarial, NaN where there is none. exact: (norm, domain)
    -> distances and points of an exact oracle, None where it has no answer. rational: one input's values -> the score
    in exact arithmetic. cheap: whether the score is quick enough for dense scans. refused: keys that were refused,
    with the reason. faults: keys that were withdrawn as unsound.
    """

    recipe: Recipe
    score: Score
    x: Tensor
    radii: dict[Key, Tensor]
    hints: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)
    exact: Callable[[str, str], tuple[Tensor, Tensor] | None] | None = None
    rational: Callable[[list[Fraction]], Fraction] | None = None
    cheap: bool = True
    refused: dict[Key, str] = field(default_factory=dict)
    faults: dict[Key, str] = field(default_factory=dict)
