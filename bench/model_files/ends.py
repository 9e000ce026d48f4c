"""The user's own rule on what a network returns, carried back through the end of the network.

Of one output the rule is: sensitive iff it exceeds the threshold. Of several: iff the sensitive class's is the
greatest, by more than the threshold if there is one; of probabilities and their logarithms a threshold is on the
class's own. A monotone end (sigmoid, softmax of two, 1 - p, ...) is undone: bounds do not pass well through it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from bench.basics.errors import UsageError
from bench.model_files.layers import MOVES, Affine, Choose, Clip, Compare, Concat, entries
from bench.model_files.monotone import log_odds, monotone
from bench.model_files.program import Program, Step

PAIR = "(1 - p, p)"


@dataclass(frozen=True)
class Rule:
    """When outputs (N, M) mean sensitive: output ``logit`` exceeds the threshold or, if ``greatest``, the others by it.

    Of one output, logit 0 means: less than the threshold.
    """

    logit: int
    threshold: float
    greatest: bool

    @property
    def text(self) -> str:
        """The rule in a few words."""
        if self.greatest:
            return "the greatest" + (f", by more than {self.threshold:g}" if self.threshold else "")
        return f"{'>' if self.logit or self.greatest else '<'} {self.threshold:g}"

    def margin(self, outputs: np.ndarray) -> np.ndarray:
        """A number (N,) for outputs (N, M), positive iff sensitive."""
        if outputs.shape[1] == 1:
            return (outputs[:, 0] - self.threshold) * (1 if self.logit else -1)
        own = outputs[:, self.logit]
        if not self.greatest:
            return own - self.threshold
        return own - np.delete(outputs, self.logit, axis=1).max(axis=1) - self.threshold


@dataclass(frozen=True)
class Undone:
    """The rule as linear margins of an earlier value: sensitive iff all rows (m, K) @ value + offset (m,) are positive.

    removed: the functions that were undone. rule: on the network's own ``outputs``, with the default filled in.
    """

    program: Program
    rows: Tensor
    offset: Tensor
    removed: tuple[str, ...]
    rule: Rule
    outputs: int


@dataclass(frozen=True)
class _Place:
    """A condition on an earlier value: its entry ``k`` is above (or below) t, or above (below) all others by t."""

    value: str
    k: int
    above: bool
    t: float
    removed: tuple[str, ...] = ()

    def at(self, value: str, k: int | None = None) -> "_Place":
        return replace(self, value=value, k=self.k if k is None else k)


def undo(
    program: Program, input_shape: tuple[int, ...], logit: int | None, place: int, threshold: float | None
) -> Undone:
    """Return the user's rule as margins.

    logit: the sensitive class's (default: ``place`` of two, 1 of one); threshold: default 0, and 1/2 of a probability.
    Raises UsageError for a logit that is not there, or a threshold that the output always or never exceeds.
    """
    ends = _Ends(program, input_shape)
    count = ends.count(program.result)
    chosen = chosen_logit(logit, place, count)
    if count == 1:
        return ends.of_one(chosen, threshold)
    if threshold is not None and ends.probabilities(program.result, chosen):
        return ends.of_entry(chosen, threshold)
    return ends.of_greatest(chosen, threshold or 0.0)


def chosen_logit(logit: int | None, place: int, count: int) -> int:
    """The sensitive class's among ``count`` logits (of one output: 1, positive means sensitive, or 0)."""
    if count == 0:
        raise UsageError("it gives no number per input")
    if logit is None:
        if count > 2:
            raise UsageError(
                f"it gives {count} logits: say which is the sensitive class's with --sensitive-logit K, from 0 to "
                f"{count - 1}"
            )
        return place if count == 2 else 1
    most = max(1, count - 1)
    if not 0 <= logit <= most:
        what = "one score, of which 1 means positive is sensitive" if count == 1 else f"{count} logits"
        raise UsageError(f"--sensitive-logit {logit}: it gives {what}: give a number from 0 to {most}")
    return logit


