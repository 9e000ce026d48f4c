"""A case: a score, inputs, the radii that were certified for them, and what is known of the truth beforehand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from torch import Tensor

from tools.fuzz.rational import Affine
from tools.fuzz.recipes import Recipe

ORDER = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}
Score = Callable[[Tensor], Tensor]
Oracle = Callable[[str, str, Tensor, Tensor], tuple[Tensor, Tensor | None]]


class Key(NamedTuple):
    """What a row of the table is about."""

    method: str
    certificate: str
    norm: str
    domain: str


@dataclass
class Case:
    """score: (M, *shape) float64 -> (M,), the function that predicts; x (N, *shape); radii: key -> (N,).

    hints: (norm, domain) -> points (N, *shape) that may be adversarial, NaN where there is none. exact: (norm, domain,
    rows (M,), distances of adversarial points known (M,)) -> distances of the first of these inputs by an exact oracle,
    NaN where it has no answer, and its points. rational: one input's values -> the score in exact arithmetic. tangent:
    a point and the input -> a function below the score. cheap: whether the score is quick enough for dense scans.
    refused: keys that were refused, with the reason. faults: keys that were withdrawn as unsound.
    """

    recipe: Recipe
    score: Score
    x: Tensor
    radii: dict[Key, Tensor]
    hints: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)
    exact: Oracle | None = None
    rational: Callable[[list[Fraction]], Fraction] | None = None
    tangent: Callable[[list[Fraction], list[Fraction]], Affine] | None = None
    cheap: bool = True
    refused: dict[Key, str] = field(default_factory=dict)
    faults: dict[Key, str] = field(default_factory=dict)
