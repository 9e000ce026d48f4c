"""The smoothed classifier: exactness on linear models, decisions, two-stage sampling, calibration, losses."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.stats import norm
from torch import Tensor, nn

from baselines.networks import build_network
from baselines.smoothing import (
    NOISES,
    NoisyLoss,
    SmoothedClassifier,
    TwoStage,
    TwoStageAtRadii,
    add_noise,
    decision_scores,
    lower_bound,
    noisy_scores,
    radii,
    randomised_lower_bound,
    votes_needed,
)

WEIGHT = torch.tensor([0.8, -0.5, 0.1, 0.3])
BIAS = -0.3
DUAL_NORM = {"l1": math.inf, "l2": 2, "linf": 1}


def linear_model(weight: Tensor = WEIGHT, bias: float = BIAS) -> nn.Sequential:
    layer = nn.Linear(len(weight), 1)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.fill_(bias)
    return nn.Sequential(layer, nn.Flatten(0)).eval()


def distances(x: Tensor, norm: str) -> np.ndarray:
    margin = x.double() @ WEIGHT.double() + BIAS
    return (margin / torch.linalg.vector_norm(WEIGHT.double(), ord=DUAL_NORM[norm])).numpy()


def sensitive_inputs(count: int) -> Tensor:
    x = torch.rand(4 * count, 4, generator=torch.Generator().manual_seed(0))
    return x[(x @ WEIGHT + BIAS) > 0.05][:count]


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_radii_of_a_smoothed_linear_classifier_never_exceed_the_exact_distance(noise, norm):
    x = sensitive_inputs(30)
    # At this alpha one failure among the 30 inputs would be a wonder, so none is allowed.
    smoothed = SmoothedClassifier(linear_model(), noise, 0.5, alpha=1e-7)
    p_lower, _ = smoothed.p_lower(x, draws=100_000, seed=1)
    radius = radii(noise, 0.5, p_lower, 4, norm)
    assert (radius > 0).mean() > 0.9
    assert (radius <= distances(x, norm)).all()


def test_gaussian_radii_come_within_two_percent_of_the_exact_distance():
    x = sensitive_inputs(20)
    x = x[torch.from_numpy(distances(x, "l2") > 0.1)]
    p_lower, _ = SmoothedClassifier(linear_model(), "gaussian", 0.25).p_lower(x, draws=2_000_000, seed=1)
    ratio = radii("gaussian", 0.25, p_lower, 4, "l2") / distances(x, "l2")
    assert len(ratio) > 5
    assert ratio.max() <= 1
    assert ratio.min() >= 0.98


def test_predictions_have_three_values_and_each_is_right():
    model = SmoothedClassifier(linear_model(torch.tensor([1.0]), -0.5), "gaussian", 0.2)
    x = torch.tensor([[0.9], [0.1], [0.5], [0.53]])
    found = model.predict(x, draws=20_000, draws_first=100, seed=3)
    assert found.dtype == torch.int8
    assert found.tolist() == [1, 0, -1, 1]  # the last one needs the second look


@pytest.mark.parametrize(("draws", "alpha"), [(100, 0.05), (1000, 0.01)])
def test_either_look_decides_where_half_of_alpha_allows_it(draws, alpha):
    """With as many votes as would come from a fair coin with probability alpha / 2, and no fewer."""
    smoothed = SmoothedClassifier(linear_model(), "gaussian", 0.5, alpha=alpha)
    votes = np.arange(draws + 1)
    for_it = stats.binom.sf(votes - 1, draws, 0.5) <= alpha / 2
    against = stats.binom.cdf(votes, draws, 0.5) <= alpha / 2
    expected = np.where(for_it, 1, np.where(against, 0, -1))
    np.testing.assert_array_equal(smoothed._decide(votes, draws), expected)


def test_predictions_are_wrong_at_most_as_often_as_stated():
    """True probability just below 1/2: any answer "sensitive" is an error, over both looks together."""
    alpha, runs = 0.05, 4000
    model = SmoothedClassifier(linear_model(torch.tensor([1.0]), -0.5), "gaussian", 1.0, alpha=alpha)
    found = model.predict(torch.full((runs, 1), 0.4999), draws=200, draws_first=50, seed=5)
    assert (found == 1).float().mean() <= alpha + 4 * math.sqrt(alpha / runs)
    assert (found == 1).any()


GAUSSIAN = partial(radii, "gaussian", 1.0, dim=1, norm="l2")


@pytest.mark.parametrize(
    "plan",
    [None, TwoStage(40, GAUSSIAN, loss=0.1), TwoStageAtRadii(40, GAUSSIAN, (0.5, 0.9), price=0.1)],
    ids=["fixed", "everywhere", "radii"],
)
def test_lower_bounds_fail_at_most_as_often_as_stated(plan):
    """Also when a pilot chooses the number of draws: its own draws are never counted."""
    alpha, runs, p = 0.05, 4000, 0.8413447
    model = SmoothedClassifier(linear_model(torch.tensor([1.0]), 1.0), "gaussian", 1.0, alpha=alpha)
    bound, draws = model.p_lower(torch.zeros(runs, 1), draws=1000, seed=2, two_stage=plan)
    assert (bound > p).mean() <= alpha + 4 * math.sqrt(alpha / runs)
    assert (len(np.unique(draws)) > 3) == (plan is not None)


def test_stages_do_not_share_draws():
    smoothed = SmoothedClassifier(linear_model(), "gaussian", 1.0)
    x = torch.rand(20, 4)
    counts = [smoothed._count(x, 1000, seed=7, stage=stage).tolist() for stage in range(4)]
    assert len({tuple(count) for count in counts}) == 4


@pytest.mark.parametrize("loss", [0.01, 0.03])
def test_a_plan_keeps_the_certified_accuracy_at_every_radius(loss):
    """The radii lie densely in the middle and thinly at both ends, so no one shortfall would do for all."""
    rng = np.random.default_rng(0)
    p, n, alpha = norm.cdf(rng.normal(1.2, 0.5, 20_000)), 100_000, 0.001
    plan = TwoStage(500, GAUSSIAN, loss)
    draws = plan.plan(rng.binomial(plan.pilot, p), n, alpha)
    fixed, planned = (
        (GAUSSIAN(lower_bound(rng.binomial(count, p), count, alpha))[:, None] >= np.linspace(0.02, 3, 150))
        for count in (np.full(len(p), n), draws)
    )
    lost = fixed.mean(axis=0) - planned.mean(axis=0)
    # One run of 20,000 inputs: the loss at a radius is known to about 0.003.
    assert 0.8 * loss < lost.max() < 1.2 * loss + 0.003
    assert draws.sum() < 0.3 * n * len(p)


def test_a_plan_spends_nothing_on_the_hopeless_and_all_draws_on_the_certain():
    plan = TwoStage(200, GAUSSIAN, loss=0.01)
    votes = np.repeat([60, 150, 185, 200], 50)
    draws = plan.plan(votes, 100_000, 0.001)
    assert (draws[:50] == 0).all()
    assert (draws[50:150] > 0).all() and (draws[150:] == 100_000).all()
    # An input alone has no others to fall behind.
    assert plan.plan(np.array([150]), 100_000, 0.001)[0] > 3 * draws[50]


def test_a_plan_for_radii_keeps_the_certified_accuracy_there_with_fewer_draws():
    rng = np.random.default_rng(0)
    p, n, alpha, wanted = rng.uniform(0.3, 1.0, 2000), 10_000, 0.001, np.array([0.5, 1.0])
    plan = TwoStageAtRadii(300, GAUSSIAN, tuple(wanted), price=0.05)
    draws = plan.plan(rng.binomial(plan.pilot, p), n, alpha)
    certified = {}
    for name, count in (("fixed", np.full(len(p), n)), ("planned", draws)):
        radius = GAUSSIAN(lower_bound(rng.binomial(count, p), count, alpha))
        certified[name] = (radius[:, None] >= wanted).mean(axis=0)
    assert (certified["fixed"] - certified["planned"]).max() < 0.02
    assert draws.sum() < 0.4 * n * len(p)
    # Nothing is spent on inputs that no draws would certify, and most on those at a radius's brink.
    assert (draws[p < 0.5] == 0).all()
    brink = plan.plan(np.array([int(0.8413447 * plan.pilot) + 3]), n, alpha)
    assert draws.max() == brink[0] > 0.5 * n
    # The dearer the draws, the fewer.
    totals = [replace(plan, price=price).plan(np.arange(301), n, alpha).sum() for price in (0.01, 0.1, 1.0)]
    assert totals[0] > totals[1] > totals[2] > 0


def test_votes_needed_for_a_radius_are_the_fewest():
    plan, choices = TwoStageAtRadii(1, GAUSSIAN, (0.5, 2.0), price=0.0), np.array([20, 2000])
    needed = plan._votes_needed(choices, 0.001)
    for row, target in enumerate(plan.radii):
        for column, count in enumerate(choices):
            reached = GAUSSIAN(lower_bound(np.arange(count + 1), count, 0.001)) >= target
            assert needed[row, column] == (np.argmax(reached) if reached.any() else count + 1)


@pytest.mark.parametrize("count", [2000, 333, 20])
def test_calibration_decides_as_votes_do_and_counts_abstentions(count):
    alpha, draws = 0.001, 2000
    model, x = linear_model(torch.tensor([1.0]), 0.0), torch.linspace(-0.2, 0.2, 81)[:, None]
    scores = noisy_scores(model, x, "gaussian", 0.5, count, seed=0)
    low, high = decision_scores(scores, draws, alpha)
    # The share that a decision needs, in whole numbers: votes of count no less than needed of draws.
    needed = votes_needed(draws, alpha) * count
    thresholds = [-0.07, 0.0, 0.1, *scores[::9, :7].flatten().tolist()]
    for threshold in thresholds:
        votes = (scores > threshold).sum(dim=1).numpy()
        assert ((draws * votes >= needed) == (threshold < low)).all()
        assert ((draws * (count - votes) >= needed) == (threshold >= high)).all()
    assert (low <= high).all()
    with pytest.raises(ValueError, match="5 draws"):
        decision_scores(scores, 5, alpha)


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("draws", [1, 7, 60])
def test_randomised_bounds_fail_exactly_as_often_as_stated(draws, alpha):
    """For each number of votes: which uniform numbers bound p from below, by bisection, and how likely they are."""
    votes = np.arange(draws + 1)
    for p in (0.3, 0.55, 0.9, 0.999):
        low, high = np.zeros(draws + 1), np.ones(draws + 1)  # the bound falls with the number
        for _ in range(45):
            middle = (low + high) / 2
            wrong = randomised_lower_bound(votes, draws, alpha, middle) > p
            low, high = np.where(wrong, middle, low), np.where(wrong, high, middle)
        failing = (stats.binom.pmf(votes, draws, p) * low).sum()
        assert alpha * (1 - 1e-6) <= failing <= alpha, p
        everywhere = stats.binom.pmf(votes, draws, p)[lower_bound(votes, draws, alpha) > p].sum()
        assert everywhere <= alpha


def test_a_randomised_bound_lies_between_those_of_neighbouring_votes():
    votes = np.array([0, 1, 500, 999, 1000])
    exact = lower_bound(votes, 1000, 0.001)
    np.testing.assert_allclose(randomised_lower_bound(votes, 1000, 0.001, 1.0), exact, rtol=1e-9, atol=1e-12)
    found = randomised_lower_bound(votes, 1000, 0.001, 0.3)
    assert (found[1:] > exact[1:]).all() and (found[:-1] < lower_bound(votes[:-1] + 1, 1000, 0.001)).all()
    assert found[-1] == pytest.approx((0.001 / 0.3) ** (1 / 1000))
    assert randomised_lower_bound(0, 0, 0.001, 0.5) == 0.0
    assert randomised_lower_bound(1000, 1000, 0.001, 1e-9) < 1.0
    with pytest.raises(ValueError, match="uniform"):
        randomised_lower_bound(1, 2, 0.001, 0.0)


@pytest.mark.parametrize("two_stage", [None, TwoStage(20, GAUSSIAN, 0.1)])
def test_randomised_bounds_are_reproducible_and_above_the_others(two_stage):
    x = sensitive_inputs(6)
    plain, exact = (
        SmoothedClassifier(linear_model(), "gaussian", 0.5, interval=interval)
        for interval in ("clopper_pearson", "randomised")
    )
    below, drawn = plain.p_lower(x, draws=300, seed=5, two_stage=two_stage)
    found, same = exact.p_lower(x, draws=300, seed=5, two_stage=two_stage)
    np.testing.assert_array_equal(drawn, same)
    assert (found >= below).all() and (found > below).sum() >= 3
    np.testing.assert_array_equal(found, exact.p_lower(x, draws=300, seed=5, two_stage=two_stage)[0])
    if two_stage is None:
        at = exact.p_lower_at(x, [-9.0, 0.0], np.ones((2, 6), dtype=bool), draws=300, seed=5)
        np.testing.assert_array_equal(at[1], found)


@pytest.mark.parametrize("regulariser", [{}, {"copies": 2, "consistency": 5.0}, {"stability": 2.0}])
def test_training_steps_lower_the_loss(regulariser):
    torch.manual_seed(0)
    x = torch.rand(64, 6)
    y = (x[:, 0] > 0.5).float()
    loss = NoisyLoss(partial(add_noise, noise="gaussian", sigma=0.1), **regulariser)
    model = build_network("mlp", (6,), hidden=(20,))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    values = []
    for _ in range(80):
        value = loss(model, x, y, 0.0)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert np.mean(values[-10:]) < 0.6 * np.mean(values[:10])


def test_regularisers_are_what_they_say():
    """With scores fixed by hand: consistency is the copies' divergence from their mean, stability that from clean."""

    def model(x: Tensor) -> Tensor:
        return x[:, 0]

    def perturb(x: Tensor) -> Tensor:
        return torch.tensor([[0.0], [math.log(3)]])[: len(x)]

    x, y = torch.zeros(1, 1), torch.ones(1)
    plain = NoisyLoss(perturb, copies=2)(model, x, y, 0.0).item()
    assert plain == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    mean = 0.625  # of sigmoid(0) = 1/2 and sigmoid(log 3) = 3/4
    divergence = np.mean(
        [mean * math.log(mean / p) + (1 - mean) * math.log((1 - mean) / (1 - p)) for p in (0.5, 0.75)]
    )
    found = NoisyLoss(perturb, copies=2, consistency=2.0, entropy=0.0)(model, x, y, 0.0).item()
    assert found - plain == pytest.approx(2 * divergence, rel=1e-5)
    clean = [0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / (1 - p)) for p in (0.5, 0.75)]
    found = NoisyLoss(perturb, copies=2, stability=3.0)(model, x, y, 0.0).item()
    assert found - plain == pytest.approx(3 * np.mean(clean), rel=1e-5)


@pytest.mark.parametrize("wrong", [{"copies": 0}, {"consistency": 1.0}])
def test_impossible_losses_are_refused(wrong):
    with pytest.raises(ValueError, match="copies"):
        NoisyLoss(lambda x: x, **wrong)
