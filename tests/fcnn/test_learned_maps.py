"""Learned feature maps from one norm to another: radii against exact ones, attacks, and what is refused."""

import math

import pytest
import torch
from torch import Tensor, nn

from fcnn import ConvexMLP, FeatureConvexClassifier
from fcnn.checkpoints import save_classifier
from fcnn.feature_maps import CenteredAbs, Identity
from fcnn.heads import MaxAffine, start_affine
from fcnn.learned_maps import LipschitzMap, certify_through_map
from fcnn.losses import score_and_gradient, signed_radius

ORDER = {"l1": 1.0, "l2": 2.0, "linf": math.inf}
SHAPE = (5,)


def from_l1_to_linf(layers: nn.Module, norm: str) -> tuple[float, str]:
    """Constants of a linear layer from l1 to linf; of one with a ReLU behind it too."""
    if norm != "l1":
        raise ValueError(f"no constant in {norm}")
    return layers[0].weight.detach().abs().max().item(), "linf"


def no_rounding(layers: nn.Module, x: Tensor, norm: str, reach: Tensor) -> Tensor:
    return torch.full_like(reach, 1e-13)


def in_l2(layers: nn.Module, norm: str) -> tuple[float, str]:
    return torch.linalg.matrix_norm(layers[0].weight.detach().double(), ord=2).item() * (1 + 1e-9), "l2"


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def classifier(head: nn.Module, constants) -> FeatureConvexClassifier:
    layers = nn.Sequential(nn.Linear(5, 7), nn.ReLU())
    model = FeatureConvexClassifier(head, LipschitzMap(layers, constants, no_rounding, SHAPE)).double()
    model.threshold += model.score(torch.rand(50, *SHAPE)).median().detach()  # half are sensitive
    return model


def heads() -> dict[str, nn.Module]:
    return {"icnn": ConvexMLP(7, (6,), hidden_init=0.5), "max_affine": MaxAffine(7, 4)}


@pytest.mark.parametrize("head", heads())
@pytest.mark.parametrize(("constants", "norm", "dual"), [(from_l1_to_linf, "l1", 1), (in_l2, "l2", 2)])
def test_the_closed_form_divides_by_the_constant_and_the_dual_of_the_norm_the_map_lands_in(
    head, constants, norm, dual
):
    model = classifier(heads()[head], constants)
    x = torch.rand(40, *SHAPE, dtype=torch.float64)
    features = model.feature_map(x).detach().requires_grad_()
    score = model.network(features) - model.threshold
    (gradient,) = torch.autograd.grad(score.sum(), features)
    constant = constants(model.feature_map.layers, norm)[0]
    expected = score.detach().clamp(min=0) / (constant * torch.linalg.vector_norm(gradient, dual, dim=1))
    found = certify_through_map(model, x, [norm])[norm]
    assert (found > 0).any() and (found <= expected).all()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("head", heads())
@pytest.mark.parametrize(("constants", "norm"), [(from_l1_to_linf, "l1"), (in_l2, "l2")])
def test_the_classifier_s_own_certificates_use_the_norm_the_map_lands_in(head, constants, norm):
    model = classifier(heads()[head], constants)
    x = torch.rand(40, *SHAPE, dtype=torch.float64)
    closed, refined = (
        model.certify(x, [norm], certificate)[norm] for certificate in ("closed_form", "refined")
    )
    torch.testing.assert_close(closed, certify_through_map(model, x, [norm])[norm], rtol=1e-6, atol=1e-7)
    assert (closed <= refined).all() and (closed > 0).any()


def test_a_constant_that_is_too_small_between_two_norms_is_found_out():
    def halved(layers: nn.Module, norm: str) -> tuple[float, str]:
        return 0.5 * from_l1_to_linf(layers, norm)[0], "linf"

    with pytest.raises(ValueError, match=r"LipschitzMap stretches a step by .* in l1 to linf"):
        classifier(ConvexMLP(7, (6,)), halved).certify(torch.rand(4, *SHAPE), ["l1"])


