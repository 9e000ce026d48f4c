"""Lipschitz constants and tangent bounds of the feature maps, sampled; the documented example of an own map."""

import inspect
import math
import textwrap

import pytest
import torch

from fcnn import CenteredAbs, FeatureMap, Identity

ORDERS = {"l1": 1, "l2": 2, "linf": math.inf}
SHAPES = {"table": (7,), "image": (3, 4, 5)}


def mean_for(shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def maps(shape):
    return {
        "identity": Identity(),
        "centred": Identity(mean_for(shape)),
        "centred_abs": CenteredAbs(mean_for(shape)),
        "scalar_mean": CenteredAbs(0.5),
    }


def pairs(shape, count=400):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, *shape, generator=generator, dtype=torch.float64)
    step = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    return x, x + step * torch.logspace(-6, 1, count, dtype=torch.float64).reshape(-1, *[1] * len(shape))


@pytest.mark.parametrize("norm", ORDERS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_lipschitz_constants_hold(shape, norm):
    x, y = pairs(shape)
    before = torch.linalg.vector_norm((x - y).flatten(1), ord=ORDERS[norm], dim=1)
    for name, feature_map in maps(shape).items():
        change = (feature_map(x) - feature_map(y)).flatten(1)
        after = torch.linalg.vector_norm(change, ord=ORDERS[norm], dim=1)
        assert (after <= feature_map.lipschitz(norm) * before * (1 + 1e-9) + 1e-14).all(), name


@pytest.mark.parametrize(("norm", "constant"), [("l1", 2.0), ("l2", 2**0.5), ("linf", 1.0)])
def test_lipschitz_constant_of_centred_abs_is_attained(norm, constant):
    """Above the mean both halves move with the input, so no smaller constant would do."""
    feature_map = CenteredAbs(torch.zeros(4))
    x, y = torch.full((1, 4), 0.5), torch.full((1, 4), 0.75)
    moved = torch.linalg.vector_norm(feature_map(x) - feature_map(y), ord=ORDERS[norm])
    assert float(moved / torch.linalg.vector_norm(x - y, ord=ORDERS[norm])) == pytest.approx(
        constant, rel=1e-6
    )
    assert feature_map.lipschitz(norm) == constant


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_tangent_decrease_weights_bound_the_tangent(shape):
    x, y = pairs(shape)
    for name, feature_map in maps(shape).items():
        features = feature_map(x)
        gradient = torch.randn(
            features.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        )
        change = (gradient * (feature_map(y) - features)).flatten(1).sum(1)
        weights = feature_map.tangent_decrease_weights(gradient)
        assert weights.shape == x.flatten(1).shape and (weights >= 0).all()
        bound = (weights * (y - x).flatten(1).abs()).sum(1)
        assert (change >= -bound * (1 + 1e-9) - 1e-14).all(), name


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_tangent_decrease_weights_are_attained(shape):
    """Some perturbation of one coordinate reaches its weight: from above the mean, against both signs or one."""
    feature_map = CenteredAbs(torch.full(shape, 0.5, dtype=torch.float64))
    x = torch.full((1, *shape), 0.5, dtype=torch.float64)
    gradient = torch.randn(1, *feature_map.feature_shape(shape), dtype=torch.float64)
    on_centred, on_absolute = gradient.chunk(2, dim=1)
    # At the kink |x - mean| grows on both sides, so a positive slope there is never lost: make all negative.
    gradient = torch.cat([on_centred, -on_absolute.abs()], dim=1)
    delta = -on_centred.sign()
    change = (gradient * (feature_map(x + delta) - feature_map(x))).sum()
    weights = feature_map.tangent_decrease_weights(gradient)
    assert float(change) == pytest.approx(-float(weights.sum()), rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_features_have_the_announced_shape_and_values(shape):
    x = torch.rand(5, *shape, dtype=torch.float64)
    mean = mean_for(shape)
    for name, feature_map in maps(shape).items():
        assert feature_map(x).shape == (5, *feature_map.feature_shape(shape)), name
    assert torch.equal(Identity()(x), x)
    assert torch.equal(Identity(mean)(x), x - mean)
    assert torch.equal(CenteredAbs(mean)(x), torch.cat([x - mean, (x - mean).abs()], dim=1))


def test_the_mean_follows_the_dtype_of_the_input_and_keeps_its_own():
    feature_map = CenteredAbs(torch.full((2,), 0.1, dtype=torch.float64))
    assert feature_map(torch.rand(3, 2)).dtype == torch.float32
    assert feature_map.mean.dtype == torch.float64
    assert CenteredAbs([0, 1]).mean.dtype == torch.float32


@pytest.mark.parametrize("feature_map", [Identity(), CenteredAbs(0.5)], ids=["identity", "centred_abs"])
def test_unknown_norms_are_refused(feature_map):
    with pytest.raises(ValueError, match=r"l3.*l1.*l2.*linf"):
        feature_map.lipschitz("l3")


@pytest.mark.parametrize("kind", [Identity, CenteredAbs])
def test_means_that_do_not_fit_are_refused(kind):
    for mean_shape, x_shape in [((784,), (2, 1, 28, 28)), ((2, 1, 3), (4, 3)), ((3,), (3,)), ((3,), (2, 1))]:
        with pytest.raises(ValueError, match="do not fit"):
            kind(torch.zeros(mean_shape))(torch.zeros(x_shape))
    with pytest.raises(ValueError, match="not finite"):
        kind([0.0, float("nan")])


def test_the_documented_example_of_an_own_map_works():
    source = textwrap.dedent(inspect.getdoc(FeatureMap).split("::\n")[1].split("\n\nA constant")[0])
    scope = {"torch": torch, "FeatureMap": FeatureMap}
    exec(source, scope)
    mixing = scope["Mixing"](6).double()
    x, y = pairs((6,))
    change = torch.linalg.vector_norm(mixing(x) - mixing(y), dim=1)
    ratio = change / torch.linalg.vector_norm(x - y, dim=1)
    assert 0.5 * mixing.lipschitz("l2") < ratio.max() <= mixing.lipschitz("l2") * (1 + 1e-8)
    assert list(mixing.parameters()) and mixing.tangent_decrease_weights(x) is None
    with pytest.raises(ValueError, match="choose l2"):
        mixing.lipschitz("l1")
