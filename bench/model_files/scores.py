"""One score from a network that was read, or from one that onnxruntime runs: positive means sensitive."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from bench.basics.errors import UsageError
from bench.model_files.ends import Rule, Undone, chosen_logit
from bench.model_files.runtime import RuntimeOutputs, Session

SCALES = ((0.0, 1.0), (-1.0, 2.0), (-10.0, 10.0))
FAR = (-1e5, 1e5)
POINTS = 64
TIE = 1e-4


class Margins(nn.Module):
    """(N, *shape of the data) -> (N, m) in the network's dtype: an input is sensitive iff all m are positive.

    order: of the axes that the network wants the data's in, the batch first (None: as they are).
    """

    def __init__(
        self,
        undone: Undone,
        data_shape: tuple[int, ...],
        shape: tuple[int, ...],
        order: tuple[int, ...] | None,
    ) -> None:
        super().__init__()
        self.program = undone.program
        self.data_shape, self.shape, self.order = data_shape, shape, order
        self.last = nn.Linear(undone.rows.shape[1], len(undone.rows), dtype=torch.float64)
        with torch.no_grad():
            self.last.weight.copy_(undone.rows)
            self.last.bias.copy_(undone.offset)

    def forward(self, x: Tensor) -> Tensor:
        if self.order is not None:
            x = x.reshape(-1, *self.data_shape).permute(self.order)
        return self.last(self.before(x.reshape(-1, *self.shape)))

    def before(self, x: Tensor) -> Tensor:
        """What the margins are linear functions of, (N, K), at x (N, *shape of the network); conditions as 1 and 0."""
        return self.program(x).reshape(-1, self.last.in_features).to(self.last.weight.dtype)


class Score(nn.Module):
    """score(x) = the least of the margins, (N,); sensitive iff positive."""

    def __init__(self, margins: Margins) -> None:
        super().__init__()
        self.margins = margins
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        margins = self.margins(x)
        return margins.squeeze(1) if margins.shape[1] == 1 else margins.amin(dim=1)


class RuntimeScore(nn.Module):
    """The rule on the outputs of a file that only onnxruntime runs: score (N,), sensitive iff positive."""

    def __init__(
        self,
        session: Session,
        rule: Rule,
        data_shape: tuple[int, ...],
        order: tuple[int, ...] | None,
    ) -> None:
        super().__init__()
        self.outputs, self.rule = RuntimeOutputs(session), rule
        self.data_shape, self.order = data_shape, order

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        if self.order is not None:
            x = x.reshape(-1, *self.data_shape).permute(self.order)
        outputs = self.outputs(x.reshape(-1, *self.outputs.session.shape)).to(dtype)
        rule = self.rule
        if outputs.shape[1] == 1:
            return (outputs[:, 0] - rule.threshold) * (1 if rule.logit else -1)
        own = outputs[:, rule.logit]
        if not rule.greatest:
            return own - rule.threshold
        others = [k for k in range(outputs.shape[1]) if k != rule.logit]
        return own - outputs[:, others].amax(dim=1) - rule.threshold


def rule_of_outputs(session: Session, logit: int | None, place: int, threshold: float | None) -> Rule:
    """The user's rule on outputs of which only values are known; what they look like decides what a threshold means."""
    outputs = np.concatenate([session.run(x) for x in sample(session)])
    logit = chosen_logit(logit, place, outputs.shape[1])
    if outputs.shape[1] > 1:
        sums = np.abs(outputs.sum(axis=1) - 1).max()
        probabilities = outputs.min() >= 0 and sums < 1e-3
        return Rule(logit, threshold or 0.0, greatest=threshold is None or not probabilities)
    if threshold is None:
        refuse_default(session)
    return Rule(logit, threshold or 0.0, greatest=False)


def refuse_default(session: Session) -> None:
    """Raise UsageError where one output looks like a probability, which 0 does not divide, however far the inputs."""
    outputs = np.concatenate([session.run(x) for x in sample(session, (*SCALES, FAR))])
    if outputs.min() >= 0 and outputs.max() <= 1:
        raise UsageError(
            "its output is never negative, like a probability: say with --threshold above which value an input is "
            "sensitive (0.5 for a probability)"
        )


def check_rule(session: Session, score: Score, rule: Rule, given: bool) -> None:
    """Hold the score against the rule on the file's own outputs at random points of several scales.

    Raises UsageError where they tell an input apart that is no tie in single precision.
    """
    points = sample(session)
    if not given and rule.threshold == 0 and not rule.greatest:
        refuse_default(session)
    margins = score.margins
    for x in points:
        outputs = session.run(x)
        own = rule.margin(outputs)
        with torch.no_grad():
            inside = margins.before(torch.from_numpy(x).double())
            found = margins.last(inside).amin(dim=1).numpy()
        size = 1e-3 + np.abs(inside.numpy()).max(axis=1)
        clear = (np.abs(own) > TIE * (1e-2 + np.abs(outputs).max(axis=1))) & (np.abs(found) > TIE * size)
        if ((own > 0) != (found > 0))[clear].any():
            raise UsageError("it was not understood: by its own outputs other inputs are sensitive")


def sample(session: Session, scales: Sequence[tuple[float, float]] = SCALES) -> list[np.ndarray]:
    """Random inputs (POINTS, *shape) of each scale, in the file's precision."""
    rng = np.random.default_rng(1)
    return [rng.uniform(low, high, (POINTS, *session.shape)).astype(session.dtype) for low, high in scales]