def test_training_aims_at_the_radius_from_norm_to_norm():
    model = classifier(ConvexMLP(7, (6,), hidden_init=0.5), from_l1_to_linf)
    x = torch.rand(20, *SHAPE, dtype=torch.float64)
    score, gradient = score_and_gradient(model, x)
    radius = signed_radius(model, score, gradient, "l1").detach()
    certified = certify_through_map(model, x, ["l1"])["l1"]
    torch.testing.assert_close(radius.clamp(min=0), certified, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("head", heads())
@pytest.mark.parametrize("certificate", ["closed_form", "refined"])
def test_no_point_inside_a_radius_is_rejected(head, certificate):
    for norm, constants in (("l1", from_l1_to_linf), ("l2", in_l2)):
        model = classifier(heads()[head], constants)
        x = torch.rand(60, *SHAPE, dtype=torch.float64)
        radius = certify_through_map(model, x, [norm], certificate)[norm]
        x, radius = x[radius > 0], radius[radius > 0]
        assert len(x) > 10
        lowest = descend(model, x, radius, norm)
        assert (lowest > 0).all()
        assert (descend(model, x, 30 * radius, norm) <= 0).any(), "an attack that never succeeds says nothing"


def descend(model: FeatureConvexClassifier, x: Tensor, radius: Tensor, norm: str) -> Tensor:
    """The lowest score (N,) met by steepest descent in the balls."""
    delta, lowest = torch.zeros_like(x), model.score(x).detach()
    for step in range(60):
        delta = delta.detach().requires_grad_()
        score = model.score(x + delta)
        lowest = torch.minimum(lowest, score.detach())
        (slope,) = torch.autograd.grad(score.sum(), delta)
        if norm == "l1":
            direction = nn.functional.one_hot(slope.abs().argmax(1), x.shape[1]) * slope.sign()
        else:
            direction = slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-12)
        delta = delta.detach() - radius[:, None] * direction / (1 + step / 4)
        length = torch.linalg.vector_norm(delta, ORDER[norm], dim=1)
        delta = delta * (radius / length.clamp_min(1e-12)).clamp(max=1)[:, None]
    return lowest


def test_refined_is_the_distance_in_feature_space():
    """Behind an isometry the exact distance from a polyhedron's complement is known where one piece counts."""
    layers = nn.Sequential(nn.Linear(5, 5, bias=False))
    nn.init.eye_(layers[0].weight)
    head = MaxAffine(5, 2)
    with (
        torch.no_grad()
    ):  # max(z_0, z_1) <= 0 is a corner: its distance is that to the corner, not to either plane
        head.affine.weight.copy_(torch.eye(5)[:2])
        head.affine.bias.zero_()
    model = FeatureConvexClassifier(head, LipschitzMap(layers, in_l2, no_rounding, SHAPE)).double()
    x = torch.rand(20, *SHAPE, dtype=torch.float64) + 0.1
    found = certify_through_map(model, x, ["l2"], "refined")["l2"]
    exact = x[:, :2].norm(dim=1)
    assert (found <= exact).all()
    torch.testing.assert_close(found, exact, rtol=2e-2, atol=0)
    assert (certify_through_map(model, x, ["l2"])["l2"] < 0.95 * exact).any()


@pytest.mark.parametrize("hidden", [(), (6,), (6, 4)])
def test_heads_start_as_the_affine_function_they_are_given(hidden):
    z, weight, bias = torch.randn(30, 7), torch.randn(7), torch.tensor(0.3)
    for head in (ConvexMLP(7, hidden), MaxAffine(7, 3)):
        start_affine(head, weight, bias)
        torch.testing.assert_close(head(z), z @ weight + bias)
        assert head.convexity_gap(torch.randn(50, 7), torch.randn(50, 7)) < 1e-9
    with pytest.raises(ValueError, match="passthrough"):
        start_affine(ConvexMLP(7, (6,), passthrough=False), weight, bias)


