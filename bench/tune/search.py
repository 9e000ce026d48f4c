"""One search: a method on a data set in a norm, within its budget of training time."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from bench.basics.files import plain
from bench.basics.seeds import derive_seed
from bench.basics.settings import from_table, merged
from bench.calibration import OperatingPoint
from bench.contract import NORMS, FitContext, Method
from bench.data import Dataset
from bench.running.code_version import code_version
from bench.running.evaluate import describe
from bench.running.validation import judged_twin
from bench.suites.suite import MethodEntry
from bench.tune.budget import MILESTONES, StepTimer, Stopwatch, TimeLimit, seconds_of
from bench.tune.judging import Judge, Verdict, as_table, judged_inputs, training_data
from bench.tune.moves import SHORT_AT_MOST, Candidate, Game, Move, State
from bench.tune.record import Record, known
from bench.tune.values import Scales, far_start, guess, offered, place, suggested
from fcnn.training import TrainSettings, watched

LOG = logging.getLogger(__name__)
# So many seconds of training between two notes of what was spent; a short training starts again when it was cut.
NOTED_EVERY = 5.0
# Judging that takes more than this share of a candidate's training happens once on the way, not twice.
SLOW_JUDGING = 0.1
WARM_UP = 2
# The share of a candidate's time that finding out the cost of an epoch may take, and by how much it may overrun.
PROBING = 0.1
OVERRUN = 2.0
# The suite's recipe is trained for its own epochs where they take no more than this share of the budget: a
# search with no time to look around finds nothing.
WHOLE = 0.4
# What a robust network may reach, roughly: this share of the distance between the classes' means.
SCALE_OF_DATA = 0.25


@dataclass(frozen=True)
class Task:
    """What one search is about. minutes: of training; floor: recalls below it make a radius worth less."""

    dataset: str
    entry: MethodEntry
    norm: str
    minutes: float
    points: tuple[str, ...]
    floor: float

    @property
    def label(self) -> str:
        """The search in words."""
        return f"{self.entry.name} on {self.dataset} in {self.norm}"

    def seed_for(self, *purpose: object) -> int:
        """Seed of one purpose, from names only."""
        return derive_seed("tune", self.dataset, self.entry.name, self.norm, *purpose)

    def table(self) -> dict[str, Any]:
        """Return the entry's settings on the data set, which every candidate's are laid over."""
        return merged(self.entry.settings, self.entry.for_.get(self.dataset, {}))


class Search:
    """Runs a task on the training and validation splits, its record in a file.

    now: tells the time of training. key: of the record, see ``search_key``.
    """

    def __init__(
        self,
        task: Task,
        data: Dataset,
        file: Path,
        device: torch.device | None = None,
        now: Callable[[], float] | None = None,
        key: str = "",
    ) -> None:
        self.task, self.device = task, device or torch.device("cpu")
        self.now = now or seconds_of(self.device)
        self.space = task.entry.method_class.space.for_norm(task.norm)
        self.default = task.entry.settings_for(task.dataset)
        self.trains = isinstance(getattr(self.default, "train", None), TrainSettings)
        self.shape = data.input_shape
        self.data = training_data(data, self.device)
        self.mutable = None if data.mutable is None else torch.from_numpy(data.mutable).to(self.device)
        chosen = judged_inputs(data, self.space.judged_inputs)
        self.judge = Judge(
            self.data.x_val[chosen],
            self.data.y_val[chosen],
            tuple(OperatingPoint.parse(point) for point in task.points),
            task.floor,
            task.seed_for("judge"),
        )
        self.record = Record(file, key or search_key(task, data))
        self.checkpoint = file.with_suffix(".training.pt")
        self.scales: Scales | None = None

    def run(self) -> None:
        """Try candidates until the budget is spent; go on where an earlier run was cut."""
        self._warm_up()
        self.game(self.record.candidates())
        cut = self.record.cut_trial()
        if cut is not None:
            facts = known(cut)
            self._finish(cut, Move(facts["kind"], None, facts["meant"]))
        while True:
            tried = self.record.candidates()
            move = self.game(tried).next(tried)
            if move is None:
                return
            trial = self.record.ask(move.params, self.task.seed_for("sampler", len(tried)))
            self.record.note(trial, kind=move.kind, meant=move.seconds)
            self._finish(trial, move)

    def _warm_up(self) -> None:
        """Take a few steps that nobody counts: a process's first ones load libraries and say nothing of their cost."""
        if not self.trains:
            return
        method = self.task.entry.method_class(self.default, self.device)
        # What fails here fails again as the first candidate, and is told there.
        with suppress(Exception), watched(StepTimer(Stopwatch(self.now), steps=WARM_UP)):
            method.build(self.shape, seed=0)
            method.fit(self.data, FitContext(seed=0))

    def game(self, tried: list[Candidate]) -> Game:
        """Return what the next move depends on besides what was tried."""
        scales = self._scales_from(tried)
        starts = [guess(self.space, start, self.default, scales) for start in self.space.starts]
        far = far_start(self.space, self.default, scales)
        starts += [far] if far else []
        searchable = bool(offered(self.space, scales))
        most = self.space.max_epochs
        return Game(60 * self.task.minutes, starts, most, searchable, self.trains)

    def _finish(self, trial: optuna.Trial, move: Move) -> None:
        """Train and judge a candidate, and record what became of it; its failure is no failure of the search."""
        attempt = _Attempt(self, trial, move)
        try:
            verdicts = attempt.train()
            mine = [each[self.task.norm] for each in verdicts]
            measure = self.judge.measure(mine)
            attempt.known |= {"verdicts": as_table(mine), "meets": self.judge.meets(mine)}
            attempt.known["promise"] = self.judge.promise(mine)
            if move.kind == "default":
                attempt.known["scales"] = {n: max(each[n].radius for each in verdicts) for n in NORMS}
            state: State = "cut" if attempt.cut else "finished"
            self.record.tell(trial, state, measure, **attempt.facts())
        except optuna.TrialPruned:
            self.record.tell(trial, "pruned", None, **attempt.facts())
        except Exception as error:  # a candidate may raise anything: too high a learning rate, for one
            LOG.warning("%s: a candidate failed: %s", self.task.label, describe(error))
            self.record.tell(trial, "failed", None, reason=describe(error), **attempt.facts())
        self.checkpoint.unlink(missing_ok=True)

    def _scales_from(self, tried: list[Candidate]) -> Scales:
        """Return what multiples are of, from the default recipe's radii once they are known."""
        reach = {norm: self._scale_of_data(norm) for norm in NORMS}
        radii = dict(reach)
        if tried:
            known = self.record.facts(tried[0].number).get("scales", {})
            radii |= {norm: radius for norm, radius in known.items() if 0 < radius < float("inf")}
        self.scales = Scales(radii, Scales.side_of(self.shape), reach)
        return self.scales

    def _scale_of_data(self, norm: str) -> float:
        x, y = self.data.x.flatten(1), self.data.y == 1
        apart = (x[y].mean(dim=0) - x[~y].mean(dim=0)).double().cpu().numpy()
        return SCALE_OF_DATA * float(np.linalg.norm(apart, {"l1": 1, "l2": 2, "linf": np.inf}[norm]))


