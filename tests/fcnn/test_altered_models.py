"""What a user puts on a classifier, its map or its layers: certified as it then computes, or refused in one line."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from fcnn import CenteredAbs, ConvexMLP, FeatureConvexClassifier, Identity
from fcnn.learned_maps import LipschitzMap, certify_through_map

X = torch.rand(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def classifier(kind=FeatureConvexClassifier, feature_map=None) -> FeatureConvexClassifier:
    width = 6 if isinstance(feature_map, CenteredAbs) else 3
    model = kind(ConvexMLP(width, (6,), hidden_init=0.5), feature_map).double()
    model.threshold += FeatureConvexClassifier.score(model, X).median().detach()
    return model


class Lower(FeatureConvexClassifier):
    def score(self, x):
        return super().score(x) - 1.0


class Negated(FeatureConvexClassifier):
    def predict(self, x):
        return ~super().predict(x)


def lowered_by_hand() -> FeatureConvexClassifier:
    model = classifier()
    plain = model.score
    model.score = lambda x: plain(x) - 1.0
    return model


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: classifier(Lower), "score"),
        (lambda: classifier(Negated), "predict"),
        (lowered_by_hand, "score"),
    ],
    ids=["score", "predict", "by hand"],
)
@pytest.mark.parametrize("certificate", ["closed_form", "refined"])
def test_a_classifier_that_predicts_by_another_function_is_refused(make, name, certificate):
    with pytest.raises(ValueError, match=f"changes {name}, so nothing"):
        make().certify(X, ("l2",), certificate)


class Called(Identity):
    """Stretched where nobody looks: far from the data."""

    def __call__(self, x):
        x = super().__call__(x)
        return x + 50 * x.sign() * (x.abs() - 300).clamp(min=0)


def hooked(feature_map, before):
    if before:
        feature_map.register_forward_pre_hook(lambda module, inputs: (3 * inputs[0],))
    else:
        feature_map.register_forward_hook(lambda module, inputs, output: 3 * output)
    return feature_map


@pytest.mark.parametrize(
    "feature_map",
    [Called(), hooked(Identity(), False), hooked(CenteredAbs(torch.zeros(3)), True)],
    ids=["call", "hook", "hook before"],
)
def test_a_map_that_computes_something_else_keeps_no_constant(feature_map):
    with pytest.raises(ValueError, match="takes lipschitz from another class"):
        classifier(feature_map=feature_map).certify(X, ("l2",), "closed_form")


class Stretched(LipschitzMap):
    def forward(self, x):
        return 10 * super().forward(x)


def rotation(kind=LipschitzMap, constant=1.0) -> LipschitzMap:
    layers = nn.Sequential(nn.Linear(3, 3)).double()
    nn.init.orthogonal_(layers[0].weight)
    return kind(
        layers, lambda layers, norm: (constant, norm), lambda layers, x, norm, reach: 1e-12 * reach, (3,)
    )


def test_a_learned_map_is_certified_for_what_it_computes():
    assert (certify_through_map(classifier(feature_map=rotation()), X, ("l2",))["l2"] > 0).any()
    refused = {
        "changes its forward": rotation(Stretched),
        "takes lipschitz from another class": hooked(rotation(), False),
        "lipschitz says 0.3": rotation(constant=0.3),
    }
    for message, feature_map in refused.items():
        for certificate in ("closed_form", "refined"):
            with pytest.raises(ValueError, match=message):
                certify_through_map(classifier(feature_map=feature_map), X, ("l2",), certificate)


class Signed(nn.Module):
    def __init__(self, sign):
        super().__init__()
        self.sign = sign

    def forward(self, weight):
        return self.sign * weight.abs()


def test_weights_of_a_parametrization_are_looked_at_as_they_are_used():
    model = classifier()
    expected = model.certify(X, ("l2",))["l2"]
    parametrize.register_parametrization(model.network.hidden_layers[0], "weight", Signed(1.0))
    model.project()
    torch.testing.assert_close(model.certify(X, ("l2",))["l2"], expected)
    parametrize.register_parametrization(model.network.hidden_layers[0], "weight", Signed(-1.0))
    with pytest.raises(ValueError, match="is computed and holds -"):
        model.project()
    with pytest.raises(ValueError, match=r"layer hidden_layers\.0\.weight holds the weight -"):
        model.certify(X, ("l2",))
    with pytest.raises(ValueError, match="holds the weight -"):
        model.network.require_convex()


def test_weights_that_cannot_be_copied_are_refused_in_one_line():
    model = classifier()
    prune.l1_unstructured(model.network.hidden_layers[0], "weight", amount=0.5)
    with pytest.raises(ValueError, match=r"prune\.remove") as caught:
        model.certify(X, ("l2",))
    assert "\n" not in str(caught.value)
    prune.remove(model.network.hidden_layers[0], "weight")
    assert (model.certify(X, ("l2",))["l2"] > 0).any()
