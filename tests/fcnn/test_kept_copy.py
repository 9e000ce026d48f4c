"""The float64 copy is kept while nothing changes, and no change of any kind leaves a stale certificate."""

import copy
import pickle

import pytest
import torch
from convex_examples import random_classifier
from torch import nn

from fcnn import ConvexConvNet, ConvexMLP, FeatureConvexClassifier, Identity


def classifier_with_mean():
    torch.manual_seed(0)
    network = ConvexMLP(6, (5, 4), hidden_init=1.0)
    return FeatureConvexClassifier(network, Identity(torch.full((6,), 0.3)), threshold=-4.0)


def fine_tune(classifier):
    optimiser = torch.optim.SGD(classifier.parameters(), 0.1)
    classifier.score(torch.rand(8, 6)).sum().backward()
    optimiser.step()
    classifier.project()


def swap_two_weights(classifier):
    weight = classifier.network.first.weight.data
    weight[0, 0], weight[0, 1] = weight[0, 1].item(), weight[0, 0].item()


def write_through_numpy(classifier):
    classifier.network.first.bias.detach().numpy()[2] += 1.0


def load_other_weights(classifier):
    torch.manual_seed(1)
    classifier.network.load_state_dict(ConvexMLP(6, (5, 4), hidden_init=1.0).state_dict())


CHANGES = {
    "in place": lambda c: c.network.first.weight.requires_grad_(False).mul_(1.5),
    "through .data": lambda c: c.network.first.weight.data.mul_(1.5),
    "new .data": lambda c: setattr(c.network.first.weight, "data", 2 * c.network.first.weight.data),
    "two weights swapped": swap_two_weights,
    "the last bit": lambda c: c.network.passthroughs[1].weight.data.view(torch.int32)[0, 0].bitwise_xor_(1),
    "through NumPy": write_through_numpy,
    "an optimiser": fine_tune,
    "load_state_dict": load_other_weights,
    "another parameter": lambda c: setattr(c.network.first, "weight", nn.Parameter(torch.rand(5, 6))),
    "another layer": lambda c: setattr(c.network, "first", nn.Linear(6, 5)),
    "another network": lambda c: setattr(c, "network", ConvexMLP(6, (3,))),
    "another map": lambda c: setattr(c, "feature_map", Identity()),
    "the mean": lambda c: c.feature_map.mean.fill_(0.7),
    "the threshold in place": lambda c: c.threshold.fill_(-9.0),
    "the threshold added to": lambda c: c.__setattr__("threshold", c.threshold - 1.0),
    "an attribute": lambda c: setattr(c.network, "passthrough", False),
    "a hook": lambda c: c.network.first.register_forward_hook(lambda module, x, y: 2 * y),
    "in double": lambda c: c.double().network.first.weight.data.add_(1e-12),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_every_change_is_seen_by_the_next_certificate(kind):
    classifier, x = classifier_with_mean(), torch.rand(5, 6)
    before = classifier.certify(x, ("l2",), "closed_form")["l2"]
    kept = classifier.kept()
    CHANGES[kind](classifier)
    after = classifier.certify(x, ("l2",), "closed_form")["l2"]
    assert classifier.kept() is not kept
    fresh = copy.deepcopy(classifier)
    assert torch.equal(after, fresh.certify(x, ("l2",), "closed_form")["l2"])
    assert torch.equal(classifier.predict(x), fresh.predict(x)) and not torch.equal(before, after)


def test_an_unchanged_classifier_keeps_its_copy():
    classifier, x = classifier_with_mean(), torch.rand(5, 6)
    first = classifier.certified(x)
    classifier.predict(x)
    classifier.train()
    classifier.certify(x)
    assert classifier.certified(x) is first and classifier.certified(x.double()) is first
    assert torch.equal(classifier.state_dict()["network.first.weight"], classifier.network.first.weight)
    assert set(classifier.state_dict()) == set(copy.deepcopy(classifier).state_dict())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_and_pickles_have_a_copy_of_their_own(duplicate):
    classifier, x = classifier_with_mean(), torch.rand(5, 6)
    radii = classifier.certify(x, ("l1",), domain="free")["l1"]
    twin = duplicate(classifier)
    assert torch.equal(twin.certify(x, ("l1",), domain="free")["l1"], radii)
    twin.threshold = twin.threshold - 1.0
    assert (twin.certify(x, ("l1",), domain="free")["l1"] > radii).all()
    assert torch.equal(classifier.certify(x, ("l1",), domain="free")["l1"], radii)


def test_what_frozen_returns_is_the_callers_own():
    classifier, x = random_classifier(seed=0, d=4)
    radii = classifier.certify(x, ("l2",))["l2"]
    frozen = classifier.frozen()
    frozen.network.first.weight.data.mul_(3.0)
    assert torch.equal(classifier.certify(x, ("l2",))["l2"], radii)


def test_batch_statistics_are_weights_too():
    torch.manual_seed(0)
    classifier = FeatureConvexClassifier(ConvexConvNet(1, 4, 2, first_kernel=3), threshold=-3.0)
    x = torch.rand(6, 1, 8, 8)
    before = classifier.certify(x, ("l2",), "closed_form")["l2"]
    classifier.train()(3 * torch.rand(6, 1, 8, 8) + 1)
    after = classifier.certify(x, ("l2",), "closed_form")["l2"]
    assert not torch.equal(before, after)
    assert torch.equal(after, copy.deepcopy(classifier).certify(x, ("l2",), "closed_form")["l2"])


def test_a_network_that_stops_being_convex_is_refused_at_once():
    classifier, x = classifier_with_mean(), torch.rand(5, 6)
    classifier.certify(x)
    classifier.network.hidden_layers[0].weight.data[1, 1] = -0.5
    with pytest.raises(ValueError, match=r"hidden_layers\.0\.weight"):
        classifier.certify(x)
    classifier.project()
    classifier.certify(x)
