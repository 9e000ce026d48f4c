"""What a method is for networks that others trained (``bench.certify``): a second class of its file.

::

    class GivenNearest(Given, Nearest):
        certificates = ("distance",)

        @classmethod
        def obstacle(cls, network: GivenNetwork) -> str:
            return "" if ... else "the network is not linear"

Its first base is :class:`Given`. It is found as methods are: in ``bench/methods/``, or by an entry point of its own in
the group ``certbench.methods``.
"""

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from baselines.bounds import BoundedScore, UnsupportedLayer
from baselines.layered import LayeredNetwork
from bench.basics.errors import UsageError
from bench.contract import Curve, FitContext, Method, Outcome, Radii, TrainingData
from bench.methods._stage import LATE, Stage
from bench.model_files.scores import Score

WhenChosen = Literal["first", "then", "by name"]


@dataclass
class GivenNetwork:
    """A trained network as it was read from a file.

    score: (N, *input_shape) -> (N,), sensitive iff positive. unread: why its layers were not read, if only onnxruntime
    runs it.
    """

    score: nn.Module
    input_shape: tuple[int, ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    unread: str = ""

    @property
    def margins(self) -> nn.Module:
        """What bounds work on: all outputs of it are positive where the input is sensitive."""
        return self.score.margins if isinstance(self.score, Score) else self.score

    @property
    def layered(self) -> LayeredNetwork | None:
        """The margins as affine layers and activations in float64; None where they cannot be written so."""
        return self._read[0]

    @property
    def unreadable(self) -> str:
        """Why there is no ``layered``; "" where there is."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[LayeredNetwork | None, str]:
        if self.unread:
            return None, self.unread
        try:
            margins = copy.deepcopy(self.margins).to(self.device)
            return BoundedScore(margins, self.input_shape, self.device).layered, ""
        except UnsupportedLayer as error:
            return None, str(error)


@dataclass(frozen=True)
class Effort:
    """What the user grants: standard deviation of noise per coordinate, draws per input, seconds per input and norm."""

    sigma: float | None = None
    draws: int = 10_000
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if self.sigma is not None and not 0 < self.sigma < float("inf"):
            raise UsageError(f"--sigma {self.sigma}: give a number > 0, for example 0.25")
        if self.draws < 100:
            raise UsageError(f"--draws {self.draws}: give at least 100, a few thousand for useful radii")


class Given(Method):
    """The first base of a method whose network is given, trained already, and whose certificates a stage may watch.

    Class attributes: ``certificates``, the names of those that it can issue; ``chosen``, when none are named: ``first``
    wherever it applies, ``then`` where no first one does, ``by name`` never; ``turn``, when it is, small numbers first;
    ``needs_sigma``, whether it is another classifier, in noise. ``chunk``: how many inputs at once under a stage; 0:
    those it is given, and no time limit, as votes need, whose noise is drawn for a batch. ``asked_late``: whether it
    answers at once when the time is over.
    """

    certificates: ClassVar[tuple[str, ...]]
    chosen: ClassVar[WhenChosen] = "then"
    turn: ClassVar[int] = 2
    needs_sigma: ClassVar[bool] = False
    chunk: ClassVar[int] = 32
    asked_late: ClassVar[bool] = False

    given: GivenNetwork
    stage: Stage | None = None

    @classmethod
    def obstacle(cls, network: GivenNetwork) -> str:
        """Say why no certificate can be issued for the network, in half a sentence; "" if nothing stands against it."""
        return ""

    @classmethod
    def settings_for(cls, certificates: Sequence[str], effort: Effort) -> Any:
        """Return settings that issue these of the ``certificates``, free and in the box where both exist."""
        return cls.Settings()

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        return copy.deepcopy(self.given.score)

    def fit(self, data: TrainingData, context: FitContext) -> None:
        pass

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        stage = self.stage
        if stage is None:
            return self._issued(x, curve, norms, seed)
        stage.begin(curve)
        parts = []
        for part in x.split(self.chunk or len(x)):
            late = bool(self.chunk) and stage.seconds_left() <= 0
            if late and not self.asked_late:
                found = {norm: Radii.without(len(part), Outcome.TIMEOUT, LATE) for norm in norms}
            else:
                found = self._in_time(part, stage, curve, norms, seed)
            stage.add(len(part), found)
            parts.append(found)
        return {norm: Radii.joined([part[norm] for part in parts]) for norm in norms}

    def _in_time(
        self, x: Tensor, stage: Stage, curve: Curve, norms: Sequence[str], seed: int
    ) -> dict[str, Radii]:
        return self._issued(x, curve, norms, seed)

    def _issued(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        # Of the method that comes next in the bases.
        return super().certify(x, curve, norms, seed)  # type: ignore[safe-super]  # it is no abstract one


def budgets(methods: Sequence[Given], minutes: float) -> Iterator[float]:
    """The seconds of each stage: an equal part of what is left when it begins, no limit where it is not cut."""
    end, left = time.monotonic() + 60 * minutes, sum(bool(method.chunk) for method in methods)
    for method in methods:
        if not method.chunk:
            yield float("inf")
            continue
        yield max(0.0, end - time.monotonic()) / left
        left -= 1
