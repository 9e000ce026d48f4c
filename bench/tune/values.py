"""From a search space to the values of a candidate, and back for the guesses that a search starts from."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna

from bench.basics.space import SIDE, Choice, Range, SearchSpace

Values = dict[str, Any]
# How many times what the distance between the classes' means promises is offered at most.
BEYOND = 2.0


@dataclass(frozen=True)
class Scales:
    """What multiples are of: the default recipe's median radius per norm, and an image's shorter side (0: a table).

    reach: norm -> what the distance between the classes' means promises. Where a space ends below it the default recipe
    says little of the data, and the space goes on to BEYOND times it.
    """

    radii: Mapping[str, float] = field(default_factory=dict)
    side: int = 0
    reach: Mapping[str, float] = field(default_factory=dict)

    def of(self, values: Range) -> float:
        """Return what one unit of a range is."""
        if values.of == SIDE:
            return float(self.side)
        return self.radii[values.of] if values.of else 1.0

    def highest(self, values: Range) -> float:
        """Return the end of a range, in its units."""
        return BEYOND * self.far(values) if self.far(values) > values.high else values.high

    def far(self, values: Range) -> float:
        """Return what the classes' means promise in units of a range of radii; 0 for other ranges."""
        return self.reach.get(values.of, 0.0) / self.of(values)

    @classmethod
    def side_of(cls, input_shape: Sequence[int]) -> int:
        """Return the shorter side of images (C, H, W), 0 for tables (d,)."""
        return min(input_shape[1:]) if len(input_shape) == 3 else 0


def offered(space: SearchSpace, scales: Scales) -> dict[str, Range | Choice]:
    """Return the part of a space that makes sense for the data: without what is for images only, on tables."""
    return {key: values for key, values in space.settings.items() if scales.side or not values.images}


def suggested(trial: optuna.Trial, space: SearchSpace, scales: Scales) -> dict[str, Any]:
    """Return the settings of a candidate as a nested table, its values suggested by the search in the space's units."""
    table: dict[str, Any] = {}
    for key, values in offered(space, scales).items():
        if isinstance(values, Choice):
            chosen = json.loads(trial.suggest_categorical(key, [json.dumps(each) for each in values.options]))
        else:
            chosen = trial.suggest_float(key, values.low, scales.highest(values), log=values.log)
            chosen *= scales.of(values)
            chosen = round(chosen) if values.whole else float(f"{chosen:.4g}")
        place(table, key, chosen)
    return table


def guess(space: SearchSpace, start: Mapping[str, Any], default: Any, scales: Scales) -> Values:
    """Return a start as parameters for Optuna, what it leaves out taken from the default settings or the middle."""
    params: Values = {}
    for key, values in offered(space, scales).items():
        if isinstance(values, Choice):
            own = looked_up(default, key)
            own = list(own) if isinstance(own, tuple) else own
            fallback = own if own in values.options else values.options[0]
            params[key] = json.dumps(start.get(key, fallback))
        else:
            params[key] = start.get(key, _own_or_middle(values, looked_up(default, key), scales.of(values)))
    return params


def far_start(space: SearchSpace, default: Any, scales: Scales) -> Values | None:
    """Return the first guess with its lengths as the classes' means promise; None where the space reaches that far."""
    lengths = {
        key: scales.far(values)
        for key, values in offered(space, scales).items()
        if isinstance(values, Range) and scales.far(values) > values.high
    }
    first = space.starts[0] if space.starts else {}
    return guess(space, {**first, **lengths}, default, scales) if lengths else None


def _own_or_middle(values: Range, own: Any, unit: float) -> float:
    if values.guess is not None:
        return values.guess
    if isinstance(own, int | float) and unit and values.low <= own / unit <= values.high:
        return own / unit
    return math.sqrt(values.low * values.high) if values.log else (values.low + values.high) / 2


def place(table: dict[str, Any], key: str, value: Any) -> None:
    """Put a value under a dotted key into nested tables."""
    *outer, last = key.split(".")
    for name in outer:
        table = table.setdefault(name, {})
    table[last] = value


def looked_up(settings: Any, key: str) -> Any:
    """Return what is under a dotted key in nested dataclasses and tables, None where there is nothing."""
    for name in key.split("."):
        settings = settings.get(name) if isinstance(settings, Mapping) else getattr(settings, name, None)
    return settings
