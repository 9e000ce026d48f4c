"""Unions of feature-convex detectors: any member's yes, the largest radius, thresholds that move together."""

import pytest
import torch
from torch import Tensor

from bench.basics.errors import UsageError
from bench.calibration import OperatingPoint
from bench.contract import NORMS, FitContext, TrainingData
from bench.methods.fcnn_union import FCNNUnion, FCNNUnionSettings

SHORT = {"epochs": 6, "batch_size": 16, "learning_rate": 0.02}
MEMBERS = {
    "pixels": {"method": "fcnn", "hidden": [8], "radius_targets": {"l1": 4.0}, "train": SHORT},
    "l2": {
        "method": "fcnn_learned",
        "map_settings": {"hidden": [12, 8], "train": SHORT},
        "train": {**SHORT, "epochs": 2},
    },
    "linf": {
        "method": "fcnn_learned",
        "feature_map": "linf_distance",
        "map_settings": {"hidden": [12], "train": {**SHORT, "learning_rate": 0.1}},
        "head": "max_affine",
        "margin": 0.1,
        "radius_target": 0.4,
        "train": {**SHORT, "epochs": 2},
    },
}


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Bright or dark upper halves, a tenth of them mislabelled so that recalls are a matter of thresholds."""
    generator = torch.Generator().manual_seed(seed)
    y = (torch.arange(count) % 2).float()
    x = 0.6 * torch.rand((count, 1, 6, 6), generator=generator)
    x[:, :, :3] += 0.3 * y[:, None, None, None]
    return x, torch.where(torch.rand(count, generator=generator) < 0.1, 1 - y, y)


@pytest.fixture(scope="module", params=["closed_form:free", "refined:free"])
def union(request) -> FCNNUnion:
    method = FCNNUnion(FCNNUnionSettings(members=MEMBERS, certificate=request.param))
    method.build((1, 6, 6), seed=1)
    method.fit(TrainingData(*images(120, seed=0), *images(100, seed=1)), FitContext(seed=2))
    method.calibrate(*images(100, seed=1), seed=3)
    return method


def radii(method, x: Tensor) -> dict[str, Tensor]:
    found = method.certify(x, method.curves()[0], NORMS, seed=0)
    return {norm: torch.as_tensor(found[norm].radius) for norm in NORMS}


def test_sensitive_if_any_member_says_so_with_the_largest_radius(union):
    x, _ = images(80, seed=4)
    predicted, found = union.predict(x, seed=0), radii(union, x)
    members = list(union.members.values())
    # The members are left at the thresholds that the union gave them.
    votes = torch.stack([member.predict(x, seed=0) for member in members])
    assert torch.equal(predicted, votes.amax(dim=0)) and (votes.amin(dim=0) != votes.amax(dim=0)).any()
    own = [radii(member, x) for member in members]
    for norm in NORMS:
        assert torch.equal(found[norm], torch.stack([each[norm] for each in own]).amax(dim=0))
        assert ((found[norm] > 0) <= (predicted == 1)).all()
    best = {norm: torch.stack([each[norm] for each in own]).argmax(dim=0)[predicted == 1] for norm in NORMS}
    assert len({int(index) for norm in NORMS for index in best[norm]}) > 1, "one member would do"


def test_scores_and_predictions_agree_at_every_operating_point(union):
    x, y = images(100, seed=1)
    shares = []
    for point in ("balanced", "other_recall=0.8", "other_recall=0.9", "other_recall=0.96"):
        union.calibrate(x, y, seed=3, point=OperatingPoint.parse(point))
        predicted = union.predict(x, seed=0)
        scores = union.decision_range(x, seed=0)[0]
        assert torch.equal(predicted == 1, scores > 0)
        torch.testing.assert_close(union.score(x).double(), scores, rtol=1e-4, atol=1e-4)
        shares.append((predicted[y < 0.5] == 0).double().mean().item())
    assert shares[1:] == pytest.approx([0.8, 0.9, 0.96], abs=0.025)


def test_radii_are_those_of_the_unions_threshold_whatever_was_asked_before(union):
    """Scores are taken with the members' thresholds at 0: certificates must set them anew."""
    x, _ = images(40, seed=7)
    union.predict(x, seed=0)
    after_predicting = radii(union, x)
    union.decision_range(x, seed=0)
    for norm, radius in radii(union, x).items():
        assert torch.equal(radius, after_predicting[norm]) and (radius > 0).any()


def test_no_attack_succeeds_inside_a_radius(union):
    x, _ = images(80, seed=5)
    x = x[union.predict(x, seed=0) == 1]
    for norm, radius in radii(union, x).items():
        for generator_seed in range(20):
            step = torch.randn(x.shape, generator=torch.Generator().manual_seed(generator_seed)).double()
            gradient = slope(union, x)
            step = step if generator_seed else -gradient
            moved = x.double() + scaled(step, radius * (1 - 1e-9), norm)
            assert (union.predict(moved, seed=0) == 1).all(), norm


def slope(union: FCNNUnion, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(union.score(x).sum(), x)
    return gradient.double()


def scaled(step: Tensor, radius: Tensor, norm: str) -> Tensor:
    """Steps (N, *shape) of that length, in linf to a corner and in l1 along one coordinate."""
    flat = step.flatten(1)
    if norm == "linf":
        flat = flat.sign()
    if norm == "l1":
        flat = torch.nn.functional.one_hot(flat.abs().argmax(1), flat.shape[1]) * flat.sign()
    length = torch.linalg.vector_norm(flat, {"l1": 1, "l2": 2, "linf": torch.inf}[norm], dim=1, keepdim=True)
    return (flat / length * radius[:, None]).view_as(step)


def test_a_state_restores_predictions_and_radii_bit_for_bit(union):
    other = FCNNUnion(union.settings)
    other.build((1, 6, 6), seed=9)
    other.load_state(union.state())
    x, _ = images(40, seed=6)
    assert torch.equal(union.predict(x, seed=0), other.predict(x, seed=0))
    for norm, radius in radii(union, x).items():
        assert torch.equal(radius, radii(other, x)[norm])


def test_norms_are_native_where_a_member_s_are():
    learned = {"l2": MEMBERS["l2"], "linf": MEMBERS["linf"]}
    assert FCNNUnion(FCNNUnionSettings(members=learned)).curves()[0].native == ("l2", "linf")
    assert FCNNUnion(FCNNUnionSettings(members=MEMBERS)).curves()[0].native == NORMS


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({}, "members is empty"),
        ({"a": {"hidden": [8]}}, 'give a table with method = "fcnn"'),
        ({"a": {"method": "cayley"}}, "cayley"),
        ({"a": {"method": "fcnn", "hiden": [8]}}, "members.a: unknown key 'hiden'"),
    ],
)
def test_members_are_checked_like_any_settings(members, named):
    with pytest.raises((UsageError, ValueError), match=named):
        FCNNUnionSettings(members=members)
