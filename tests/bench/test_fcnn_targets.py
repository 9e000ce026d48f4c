"""Targets of the radius loss as multiples of what a short training reaches: recipes for data nobody tuned."""

import pytest
import torch
from synthetic import blobs

from bench.contract import FitContext, TrainingData
from bench.methods.fcnn import FCNN, FCNNSettings
from fcnn.convex_network import float64_copy
from fcnn.training import TrainSettings


def data() -> TrainingData:
    arrays = blobs()
    return TrainingData(*map(torch.from_numpy, (arrays.x_train, arrays.y_train, arrays.x_val, arrays.y_val)))


def built(**settings: object) -> FCNN:
    method = FCNN(FCNNSettings(train=TrainSettings(epochs=80, batch_size=32, learning_rate=0.01), **settings))
    method.build((4,), seed=1)
    return method


def targets(**settings: object) -> dict[str, float]:
    return built(**settings)._targets(data(), FitContext(seed=3))


def test_targets_are_multiples_of_what_a_short_training_reaches():
    once = targets(target_multiples={"l1": 1.0, "l2": 1.0})
    assert 0.01 < once["l2"] < once["l1"] < 4
    assert targets(target_multiples={"l2": 3.0})["l2"] == pytest.approx(3 * once["l2"])


@pytest.mark.parametrize("given", [{"radius_targets": {"l2": 9.0}}, {"box_targets": {"l1": 9.0}}, {}])
def test_where_targets_are_given_or_no_multiples_are_nothing_is_trained(given):
    method = built(**given, **({"target_multiples": {"l2": 1.0}} if given else {}))
    assert method._targets(None, FitContext(seed=3)) == given.get("radius_targets", {})


def test_the_short_training_leaves_the_network_as_it_was():
    method = built(target_multiples={"l2": 1.0})
    before = {name: tensor.clone() for name, tensor in method.state().items()}
    method._targets(data(), FitContext(seed=3))
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state().items())


def test_thresholds_are_chosen_on_the_scores_that_certificates_are_of():
    method = built()
    x = data().x_val
    low, high = method.decision_range(x, 0)
    exact = float64_copy(method.model).score(x.double()).detach()
    assert low.dtype == torch.float64 and torch.equal(low, exact) and torch.equal(high, exact)
    assert not torch.equal(exact, method.score(x).detach().double())
