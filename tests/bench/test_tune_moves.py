"""What a search does next, what a candidate is worth, and what a space's values become."""

import numpy as np
import pytest
import torch
from synthetic import MeanSettings, MeanThreshold, blobs

from bench.basics.space import Choice, Range, SearchSpace
from bench.calibration import OperatingPoint
from bench.tune.budget import StepTimer, Stopwatch, TimeLimit
from bench.tune.judging import STANDARD_ERRORS, Judge, Verdict, judged_inputs, lower_bound
from bench.tune.moves import Candidate, Game, Move, chosen
from bench.tune.values import Scales, far_start, guess, suggested


def tried(number, kind="search", seconds=5.0, measure=1.0, epochs=10, params=None, **rest):
    params = {"rate": number} if params is None else params
    rest = {"state": "finished", "cost": 0.5, "promise": measure, **rest}
    return Candidate(
        number=number,
        kind=kind,
        params=params,
        settings={},
        seconds=seconds,
        measure=measure,
        epochs=epochs,
        **rest,
    )


def game(**changes) -> Game:
    return Game(
        **{"budget": 100.0, "starts": [], "max_epochs": 200, "searchable": True, "trains": True, **changes}
    )


def test_the_default_recipe_comes_first_then_the_guesses_then_the_search():
    guesses = game(starts=[{"rate": 7}])
    assert guesses.next([]).kind == "default"
    assert guesses.next([tried(0, "default")]) == Move("start", {"rate": 7}, pytest.approx(100 / 15))
    assert guesses.next([tried(0, "default"), tried(1, "start")]).kind == "search"


def test_half_way_the_two_best_are_trained_for_longer_and_the_winner_for_longest():
    short = [tried(n, seconds=10.0, measure=n) for n in range(5)]
    first = game().next(short)
    assert (first.kind, first.params) == ("longer", {"rate": 4})
    longer = [*short, tried(5, "longer", 12.0, 9.0, 24, {"rate": 4})]
    second = game().next(longer)
    assert (second.kind, second.params) == ("longer", {"rate": 3})
    both = [*longer, tried(6, "longer", 12.0, 3.5, 24, {"rate": 3})]
    last = game().next(both)
    assert (last.kind, last.params) == ("longest", {"rate": 4})
    assert 0.9 * 26 < last.seconds <= 26
    hopeful = [*longer[:3], tried(8, seconds=10.0, measure=2.5, promise=9.5), *longer[4:]]
    assert game().next(hopeful).params == {"rate": 8}
    assert game().next([*both, tried(7, "longest", 24.0, 9.5, 48, {"rate": 4})]) is None


def test_what_cannot_be_trained_for_longer_leaves_its_time_to_the_search():
    short = [tried(n, seconds=10.0, epochs=200) for n in range(5)]
    assert game().next(short).kind == "search"
    assert game(searchable=False).next(short) is None


def test_a_method_without_a_space_gets_its_recipe_and_more_epochs():
    bare = game(searchable=False)
    assert bare.next([tried(0, "default", params={})]).kind == "longest"
    assert game(searchable=False, trains=False).next([tried(0, "default", params={})]) is None


def test_pruned_and_failed_candidates_are_never_chosen():
    candidates = [
        tried(0, measure=1.0),
        tried(1, measure=None, state="pruned"),
        tried(2, measure=3.0, state="cut"),
        tried(3, measure=None, state="failed"),
    ]
    assert chosen(candidates).number == 2


def test_one_that_keeps_the_recalls_goes_before_one_that_does_not():
    candidates = [tried(0, measure=5.0), tried(1, measure=2.0, meets=True), tried(2, measure=3.0, meets=True)]
    assert chosen(candidates).number == 2
    assert chosen(candidates[:1]).number == 0


def test_a_radius_bought_with_inputs_is_worth_less():
    point, balanced = OperatingPoint(0.99), OperatingPoint()
    assert Verdict(2.0, 0.99, 0.99).measure(point, 0.985) == 2.0
    assert Verdict(2.0, 0.97, 0.99).measure(point, 0.985) == pytest.approx(1.0)
    assert Verdict(2.0, 0.97, 0.99).measure(point, 0.0) == 2.0
    assert Verdict(2.0, 0.99, 0.97).measure(point, 0.985) == 2.0
    assert Verdict(2.0, 0.99, 0.97).measure(balanced, 0.985) == pytest.approx(1.0)
    assert Verdict(0.0, 0.4, 0.99).measure(point, 0.985) == pytest.approx(-0.6)


@pytest.mark.parametrize(("share", "count"), [(0.985, 600), (1.0, 67), (0.9, 50), (0.0, 30)])
def test_a_recall_counts_as_its_lower_bound(share, count):
    """Wilson's bound p solves share - p = z sqrt(p (1 - p) / n); what few inputs show counts less than what many do."""
    bound = lower_bound(share, count)
    z = STANDARD_ERRORS
    assert share - bound == pytest.approx(z * (bound * (1 - bound) / count) ** 0.5, abs=1e-12)
    assert bound <= lower_bound(share, 10 * count) <= share == lower_bound(share, 0)


def test_luck_with_few_inputs_does_not_reach_the_floor():
    point, balanced = OperatingPoint(0.99), OperatingPoint()
    assert not Verdict(2.0, 0.987, 0.99, 600, 600).meets(point, 0.985)
    assert Verdict(2.0, 0.987, 0.99, 60_000, 60_000).meets(point, 0.985)
    assert not Verdict(2.0, 0.995, 0.987, 600, 600).meets(balanced, 0.985)
    assert Verdict(2.0, 0.995, 0.995, 600, 600).meets(balanced, 0.985)
    assert Verdict(2.0, 0.987, 0.99, 600, 600).measure(point, 0.985) < 2.0


