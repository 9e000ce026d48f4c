"""What is taken for convex and what is refused: by its operations, and networks from outside at random points too."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fcnn import ConvexMLP, ConvexNetwork, FeatureConvexClassifier, sampled_checks
from fcnn.convex_network import NonNegativeLinear
from fcnn.convexity import Proof
from fcnn.convexity_bounds import NotProved


class Own(ConvexNetwork):
    """A network from outside: three inputs, a free first layer, and what a test makes of the rest."""

    def __init__(self, rest, sign=1.0):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), NonNegativeLinear(4, 1, 1.0)
        self.plain = nn.Linear(4, 1)
        self.rest = rest
        with torch.no_grad():
            self.plain.weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0 * sign]]))

    def settings(self):
        return {}

    def floats_per_input(self, feature_shape):
        return 20

    def forward(self, x):
        return self.rest(self, x)


def hidden(net, x):
    return torch.relu(net.first(x))


CONVEX = {
    "relu": lambda net, x: net.last(hidden(net, x)).squeeze(1),
    "plain layer with weights >= 0": lambda net, x: net.plain(hidden(net, x)).squeeze(1),
    "plain layer on the input": lambda net, x: net.plain(functional.pad(x, (0, 1))).squeeze(1),
    "residual": lambda net, x: (hidden(net, x) + net.first(x)).sum(1),
    "maximum": lambda net, x: torch.maximum(hidden(net, x), 2 * net.first(x)).amax(1) - x[:, 0],
    "absolute values": lambda net, x: net.first(x).abs().mean(1) + x.abs().sum(1) / 3,
    "leaky": lambda net, x: net.last(functional.leaky_relu(net.first(x), 0.1)).squeeze(1),
    "clamp": lambda net, x: net.first(x).clamp(min=-1).max(1).values,
    "joined": lambda net, x: torch.cat([hidden(net, x), x], 1).sum(1),
    "negative of a concave part": lambda net, x: -(-hidden(net, x)).sum(1),
    "reshaped": lambda net, x: hidden(net, x).reshape(-1, 2, 2).permute(0, 2, 1).flatten(1).sum(1),
}


@pytest.mark.parametrize("kind", CONVEX)
def test_convex_networks_from_outside_are_proved(kind):
    torch.manual_seed(0)
    network = Own(CONVEX[kind])
    network.require_convex()
    network.require_convex((3,))
    classifier = FeatureConvexClassifier(network, threshold=-30.0)
    assert (classifier.certify(torch.rand(4, 3), ("l2",))["l2"] > 0).all()


@torch.no_grad()
def written_into(h: Tensor) -> Tensor:
    """Twice h, written over a value that was bounded before."""
    return torch.add(h, h, out=torch.neg(h))


REFUSED = {
    "plain layer on hidden units": (
        lambda net, x: net.plain(hidden(net, x)).squeeze(1),
        r"layer plain \(Linear\).*-4",
    ),
    "difference": (
        lambda net, x: (hidden(net, x) - torch.relu(-x[:, :1])).sum(1),
        "a convex and a concave part",
    ),
    "concave": (lambda net, x: -hidden(net, x).sum(1), "concave"),
    "tanh": (lambda net, x: torch.tanh(net.first(x)).sum(1), "operation tanh"),
    "sigmoid after": (lambda net, x: torch.sigmoid(net.last(hidden(net, x))).squeeze(1), "operation sigmoid"),
    "square of hidden units": (
        lambda net, x: (hidden(net, x) * net.first(x)).sum(1),
        "product of two values",
    ),
    "capped": (lambda net, x: hidden(net, x).clamp(0, 1).sum(1), "capped from above"),
    "relu of a concave part": (lambda net, x: torch.relu(1 - hidden(net, x)).sum(1), "concave part"),
    "absolute of hidden units": (
        lambda net, x: (hidden(net, x) - 1).abs().sum(1),
        "absolute value of hidden",
    ),
    "over the batch": (lambda net, x: hidden(net, x).sum(1) - hidden(net, x).mean(), "mixes the inputs"),
    "batch transposed": (
        lambda net, x: net.first(x).t().sum(0),
        "t is not known|mixes",
    ),
    "in place": (lambda net, x: net.first(x).relu_().sum(1), "operation relu_"),
    "into a place": (lambda net, x: written_into(net.first(x)).sum(1), "operation add"),
    "by value": (lambda net, x: hidden(net, x).sum(1) * (2.0 if x[0, 0] > 0 else 1.0), "mixes|is not known"),
    "by index": (lambda net, x: net.plain.weight[0][hidden(net, x).max(1).indices], "is not known"),
    "cut from the gradient": (lambda net, x: hidden(net, x.detach()).sum(1), "operation detach"),
    "constant": (lambda net, x: torch.ones(len(x), dtype=x.dtype), "does not come out of operations"),
    "of another shape": (lambda net, x: net.last(hidden(net, x)), r"scores must be \(N,\)"),
    "steep leaky relu": (lambda net, x: functional.leaky_relu(net.first(x), -0.5).sum(1), "slope -0.5"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_proved_is_refused_by_name(kind):
    torch.manual_seed(0)
    rest, message = REFUSED[kind]
    network = Own(rest, sign=-1.0)
    classifier = FeatureConvexClassifier(network, threshold=-30.0)
    for certificate in ("closed_form", "refined"):
        with pytest.raises(ValueError, match=message):
            classifier.certify(torch.rand(4, 3), ("l2",), certificate)
    with pytest.raises(ValueError, match=message):
        network.require_convex()


class Sworn(Own):
    """States its own proof, of whatever it is."""

    def proof(self, features):
        return Proof(torch.full_like(features, 100.0), torch.full((len(features),), 100.0).double(), 100)


def test_a_network_may_bring_its_own_proof():
    torch.manual_seed(0)
    classifier = FeatureConvexClassifier(
        Sworn(lambda net, x: functional.softplus(net.first(x)).sum(1)), threshold=-1.0
    )
    radius = classifier.certify(torch.rand(4, 3), ("l2",), domain="free")["l2"]
    assert (radius > 0).all() and torch.isfinite(radius).all()


class GradientOfItsOwn(torch.autograd.Function):
    """x, with a gradient that is not its own: operations alone do not show it."""

    @staticmethod
    def forward(ctx, x):
        return x + 0.0

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 2


def test_gradients_that_are_not_those_of_the_score_are_noticed():
    torch.manual_seed(0)
    network = Own(lambda net, x: hidden(net, GradientOfItsOwn.apply(x)).sum(1))
    with pytest.raises(ValueError, match="below one of its tangents"):
        network.require_convex()


def test_a_bump_between_two_flat_places_is_above_their_chord():
    """Both ends lie on each other's tangent, so that the middle alone shows it."""
    start, end = torch.full((1, 2), -1.0).double(), torch.full((1, 2), 1.0).double()
    proof = Proof(torch.full((1, 2), 100.0).double(), torch.tensor([100.0]).double(), 100)
    sampled_checks._check_segments(lambda x: (x.abs().sum(1) - 1).relu(), start, end, proof)
    with pytest.raises(NotProved, match="above one of its chords"):
        sampled_checks._check_segments(lambda x: (1 - x.abs().sum(1)).relu(), start, end, proof)


def test_a_subclass_of_a_known_network_is_looked_at_itself():
    class Negated(ConvexMLP):
        def forward(self, x):
            return -super().forward(x)

    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"Negated.*concave"):
        Negated(3, (4,)).require_convex()
    with pytest.raises(ValueError, match="concave"):
        FeatureConvexClassifier(Negated(3, (4,)), threshold=-9.0).certify(torch.rand(2, 3))
