"""Feature-convex networks that start as a robust linear classifier never end below it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.basics.settings import from_table
from bench.calibration import BALANCED_POINT
from bench.contract import FitContext, TrainingData
from bench.errors import UsageError
from bench.methods.fcnn import FCNN
from bench.methods.linear import Linear
from fcnn.training import watched

START = {"radius_targets": {"l1": 0.5}, "train": {"epochs": 12, "batch_size": 16}}
TABLE = {
    "hidden": [8],
    "start": "linear",
    "radius_targets": {"l1": 0.5},
    "train": {"epochs": 4, "batch_size": 16},
}


class Ruined(FCNN):
    """Trains for the wrong labels."""

    def _loss(self, targets):
        right = super()._loss(targets)
        return lambda model, x, y, done: right(model, x, 1 - y, done)


def points(seed: int) -> Tensor:
    return torch.rand((200, 2), generator=torch.Generator().manual_seed(seed))


def half(x: Tensor) -> Tensor:
    """Sensitive in the right half of the unit square."""
    return (x[:, 0] > 0.5).float()


def bands(x: Tensor) -> Tensor:
    """Sensitive in bands at the left and right of the unit square: convex, and no half-plane."""
    return ((x[:, 0] - 0.45).abs() > 0.25).float()


def fitted(kind, table, labels) -> FCNN | Linear:
    method = kind(from_table(kind.Settings, table, "start"))
    method.build((2,), seed=1)
    x, x_val = points(0), points(1)
    method.fit(TrainingData(x, labels(x), x_val, labels(x_val)), FitContext(seed=1))
    return method


def median(method) -> float:
    """The median certified radius of sensitive validation inputs at balanced recalls."""
    x = points(1)
    y = bands(x)
    method.calibrate(x, y, 0, BALANCED_POINT)
    return float(np.median(method.certify(x[y > 0.5], method.curves()[0], ["l1"], seed=0)["l1"].radius))


@pytest.mark.parametrize("feature_map", ["identity", "centered_abs"])
def test_a_training_that_only_harms_leaves_the_linear_classifier(feature_map):
    fast = {**TABLE["train"], "learning_rate": 0.1}
    ruined = fitted(Ruined, {**TABLE, "feature_map": feature_map, "train": fast}, half)
    x = points(1)
    torch.testing.assert_close(
        ruined.score(x).double(),
        fitted(Linear, {**START, "train": {**fast, "epochs": 12}}, half).score(x),
        rtol=1e-5,
        atol=1e-5,
    )


def test_the_linear_classifier_can_have_a_recipe_of_its_own():
    own = {"radii": {"l1": 0.2}, "train": {"epochs": 7, "batch_size": 50, "learning_rate": 0.03}}
    table = {**TABLE, "train": {**TABLE["train"], "learning_rate": 0.1}, "linear": own}
    x = points(1)
    expected = fitted(Linear, own, half).score(x)
    torch.testing.assert_close(fitted(Ruined, table, half).score(x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"linear": {"radius": 1.0}}, "linear: unknown key 'radius'"),
        ({"linear": {"radii": {"l3": 1.0}}}, "linear: radii: l3"),
        ({"linear": {"radii": {"l1": 1.0}}, "start": "random"}, 'linear is for start = "linear"'),
        ({"kept_recall": 1.0}, "kept_recall = 1.0"),
    ],
)
def test_settings_that_are_none_of_a_linear_classifiers_are_refused(change, words):
    with pytest.raises(UsageError, match=words):
        from_table(FCNN.Settings, {**TABLE, **change}, "recipe")


@pytest.mark.parametrize(("kept", "expected"), [(0.0, 0.5), (0.9, (0.5 * 0.4) ** 0.5)])
def test_what_is_kept_is_judged_at_balanced_recalls_and_at_the_one_asked_for(kept, expected):
    """On a line: the balanced threshold is 0.75, that for nine of ten 0.85, the median sensitive input 1.25."""
    others, sensitive_ones = torch.arange(10) / 10, torch.tensor([0.65, 0.95, 1.25, 1.55, 1.85])
    x, y = torch.cat([others, sensitive_ones])[:, None].double(), torch.cat([torch.zeros(10), torch.ones(5)])
    method = FCNN(from_table(FCNN.Settings, {"keep_best": "l1", "kept_recall": kept}, "recipe"))
    method.use_linear(torch.tensor([1.0], dtype=torch.float64), bias=0.0)
    judged = method._measure(TrainingData(x, y, x, y), "l1")
    assert judged is not None and judged(method.model) == pytest.approx(expected)


def test_where_nothing_is_left_at_one_operating_point_the_other_decides():
    """The other class reaches 1.3, so that at all of its recall less than half is certified."""
    others = torch.tensor([0.0, 0.1, 0.2, 0.3, 1.3])
    x, y = (
        torch.cat([others, torch.tensor([0.9, 1.1, 1.2])])[:, None].double(),
        torch.tensor([0.0] * 5 + [1.0] * 3),
    )
    judged = []
    for steepness in (1.0, 0.5):
        method = FCNN(from_table(FCNN.Settings, {"keep_best": "l1", "kept_recall": 0.99}, "recipe"))
        method.use_linear(torch.tensor([1.0], dtype=torch.float64), bias=0.0)
        measure = method._measure(TrainingData(steepness * x, y, steepness * x, y), "l1")
        assert measure is not None
        judged.append(measure(method.model))
    assert judged[0] == pytest.approx(2 * judged[1]) and judged[1] > 0


def test_training_goes_on_from_there():
    long = {**TABLE["train"], "epochs": 30, "learning_rate": 0.02}
    assert median(fitted(FCNN, {**TABLE, "train": long}, bands)) > median(fitted(Linear, START, bands)) + 0.02


def test_nothing_is_judged_while_the_linear_classifier_is_trained():
    """A search sees the shares of the network's own training alone: it would judge an untrained network before."""
    told = []
    with watched(lambda done, steps, steps_per_epoch: told.append(done)):
        fitted(FCNN, TABLE, half)
    before, own = 12 * 13, 4 * 13
    assert told[:before] == [0.0] * before
    assert told[-1] == 1.0 and len(told) == before + own
