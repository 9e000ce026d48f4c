"""What a search does next with the training time that is left: short candidates first, then the best ones for longer.

A pure function of what was tried, so that a cut search goes on as if nothing had happened. Sizes are shares of the
budget.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.tune.values import Values

# A short candidate's time; where that is less than FEWEST_EPOCHS, up to SHORT_AT_MOST.
SHORT = 1 / 15
SHORT_AT_MOST = 0.2
FEWEST_EPOCHS = 8
# Until when short candidates are tried, and the time of the two that are trained for longer after that; what is left
# then is the winner's.
EXPLORED = 0.5
LONGER = 0.12
# Less than this is not worth another candidate: all searches end within it of their budget.
REMAINDER = 0.04
# Of the rest, so that a training whose epochs take a little longer than expected still ends by itself.
ALMOST_ALL = 0.97
MOST_CANDIDATES = 1000
MOST_FAILURES = 10
# A training is longer than another if it has so many times its epochs.
WORTHWHILE = 1.25

Kind = Literal["default", "start", "search", "longer", "longest"]
State = Literal["running", "finished", "cut", "pruned", "failed"]


@dataclass(frozen=True)
class Candidate:
    """One setting that was tried.

    params: in the units of the search; settings: as a suite writes them, epochs included; seconds: of training, what
    finding out the cost of an epoch took included; measure: what is maximised, None where it was not judged to the end;
    cost: seconds per epoch, None where it trains in no epochs; meets: whether its recalls reach the floor;
    promise: the measure with its recalls forgiven in part, as they grow with the length of a training.
    """

    number: int
    kind: Kind
    state: State
    params: Values
    settings: dict[str, Any]
    seconds: float = 0.0
    measure: float | None = None
    epochs: int | None = None
    cost: float | None = None
    meets: bool = False
    promise: float = 0.0
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether it was judged to the end of its training, or of its time."""
        return self.measure is not None and self.state in ("finished", "cut")


@dataclass(frozen=True)
class Move:
    """The next candidate: its kind, its parameters (None: the sampler's) and the training time it is meant for.

    cost: seconds per epoch, where a shorter training with these parameters has shown it.
    """

    kind: Kind
    params: Values | None
    seconds: float
    cost: float | None = None


@dataclass(frozen=True)
class Game:
    """What the moves depend on besides the candidates: the budget in seconds, the first guesses, the most epochs.

    searchable: whether there is anything to vary; trains: whether the method trains in epochs that a search can set.
    """

    budget: float
    starts: Sequence[Values]
    max_epochs: int
    searchable: bool
    trains: bool

    def next(self, tried: Sequence[Candidate]) -> Move | None:
        """Return what to try next, None when the budget is spent or nothing is left to try."""
        left = self.budget - sum(candidate.seconds for candidate in tried)
        failures = sum(candidate.state == "failed" for candidate in tried)
        if left < REMAINDER * self.budget or len(tried) >= MOST_CANDIDATES or failures >= MOST_FAILURES:
            return None
        short = min(left, self._short(tried))
        if not tried:
            return Move("default", {}, short)
        starts = sum(candidate.kind == "start" for candidate in tried)
        if starts < len(self.starts) and left > (1 - EXPLORED) * self.budget:
            return Move("start", self.starts[starts], short)
        exploring = left > (1 - EXPLORED) * self.budget
        longer = None if exploring and self.searchable else self._longer(tried, left)
        if longer or not self.searchable:
            return longer
        return Move("search", None, short)

    def epochs(self, seconds: float, cost: float) -> int:
        """Return how many epochs of so many seconds each fit."""
        return max(1, min(self.max_epochs, int(seconds / cost))) if cost > 0 else self.max_epochs

    def _short(self, tried: Sequence[Candidate]) -> float:
        costs = [candidate.cost for candidate in tried if candidate.cost]
        wanted = FEWEST_EPOCHS * sorted(costs)[len(costs) // 2] if costs else 0.0
        return min(max(SHORT * self.budget, wanted), SHORT_AT_MOST * self.budget)

    def _longer(self, tried: Sequence[Candidate], left: float) -> Move | None:
        """Train for longer the best, then the most promising, then for all that is left whichever now promises most.

        None if none can grow.
        """
        longer = [candidate for candidate in tried if candidate.kind == "longer"]
        if not self.trains or any(candidate.kind == "longest" for candidate in tried):
            return None
        final = len(longer) >= 2 or left < 3 * LONGER * self.budget or not self.searchable
        kind: Kind = "longest" if final else "longer"
        seconds = ALMOST_ALL * left if final else LONGER * self.budget
        done = [candidate.params for candidate in longer]
        worth = operator.attrgetter("promise" if longer or final else "measure")
        ranked = sorted((c for c in tried if c.ended), key=worth, reverse=True)
        for candidate in ranked:
            if not final and candidate.params in done:
                continue
            cost = candidate.cost or 0.0
            if cost and self.epochs(seconds, cost) >= WORTHWHILE * (candidate.epochs or 1):
                return Move(kind, candidate.params, seconds, cost)
        return None


def chosen(tried: Sequence[Candidate]) -> Candidate | None:
    """Return the best measure among those whose recalls reach the floor, else among all; of equal ones the first.

    None if none was judged to its end.
    """
    ended = [candidate for candidate in tried if candidate.ended]
    return max(ended, key=lambda c: (c.meets, c.measure, -c.number), default=None)
