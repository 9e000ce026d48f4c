"""Tangents without autograd: those of autograd, and only where every layer is as its class says."""

import pytest
import torch
from torch import nn

from fcnn import ConvexMLP, FeatureConvexClassifier
from fcnn.dense_tangents import DenseTangents


def network(hidden, passthrough, seed=0):
    torch.manual_seed(seed)
    made = ConvexMLP(5, hidden, passthrough=passthrough)
    with torch.no_grad():
        for layer in made.hidden_layers:
            layer.weight.uniform_(0, 1)
    return made.double().eval()


@pytest.mark.parametrize("hidden", [(), (4,), (6, 3), (4, 4, 2)])
@pytest.mark.parametrize("passthrough", [True, False])
def test_scores_and_gradients_are_those_of_autograd(hidden, passthrough):
    made = network(hidden, passthrough)
    z = torch.randn(40, 5, dtype=torch.float64, requires_grad=True)
    expected = made(z)
    (slope,) = torch.autograd.grad(expected.sum(), z)
    kept = z.detach().clone()
    score, gradient = DenseTangents.of(made)(kept)
    torch.testing.assert_close(score, expected.detach(), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(gradient, slope, rtol=1e-13, atol=1e-13)
    assert torch.equal(kept, z)


def test_a_unit_at_its_kink_lets_nothing_through():
    made = ConvexMLP.from_arrays([[[1.0]], [[0.5]]], [[0.0], [1.0]], [[[2.0]]]).double()
    score, gradient = DenseTangents.of(made)(torch.zeros(1, 1, dtype=torch.float64))
    assert float(score) == 1.0
    assert float(gradient) == 0.5


def altered():
    hooked, own, derived = network((4,), True), network((4,), True), network((4,), True)
    hooked.hidden_layers[0].register_forward_hook(lambda layer, given, out: out + 1)
    own.first.forward = lambda x: nn.functional.linear(x, own.first.weight) + 1

    class Shifted(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    derived.passthroughs[0] = Shifted(5, 1, bias=False).double()
    return {"hook": hooked, "forward of its own": own, "derived layer": derived}


@pytest.mark.parametrize("name", ["hook", "forward of its own", "derived layer"])
def test_a_network_that_computes_something_else_is_left_to_autograd(name):
    assert DenseTangents.of(altered()[name]) is None


def test_a_derived_network_is_left_to_autograd():
    class Doubled(ConvexMLP):
        def forward(self, x):
            return 2 * super().forward(x)

    torch.manual_seed(0)
    classifier = FeatureConvexClassifier(Doubled(3, (4,)))
    x = torch.rand(6, 3, dtype=torch.float64)
    margin, _ = classifier.tangent(x)
    torch.testing.assert_close(margin, classifier.kept().score(x).detach())


def test_changed_weights_change_the_tangents():
    classifier = FeatureConvexClassifier(network((4,), True))
    x = torch.rand(3, 5, dtype=torch.float64)
    before, _ = classifier.tangent(x)
    with torch.no_grad():
        classifier.network.hidden_layers[0].bias.add_(1.0)
    after, _ = classifier.tangent(x)
    torch.testing.assert_close(after, before + 1.0)