class _Attempt:
    """One candidate on its way: its settings, its time, its milestones."""

    def __init__(self, search: Search, trial: optuna.Trial, move: Move) -> None:
        self.search, self.trial, self.move = search, trial, move
        self.stopwatch = Stopwatch(search.now)
        self.before = float(known(trial).get("seconds", 0.0))
        self.judging = 0.0
        self.cut = False
        self.noted = 0.0
        self.known: dict[str, Any] = {}

    def facts(self) -> dict[str, Any]:
        """What to record however the candidate ended."""
        return {"seconds": self._seconds(), "judging_seconds": round(self.judging, 3), **self.known}

    def train(self) -> list[dict[str, Verdict]]:
        """Train with the candidate's settings until they, or the time, are at their end, and judge the result."""
        settings, epochs = self._settings()
        method = self._method(settings)
        tried = self.search.record.candidates()
        spent = sum(each.seconds for each in tried if each.number != self.trial.number)
        left = 60 * self.search.task.minutes - spent - self.before
        if self.move.kind != "longest":
            meant = max(self.move.seconds, (epochs or 0) * self.known.get("cost", 0.0))
            left = min(left, OVERRUN * meant)
        limit = TimeLimit(self.stopwatch, left, self._milestone(method), MILESTONES, self._note)
        context = FitContext(self.search.task.seed_for("fit"), self._checkpoint())
        started = self.stopwatch.seconds
        with self.stopwatch.running(), watched(limit):
            method.fit(self.search.data, context)
        self.cut = limit.cut
        if epochs and not self.before and not limit.cut:
            self.known["cost"] = (self.stopwatch.seconds - started) / epochs
        if limit.cut and epochs:
            self._record_cut(settings, epochs, limit)
        return self._judge(method, NORMS if self.move.kind == "default" else (self.search.task.norm,))

    def _record_cut(self, settings: dict[str, Any], epochs: int, limit: TimeLimit) -> None:
        """Note as its epochs those that a candidate got to, as these are what it was judged by."""
        self.known["epochs"] = max(1, round(epochs * limit.done))
        place(settings, "train.epochs", self.known["epochs"])
        self.known["settings"] = settings

    def _settings(self) -> tuple[dict[str, Any], int | None]:
        """Return the candidate's table and epochs: those recorded before a cut, or suggested ones that fit the time."""
        facts = known(self.trial)
        if "settings" in facts:
            return facts["settings"], facts["epochs"]
        search = self.search
        settings = (
            {} if self.move.params == {} else suggested(self.trial, search.space, search.scales or Scales())
        )
        epochs = self._epochs_that_fit(settings) if search.trains else None
        if epochs is not None:
            place(settings, "train.epochs", epochs)
        search.record.note(self.trial, settings=settings, epochs=epochs, **self.known)
        return settings, epochs

    def _epochs_that_fit(self, settings: dict[str, Any]) -> int | None:
        """Return the epochs that fit into the time meant for the candidate, after a few steps that show their cost."""
        if self.move.cost is not None:
            self.known["cost"] = self.move.cost
            return self._game.epochs(self.move.seconds, self.move.cost)
        meant = SHORT_AT_MOST * self._game.budget if self.move.kind == "default" else self.move.seconds
        timer = StepTimer(self.stopwatch, seconds=PROBING * meant)
        method = self._method(settings)
        with self.stopwatch.running(), watched(timer):
            method.fit(self.search.data, FitContext(self.search.task.seed_for("fit")))
        cost = timer.seconds_per_epoch
        if cost is None:
            return None
        cost *= self._correction(cost)
        self.known["cost"] = cost
        own = self.search.default.train.epochs
        if self.move.kind == "default" and own * cost <= WHOLE * self._game.budget - self.stopwatch.seconds:
            return own
        return self._game.epochs(self.move.seconds - self.stopwatch.seconds, cost)

    @property
    def _game(self) -> Game:
        return self.search.game(self.search.record.candidates())

    def _correction(self, cost: float) -> float:
        """How much more than its first steps promised an epoch has cost so far."""
        self.known["promised"] = cost
        facts = [self.search.record.facts(each.number) for each in self.search.record.candidates()]
        ratios = [
            f["cost"] / f["promised"] for f in facts if f.get("state") == "finished" and f.get("promised")
        ]
        return float(np.median(ratios)) if ratios else 1.0

    def _milestone(self, method: Method) -> Callable[[int], None]:
        """Return what judges the network on its way, and ends the candidate if it is hopeless."""

        def judge(number: int) -> None:
            slow = self.judging > SLOW_JUDGING * self.move.seconds
            seen = self.search.record.judged_so_far(self.trial.number)
            if self.move.kind in ("longer", "longest") or number in seen or (slow and number == 1):
                return
            norm = self.search.task.norm
            try:
                verdicts = self._judge(method, (norm,))
            except (
                ValueError
            ):  # a network that is certified only once it is trained: l∞-distances are relaxed till then
                return
            self.trial.report(self.search.judge.measure([each[norm] for each in verdicts]), number)
            if self.move.kind == "search" and self.trial.should_prune():
                raise optuna.TrialPruned

        return judge

    def _judge(self, method: Method, norms: tuple[str, ...]) -> list[dict[str, Verdict]]:
        started = time.perf_counter()
        search = self.search
        with torch.random.fork_rng(devices=[search.device] if search.device.type == "cuda" else []):
            twin = judged_twin(method, search.space.judging, search.shape)
            verdicts = search.judge.judge(twin, norms)
        self.judging += time.perf_counter() - started
        return verdicts

    def _method(self, settings: Mapping[str, Any]) -> Method:
        search = self.search
        method_class = search.task.entry.method_class
        table = merged(search.task.table(), settings)
        method = method_class(from_table(method_class.Settings, table, search.task.label), search.device)
        method.mutable = search.mutable
        method.build(search.shape, search.task.seed_for("build"))
        return method

    def _checkpoint(self) -> Path | None:
        """Where a training that takes long keeps its state, so that a cut costs an epoch of it."""
        return self.search.checkpoint if self.move.seconds > 2 * NOTED_EVERY else None

    def _note(self, seconds: float) -> None:
        """Put down now and then what was spent: with what was kept of the training a cut search goes on from there."""
        if self._checkpoint() is not None and seconds - self.noted > NOTED_EVERY:
            self.noted = seconds
            self.search.record.note(self.trial, seconds=self._seconds())

    def _seconds(self) -> float:
        return round(self.before + self.stopwatch.seconds, 3)


def search_key(task: Task, data: Dataset) -> str:
    """Return a hash of everything but the budget that a search depends on; the test split is no part of it."""
    digest = hashlib.sha256()
    for array in (data.x_train, data.y_train, data.x_val, data.y_val):
        digest.update(np.ascontiguousarray(array).tobytes())
    if data.mutable is not None:
        digest.update(data.mutable.tobytes())
    told = {
        "task": [task.dataset, task.entry.method, task.entry.name, task.norm, task.points, task.floor],
        "settings": plain(task.entry.settings_for(task.dataset)),
        "space": repr(task.entry.method_class.space),
        "code": code_version(task.entry.method_class, Judge),
        "data": digest.hexdigest(),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