class Fixed:
    """A trial that suggests what it was given."""

    def __init__(self, params):
        self.params = params

    def suggest_float(self, name, low, high, log):
        assert low <= self.params[name] <= high
        return self.params[name]

    def suggest_categorical(self, name, choices):
        assert self.params[name] in choices
        return self.params[name]


SPACE = SearchSpace(
    {
        "target": Range(1.0, 4.0, log=True, of="l1"),
        "hidden": Choice([200, 50], [400]),
        "train.crop_padding": Range(0.0, 0.1, of="side", whole=True, images=True),
    }
)


def test_values_are_multiples_of_what_the_data_gave():
    scales = Scales({"l1": 10.0, "l2": 1.0, "linf": 0.1}, side=28)
    params = guess(SPACE, {"target": 1.5}, {"hidden": (400,), "train": {"crop_padding": 2}}, scales)
    assert suggested(Fixed(params), SPACE, scales) == {
        "target": 15.0,
        "hidden": [400],
        "train": {"crop_padding": 2},
    }
    middle = guess(SPACE, {}, {}, scales)
    assert suggested(Fixed(middle), SPACE, scales)["target"] == pytest.approx(20.0)


def test_where_the_recipe_is_far_below_what_the_classes_promise_the_space_goes_there():
    """The default recipe reaches 0.5, so that the space ends at 2; the classes' means promise 18."""
    scales = Scales({"l1": 0.5}, side=28, reach={"l1": 18.0})
    far = far_start(SPACE, {}, scales)
    assert suggested(Fixed(far), SPACE, scales)["target"] == pytest.approx(18.0)
    assert suggested(Fixed({**far, "target": 72.0}), SPACE, scales)["target"] == pytest.approx(36.0)
    near = Scales({"l1": 5.0}, side=28, reach={"l1": 18.0})
    assert far_start(SPACE, {}, near) is None
    with pytest.raises(AssertionError):
        suggested(Fixed({**far, "target": 4.1}), SPACE, near)


def test_tables_are_not_offered_what_is_for_images():
    assert "train.crop_padding" not in guess(SPACE, {}, {}, Scales({"l1": 1.0}))


def test_judging_inputs_are_the_same_every_time_and_of_both_classes():
    data = blobs(count=300)
    some = judged_inputs(data, 40)
    assert len(some) == 40
    assert (some == judged_inputs(data, 40)).all()
    assert data.y_val[some].sum() == 20
    assert len(judged_inputs(data, 0)) == len(data.y_val)


def test_every_batch_of_judged_inputs_counts():
    data, method = blobs(), MeanThreshold(MeanSettings(level=0.68))
    method.batch_size = 3
    judge = Judge(
        torch.from_numpy(data.x_val), torch.from_numpy(data.y_val), (OperatingPoint(),), 0.9, seed=0
    )
    ((verdict,),) = (found.values() for found in judge.judge(method, ("linf",)))
    means = data.x_val[data.y_val == 1].astype(float).mean(axis=1)
    assert 0 < (means <= 0.68).sum() < len(means) / 2  # a missed input counts as radius 0
    assert verdict.radius == pytest.approx(np.median(np.maximum(means - 0.68, 0)), rel=1e-4)
    assert verdict.recall == pytest.approx((means > 0.68).mean())


def test_of_equally_good_candidates_the_first_is_chosen():
    tried = [Candidate(number, "search", "finished", {}, {}, measure=1.0, meets=True) for number in (4, 2, 7)]
    assert chosen(tried).number == 2


def test_an_epoch_is_expected_to_cost_what_its_steps_did_without_the_first():
    now = [0.0]
    watch = Stopwatch(lambda: now[0])
    timer = StepTimer(watch, steps=4)
    assert timer.seconds_per_epoch is None
    with watch.running():
        for step, cost in enumerate([5.0, 1.0, 2.0, 3.0], start=1):
            now[0] += cost
            assert timer(step / 100, step, 10) == (step == 4)
            with watch.paused():
                now[0] += 100.0
    assert timer.seconds_per_epoch == pytest.approx(10 * (1.0 + 2.0 + 3.0) / 3)
    slow = StepTimer(Stopwatch(lambda: now[0]), seconds=4.0)
    with slow.stopwatch.running():
        now[0] += 5.0
        assert slow(0.01, 1, 10)
    assert slow.seconds_per_epoch == pytest.approx(50.0)


def test_a_training_is_cut_when_its_time_is_up_and_judging_on_the_way_takes_none_of_it():
    now, judged = [0.0], []

    def judge(number):
        judged.append(number)
        now[0] += 50.0

    watch = Stopwatch(lambda: now[0])
    limit = TimeLimit(watch, 10.0, judge)
    with watch.running():
        for step in range(1, 10):
            now[0] += 1.5
            if limit(step / 9, step, 3):
                break
    # Judged after a third and two thirds of the epochs; seven steps take 10.5 s.
    assert (judged, step, limit.cut, limit.done) == ([1, 2], 7, True, 7 / 9)
    assert watch.seconds == 10.5
    # What ends by itself is not cut, however late it is.
    assert not limit(1.0, 9, 3) and not limit.cut