def test_max_affine_is_convex_and_refuses_other_features():
    head = MaxAffine(7, 4)
    assert head.convexity_gap(5 * torch.randn(200, 7), 5 * torch.randn(200, 7)) < 1e-9
    assert head.settings() == {"in_features": 7, "pieces": 4}
    with pytest.raises(ValueError, match="expected \\(7,\\)"):
        head.floats_per_input((8,))
    with pytest.raises(ValueError, match="pieces = 0"):
        MaxAffine(7, 0)


def test_a_map_is_asked_only_for_the_norm_it_lands_in_and_for_its_own_inputs():
    feature_map = LipschitzMap(nn.Sequential(nn.Linear(5, 7), nn.ReLU()), from_l1_to_linf, no_rounding, SHAPE)
    assert feature_map.lands_in("l1") == "linf"
    assert feature_map.lipschitz("l1", to="linf") == feature_map.layers[0].weight.abs().max()
    with pytest.raises(ValueError, match="to='linf'"):
        feature_map.lipschitz("l1")
    with pytest.raises(ValueError, match="no constant in l2"):
        feature_map.lipschitz("l2", to="l2")
    assert feature_map.feature_shape(SHAPE) == (7,)
    with pytest.raises(ValueError, match="built for"):
        feature_map.feature_shape((6,))


@pytest.mark.parametrize("kind", [Identity, CenteredAbs])
@pytest.mark.parametrize("norm", ORDER)
@pytest.mark.parametrize("to", ORDER)
def test_constants_of_the_plain_maps_from_norm_to_norm(kind, norm, to):
    feature_map = kind(torch.full(SHAPE, 0.5, dtype=torch.float64))
    if list(ORDER).index(to) < list(ORDER).index(norm):
        with pytest.raises(ValueError, match="without the dimension"):
            feature_map.lipschitz(norm, to=to)
        return
    x, y = torch.rand(2, 2000, *SHAPE, dtype=torch.float64)
    y = torch.where(torch.rand(2000, 5) < 0.5, x, y)  # few coordinates change: norms differ little then
    after = torch.linalg.vector_norm(feature_map(x) - feature_map(y), ORDER[to], dim=1)
    before = torch.linalg.vector_norm(x - y, ORDER[norm], dim=1)
    constant = feature_map.lipschitz(norm, to=to)
    assert (after <= constant * before * (1 + 1e-12)).all()
    assert (after >= 0.95 * constant * before)[before > 0].any()


def test_a_checkpoint_of_a_learned_map_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="keep the run that trained it"):
        save_classifier(classifier(MaxAffine(7, 2), in_l2), tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_layers_whose_numbers_cancel_are_held_against_their_constant_up_to_their_own_rounding():
    """Offsets of 1e12 that the next layer takes back leave features of size 1 with an error of 1e-4."""

    class Detour(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.flatten(1) + 1e12) - 1e12

    def rounding(layers: nn.Module, x: Tensor, norm: str, reach: Tensor) -> Tensor:
        return torch.full_like(reach, 1e12 * 2.0**-52 * 7)

    def model(rounding) -> FeatureConvexClassifier:
        learned = LipschitzMap(Detour(), lambda layers, norm: (1.0, norm), rounding, SHAPE)
        return FeatureConvexClassifier(ConvexMLP(learned.features, (4,)), learned).double().eval()

    x = torch.rand(4, *SHAPE, dtype=torch.float64)
    assert set(certify_through_map(model(rounding), x, ["l1", "l2", "linf"])) == {"l1", "l2", "linf"}
    with pytest.raises(ValueError, match="stretches a step"):
        certify_through_map(model(lambda layers, x, norm, reach: torch.zeros_like(reach)), x, ["linf"])
