"""Searches on small data with a clock of their own: equal budgets, cuts, and no look at test data."""

import dataclasses
import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from synthetic import MeanThreshold, blobs
from torch import nn

from bench.basics.errors import UsageError
from bench.basics.space import Choice, Range, SearchSpace, training
from bench.calibration import ThresholdedScore
from bench.contract import LinearScore, Method, Radii
from bench.methods.fcnn import FCNN
from bench.suites.suite import MethodEntry, load_suite
from bench.tune.moves import Candidate, chosen
from bench.tune.results import Found, write_candidates, write_results
from bench.tune.search import Search, Task
from fcnn.training import TrainSettings, train


class Clock:
    """Time that passes when a method says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


CLOCK = Clock()


@dataclass(frozen=True)
class PretendSettings:
    """quality: what certified radii are worth."""

    quality: float = 0.2
    kind: str = "plain"
    train: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=3, batch_size=32))


class Pretend(MeanThreshold):
    """Trains a linear score in steps that each take a given time; its radius is a setting."""

    name = "pretend"
    Settings = PretendSettings
    step = 0.25
    space = SearchSpace(
        {"quality": Range(0.1, 2.0), "kind": Choice("plain", "worse"), **training()},
        starts=({"quality": 0.5},),
        max_epochs=50,
    )

    def network(self, input_shape):
        import torch

        return ThresholdedScore(LinearScore(torch.zeros(input_shape[0]), 0.0))

    def fit(self, data, context):
        train(
            self.model,
            self.loss_of,
            (data.x, data.y),
            self.settings.train,
            seed=context.seed,
            checkpoint=context.checkpoint,
        )

    def loss_of(self, model: nn.Module, x, y, done):
        CLOCK.seconds += self.step
        return nn.functional.binary_cross_entropy_with_logits(model(x), y)

    calibrations = Method.calibrations

    def score(self, x):
        return self.model(x)

    def certify(self, x, curve, norms, seed):
        worth = self.settings.quality * (0.5 if self.settings.kind == "worse" else 1.0)
        return {norm: Radii.from_radius(np.full(len(x), worth)) for norm in norms}


class Slow(Pretend):
    """The same, each step nine times as long."""

    name = "slow"
    step = 2.25


class Surprising(Pretend):
    """Its steps take twenty times as long once it has trained for a while, which its first ones do not tell."""

    name = "surprising"

    def fit(self, data, context):
        self.step, self.seen = 0.1, 0
        super().fit(data, context)

    def loss_of(self, model, x, y, done):
        self.seen += 1
        self.step = 0.1 if self.seen < 20 else 2.0
        return super().loss_of(model, x, y, done)


class TimedFCNN(FCNN):
    """The real one, each step of which takes a tenth of a second."""

    name = "timed_fcnn"

    def _loss(self, targets):
        loss = super()._loss(targets)

        def timed(*arguments):
            CLOCK.seconds += 0.1
            return loss(*arguments)

        return timed


class Recipe(Pretend):
    """Comes with a recipe of 40 epochs."""

    name = "recipe"
    Settings = dataclasses.make_dataclass(
        "RecipeSettings",
        [("train", TrainSettings, field(default_factory=lambda: TrainSettings(epochs=40, batch_size=32)))],
        bases=(PretendSettings,),
        frozen=True,
    )


class Unfinished(Pretend):
    """Has no certificates before its training is over."""

    name = "unfinished"

    def network(self, input_shape):
        network = super().network(input_shape)
        network.register_buffer("over", network.threshold.clone())
        return network

    def fit(self, data, context):
        super().fit(data, context)
        self.model.over.fill_(1)

    def calibrations(self, x, y, seed, points):
        if not self.model.over:
            raise ValueError("training is not over")
        return super().calibrations(x, y, seed, points)


class Diverging(Pretend):
    """Fails in its first step."""

    name = "diverging"

    def fit(self, data, context):
        raise FloatingPointError("training diverged")


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    known = {
        method.name: method
        for method in (Pretend, Slow, Surprising, Recipe, Unfinished, Diverging, TimedFCNN)
    }
    monkeypatch.setattr("bench.suites.suite.get_method", known.__getitem__)


def task(method: str, minutes: float = 1.0, norm: str = "l2") -> Task:
    return Task("blobs", MethodEntry(method), norm, minutes, ("balanced",), 0.985)


def search(method: str, file, minutes: float = 1.0, data=None, now=CLOCK) -> Search:
    return Search(task(method, minutes), data or blobs(), file / f"{method}.journal", now=now)


@pytest.mark.parametrize("method", ["pretend", "slow", "surprising"])
def test_every_method_gets_the_same_training_time(tmp_path, method):
    run = search(method, tmp_path)
    before = CLOCK.seconds
    run.run()
    tried = run.record.candidates()
    spent = sum(candidate.seconds for candidate in tried)
    assert 0.9 * 60 <= spent <= 1.1 * 60
    assert abs(CLOCK.seconds - before - spent) < 0.1 * 60, "what was spent is what is noted"
    assert {candidate.state for candidate in tried} <= {"finished", "pruned", "cut"}


def test_the_search_finds_the_better_settings_and_trains_them_for_longest(tmp_path):
    run = search("pretend", tmp_path)
    run.run()
    choice = chosen(run.record.candidates())
    assert choice.settings["quality"] > 1.4
    assert choice.settings["kind"] == "plain"
    assert choice.measure == max(c.measure for c in run.record.candidates() if c.ended)
    assert {candidate.kind for candidate in run.record.candidates()} >= {
        "default",
        "start",
        "search",
        "longer",
    }


def test_the_recipe_of_the_suite_is_a_candidate_as_it_stands_where_it_fits_the_budget(tmp_path):
    # It takes 43 s: in one minute it would leave the search no time to look around.
    for minutes, whole in ((2.0, True), (1.0, False), (0.5, False)):
        run = search("recipe", tmp_path / str(minutes), minutes)
        run.run()
        tried = run.record.candidates()
        assert tried[0].kind == "default"
        assert (tried[0].epochs == 40) == whole
        assert 0.9 * 60 * minutes <= sum(candidate.seconds for candidate in tried) <= 1.1 * 60 * minutes


def test_a_choice_is_the_same_when_the_test_split_is_noise(tmp_path):
    data, rng = blobs(), np.random.default_rng(0)
    noise = rng.uniform(size=data.x_test.shape).astype(np.float32)
    other = dataclasses.replace(data, x_test=noise, y_test=rng.permutation(data.y_test), sha256="other")
    settings = []
    for name, each in {"as it is": data, "noise": other}.items():
        CLOCK.seconds = 0.0
        run = Search(task("timed_fcnn", 0.3), each, tmp_path / f"{name}.journal", now=CLOCK)
        run.run()
        settings.append([(c.settings, c.measure, c.state) for c in run.record.candidates()])
    assert settings[0] == settings[1]
    assert len(settings[0]) > 3


def test_validation_data_matters(tmp_path):
    data = blobs()
    swapped = dataclasses.replace(data, x_val=data.x_val[::-1].copy())
    runs = [search("pretend", tmp_path, 0.1, each) for each in (data, swapped)]
    assert runs[0].record.study.study_name != runs[1].record.study.study_name


class Cut(BaseException):
    """Stands for a kill."""


def cut_at(monkeypatch, when: int) -> None:
    steps, real = itertools.count(), Pretend.loss_of

    def loss(self, *arguments):
        if next(steps) == when:
            raise Cut
        return real(self, *arguments)

    monkeypatch.setattr(Pretend, "loss_of", loss)


@pytest.mark.parametrize("when", [2, 20, 120])
def test_a_search_that_was_cut_goes_on_and_counts_what_was_spent(tmp_path, monkeypatch, when):
    with monkeypatch.context() as patched, pytest.raises(Cut):
        cut_at(patched, when)
        search("pretend", tmp_path).run()
    before = search("pretend", tmp_path).record.candidates()
    again = search("pretend", tmp_path)
    again.run()
    after = again.record.candidates()
    finished = [candidate for candidate in before if candidate.state != "running"]
    assert after[: len(finished)] == finished
    assert not [candidate for candidate in after if candidate.state == "running"]
    assert 0.9 * 60 <= sum(candidate.seconds for candidate in after) <= 1.1 * 60
    tried = len(after)
    again.run()
    assert len(again.record.candidates()) == tried, "a finished search is finished"


def test_a_long_training_goes_on_from_its_last_epoch_and_the_time_before_counts(tmp_path, monkeypatch):
    """At a budget of four minutes a candidate has sixteen seconds: 64 steps, and the second is cut near its end."""
    CLOCK.seconds = 0.0
    with monkeypatch.context() as patched, pytest.raises(Cut):
        cut_at(patched, 115)
        search("pretend", tmp_path, minutes=4.0).run()
    at = search("pretend", tmp_path).record.candidates()[-1].number
    spent = CLOCK.seconds
    with monkeypatch.context() as patched, pytest.raises(Cut):
        cut_at(patched, 40)
        search("pretend", tmp_path, minutes=4.0).run()
    resumed = next(c for c in search("pretend", tmp_path).record.candidates() if c.number == at)
    assert resumed.ended, "fewer steps than it needs from its start brought it to its end"
    assert resumed.seconds > 10
    tried = search("pretend", tmp_path).record.candidates()
    assert sum(c.seconds for c in tried[: at + 1]) > spent - 6, "what was noted before the cut counts"


def test_what_a_cut_training_spent_counts_once(tmp_path, monkeypatch):
    """The longest training, cut near its end, still has the time to end by itself."""
    with monkeypatch.context() as patched, pytest.raises(Cut):
        cut_at(patched, 450)
        search("pretend", tmp_path, minutes=2.0).run()
    cut = search("pretend", tmp_path, minutes=2.0).record.candidates()[-1]
    assert (cut.kind, cut.state) == ("longest", "running")
    search("pretend", tmp_path, minutes=2.0).run()
    assert search("pretend", tmp_path, minutes=2.0).record.candidates()[cut.number].state == "finished"


def test_a_search_goes_on_with_a_larger_budget(tmp_path):
    search("pretend", tmp_path, minutes=0.5).run()
    more = search("pretend", tmp_path, minutes=1.0)
    more.run()
    assert 0.9 * 60 <= sum(candidate.seconds for candidate in more.record.candidates()) <= 1.1 * 60


def test_what_cannot_be_judged_in_the_middle_of_its_training_is_judged_at_its_end(tmp_path):
    run = search("unfinished", tmp_path)
    run.run()
    tried = run.record.candidates()
    assert {candidate.state for candidate in tried} <= {"finished", "cut"}
    assert chosen(tried) is not None


def test_candidates_that_fail_are_listed_with_the_reason_and_end_the_search(tmp_path):
    run = search("diverging", tmp_path)
    run.run()
    tried = run.record.candidates()
    assert 0 < len(tried) < 50
    assert all(c.state == "failed" and "training diverged" in c.reason for c in tried)
    assert chosen(tried) is None


def test_what_was_chosen_becomes_a_suite_and_everything_tried_a_table(tmp_path):
    runs = [search(method, tmp_path, 0.5) for method in ("pretend", "slow")]
    for run in runs:
        run.run()
    found = [Found(run.task, run.record) for run in runs]
    write_candidates(tmp_path, found)
    top = {"title": "T", "datasets": ["blobs"], "norms": ["l1", "l2"], "tuned_minutes": 0.5}
    suite = load_suite(str(write_results(tmp_path, found, top)))
    listed = pd.read_csv(tmp_path / "candidates.csv")
    assert suite.candidates == str(tmp_path / "candidates.csv")
    assert [entry.name for entry in suite.methods] == ["pretend_l2", "slow_l2"]
    for entry, each in zip(suite.methods, found, strict=True):
        settings = entry.settings_for("blobs")
        assert (entry.datasets, entry.norms) == (("blobs",), ("l2",))
        assert settings.quality == each.choice.settings["quality"]
        assert settings.train.epochs == each.choice.epochs
        mine = listed[listed["method"] == entry.name]
        assert len(mine) == len(each.tried)
        assert mine["seconds"].sum() == pytest.approx(each.seconds)
        assert mine.loc[mine["chosen"], "measure"].item() == pytest.approx(each.choice.measure)


def test_each_data_set_gets_the_settings_that_were_chosen_on_it(tmp_path):
    """They are laid over the suite's own, which stay where nothing was chosen."""
    found = []
    own = MethodEntry("pretend", settings={"quality": 0.2, "kind": "worse"})
    for name, quality in (("blobs", 0.3), ("circles", 0.7)):
        about = dataclasses.replace(task("pretend"), dataset=name, entry=own)
        candidate = Candidate(0, "search", "finished", {}, {"quality": quality}, measure=1.0, meets=True)
        record = SimpleNamespace(candidates=lambda one=candidate: [one], facts=lambda number: {})
        found.append(Found(about, record))
    top = {"title": "T", "datasets": ["blobs", "circles"], "norms": ["l2"]}
    (entry,) = load_suite(str(write_results(tmp_path, found, top))).methods
    settings = {name: entry.settings_for(name) for name in entry.datasets}
    assert {name: each.quality for name, each in settings.items()} == {"blobs": 0.3, "circles": 0.7}
    assert {each.kind for each in settings.values()} == {"worse"}


def test_a_suite_of_nothing_is_not_written(tmp_path):
    run = search("diverging", tmp_path)
    run.run()
    with pytest.raises(UsageError, match="no search found settings"):
        write_results(tmp_path, [Found(run.task, run.record)], {"norms": ["l2"]})
    assert not (tmp_path / "suite.toml").exists()