class _Ends:
    """Walks from a program's result towards its input, as far as the functions on the way can be undone."""

    def __init__(self, program: Program, input_shape: tuple[int, ...]) -> None:
        self.program, self.steps = program, program.steps()
        values = {program.source: torch.zeros(1, *input_shape, dtype=torch.float64)}
        with torch.no_grad():
            for step in self.steps.values():
                values[step.output] = step.layer(*(values[name] for name in step.inputs))
        self.shapes = {name: tuple(value.shape[1:]) for name, value in values.items()}

    def count(self, value: str) -> int:
        return int(torch.Size(self.shapes[value]).numel())

    def of_one(self, logit: int, threshold: float | None) -> Undone:
        result = self.program.result
        low, high = self._range(result, 0)
        t = threshold if threshold is not None else 0.5 if (low, high) == (0.0, 1.0) else 0.0
        if not (low < t < high or (t == low and self._attains(result, logit))):
            how = "give" if threshold is not None else "say when an input is sensitive:"
            raise UsageError(
                f"threshold {t:g}: its output lies between {low:g} and {high:g}, so that this tells no two inputs "
                f"apart: {how} --threshold between them"
            )
        rule = Rule(logit, t, greatest=False)
        return self._rows(self._entry(_Place(result, 0, logit == 1, t)), rule)

    def of_entry(self, logit: int, threshold: float) -> Undone:
        low, high = self._range(self.program.result, logit)
        if not low < threshold < high:
            raise UsageError(
                f"--threshold {threshold:g}: its outputs lie between {low:g} and {high:g}: give a number between "
                "them, or leave it out (the greatest wins)"
            )
        count = self.count(self.program.result)
        if count > 2:
            raise UsageError(
                f"--threshold {threshold:g} on one of {count} probabilities is not supported: leave it out (the "
                "greatest wins)"
            )
        rule = Rule(logit, threshold, greatest=False)
        return self._rows(self._entry(_Place(self.program.result, logit, True, threshold)), rule)

    def of_greatest(self, logit: int, threshold: float) -> Undone:
        rule = Rule(logit, threshold, greatest=True)
        at = _Place(self.program.result, logit, True, threshold)
        while (step := self.steps.get(at.value)) is not None:
            single = self._pair(step, at)
            if single is not None:
                return self._rows(self._entry(single), rule)
            before = self._greatest_before(step, at)
            if before is None:
                break
            at = before
        count, sign = self.count(at.value), 1.0 if at.above else -1.0
        rows = -torch.eye(count, dtype=torch.float64)
        rows[:, at.k] += 1.0
        rows = sign * rows[torch.arange(count) != at.k]
        offset = torch.full((count - 1,), -at.t, dtype=torch.float64)
        return Undone(
            self.program.until(at.value), rows, offset, at.removed, rule, self.count(self.program.result)
        )

    def probabilities(self, value: str, k: int) -> bool:
        """Whether an entry of a result is a probability of several, or its logarithm."""
        while (step := self.steps.get(value)) is not None:
            if isinstance(step.layer, nn.Softmax | nn.LogSoftmax):
                return True
            if self._pair(step, _Place(value, k, True, 0.0)) is not None:
                return True
            moved = self._moved(step, k)
            if moved is None and not isinstance(step.layer, Affine) and monotone(step.layer) is None:
                return False
            value, k = moved or (step.inputs[0], k)
        return False

    def _rows(self, found: "_Place | tuple[_Place, int]", rule: Rule) -> Undone:
        at, other = found if isinstance(found, tuple) else (found, None)
        row = torch.zeros(1, self.count(at.value), dtype=torch.float64)
        sign = 1.0 if at.above else -1.0
        row[0, at.k] = sign
        if other is not None:
            row[0, other] = -sign
        offset = torch.tensor([-sign * at.t], dtype=torch.float64)
        return Undone(
            self.program.until(at.value), row, offset, at.removed, rule, self.count(self.program.result)
        )

    def _entry(self, at: _Place) -> "_Place | tuple[_Place, int]":
        """The earliest condition on one entry that says the same; with another entry if it is their difference."""
        while (step := self.steps.get(at.value)) is not None:
            layer = step.layer
            if isinstance(layer, nn.Softmax | nn.LogSoftmax):
                if self.shapes[at.value][-1] != 2:
                    break
                t = log_odds(at.t, isinstance(layer, nn.LogSoftmax))
                before = replace(at, value=step.inputs[0], t=t, removed=(*at.removed, step.label))
                return before, at.k ^ 1
            earlier = self._entry_before(step, at)
            if earlier is None:
                break
            at = earlier
        return at

    def _entry_before(self, step: Step, at: _Place) -> _Place | None:
        layer = step.layer
        moved = self._moved(step, at.k)
        if moved is not None:
            return at.at(*moved)
        line = self._line(step, at.k)
        if line is not None:
            scale, shift = line
            above = at.above if scale > 0 else not at.above
            return replace(at.at(step.inputs[0]), above=above, t=(at.t - shift) / scale)
        if isinstance(layer, Compare):
            return self._compared_before(step, at)
        known = monotone(layer)
        if known is None:
            return None
        return replace(at.at(step.inputs[0]), t=known.inverse(at.t), removed=(*at.removed, step.label))

    def _line(self, step: Step, k: int) -> tuple[float, float] | None:
        """Scale and shift of an entry that is an affine function of the same one before; conditions count as 1 or 0."""
        layer, shape = step.layer, self.shapes[step.output]
        if self.shapes[step.inputs[0]] != shape:
            return None
        if isinstance(layer, Choose) and layer.first is not None and layer.second is not None:
            first, second = (_at(part, shape, k) for part in (layer.first, layer.second))
            scale, shift = first - second, second
        elif isinstance(layer, Affine):
            scale = 1.0 if layer.scale is None else _at(layer.scale, shape, k)
            shift = 0.0 if layer.shift is None else _at(layer.shift, shape, k)
        else:
            return None
        return None if scale == 0 else (scale, shift)

    def _compared_before(self, step: Step, at: _Place) -> _Place | None:
        """The condition that a comparison makes: 1 where it holds, else 0. A tie counts as not sensitive."""
        layer, shape = step.layer, self.shapes[step.output]
        assert isinstance(layer, Compare)
        decides = 0 <= at.t < 1 if at.above else 0 < at.t <= 1
        if not decides or self.shapes[step.inputs[0]] != shape:
            return None
        above = at.above == (layer.kind in ("gt", "ge"))
        removed = (*at.removed, step.label)
        return replace(
            at.at(step.inputs[0]), above=above, t=_at(layer.constant, shape, at.k), removed=removed
        )

    def _greatest_before(self, step: Step, at: _Place) -> _Place | None:
        layer = step.layer
        before = step.inputs[0]
        if isinstance(layer, MOVES):
            moved = self._moved(step, at.k)
            return at.at(*moved) if moved is not None and self._moves_all(step) else None
        if isinstance(layer, Affine):
            constants = [value for value in (layer.scale, layer.shift) if value is not None]
            same = all(value.numel() == 1 for value in constants)
            scale = 1.0 if layer.scale is None else float(layer.scale.flatten()[0])
            if not same or scale == 0 or self.count(before) != self.count(at.value):
                return None
            return replace(at.at(before), above=at.above if scale > 0 else not at.above, t=at.t / abs(scale))
        removed = (*at.removed, step.label)
        if isinstance(layer, nn.Softmax | nn.LogSoftmax):
            whole = self.shapes[at.value][-1] == self.count(at.value)
            keeps = isinstance(layer, nn.LogSoftmax) or at.t == 0
            return replace(at.at(before), removed=removed) if whole and keeps else None
        known = monotone(layer)
        if known is None or not known.strict or at.t != 0:
            return None
        return replace(at.at(before), removed=removed)

    def _moved(self, step: Step, k: int) -> tuple[str, int] | None:
        """Where an entry comes from, if the step only moves entries about (None: it is a constant)."""
        if not isinstance(step.layer, MOVES):
            return None
        start, numbered = 0, []
        for name in step.inputs:
            numbered.append(entries(self.shapes[name]) + start)
            start += self.count(name)
        found = [step.layer(*(part + lift for part in numbered)).flatten()[k] for lift in (0, start)]
        if found[1] - found[0] != start:
            return None
        source = int(found[0])
        for name in step.inputs:
            if source < self.count(name):
                return name, source
            source -= self.count(name)
        return None

    def _moves_all(self, step: Step) -> bool:
        """Whether a step gives every entry of its one input once."""
        count = self.count(step.output)
        found = {self._moved(step, k) for k in range(count)}
        return len(step.inputs) == 1 and self.count(step.inputs[0]) == count == len(found - {None})

    def _pair(self, step: Step, at: _Place) -> _Place | None:
        """The condition p > 1/2 on the sensitive class's p, where the step joins p and 1 - p."""
        if not isinstance(step.layer, Concat) or self.count(at.value) != 2 or at.t != 0:
            return None
        sources = [self._origin(at.value, k) for k in (0, 1)]
        for place in (0, 1):
            (value, k), partner = sources[place], sources[1 - place]
            other = self.steps.get(value)
            if other is None or self._line(other, k) != (-1.0, 1.0):
                continue
            if self._origin(other.inputs[0], k) == partner:
                value, k = sources[at.k]
                return replace(at, value=value, k=k, t=0.5, removed=(*at.removed, PAIR))
        return None

    def _origin(self, value: str, k: int) -> tuple[str, int]:
        """Where an entry comes from, through all steps that only move entries about."""
        while (step := self.steps.get(value)) is not None and (moved := self._moved(step, k)) is not None:
            value, k = moved
        return value, k

    def _range(self, value: str, k: int) -> tuple[float, float]:
        """Between which numbers an entry lies, as far as the functions at the end say."""
        step = self.steps.get(value)
        if step is None:
            return -math.inf, math.inf
        layer = step.layer
        if isinstance(layer, nn.Softmax):
            return 0.0, 1.0
        if isinstance(layer, nn.LogSoftmax):
            return -math.inf, 0.0
        moved = self._moved(step, k)
        if moved is not None:
            return self._range(*moved)
        if isinstance(layer, Compare):
            return 0.0, 1.0
        if isinstance(layer, Affine | Choose):
            line = self._line(step, k)
            if line is None:
                return -math.inf, math.inf
            ends = sorted(line[0] * end + line[1] for end in self._range(step.inputs[0], k))
            return ends[0], ends[1]
        known = monotone(layer)
        if known is None:
            return -math.inf, math.inf
        low, high = self._range(step.inputs[0], k)
        return max(known.low, known.of(low)), min(known.high, known.of(high))

    def _attains(self, value: str, logit: int) -> bool:
        """Whether the output can equal its lower end, so that exceeding it says something."""
        step = self.steps.get(self._origin(value, 0)[0])
        return logit == 1 and step is not None and isinstance(step.layer, nn.ReLU | Clip | Choose)


def _at(constant: Tensor, shape: tuple[int, ...], k: int) -> float:
    """Entry k of a constant that is broadcast to a shape."""
    return float(constant.broadcast_to(shape).flatten()[k])
