"""Feature-convex networks on learned maps: never below the map's own network, restored bit by bit, attacked."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.basics.errors import UsageError
from bench.basics.settings import from_table
from bench.contract import FitContext, TrainingData
from bench.methods.fcnn_learned import FCNNLearned, FCNNLearnedSettings
from fcnn.training import TrainSettings

SHORT = TrainSettings(epochs=4, batch_size=16, learning_rate=0.01)
FIRST = {"epochs": 5, "batch_size": 16, "learning_rate": 0.02}
LONG_STEPS = {**FIRST, "learning_rate": 0.1}
CERTIFICATES = ("closed_form:free", "refined:free")
RECIPES = {
    "cayley": {"map_settings": {"hidden": [12, 8], "train": FIRST}, "head": "icnn"},
    "bro": {"map_settings": {"turned": [12], "train": FIRST}, "head": "max_affine"},
    "sll": {"map_settings": {"hidden": [12], "train": FIRST}, "head": "max_affine"},
    "linf_distance": {
        "map_settings": {"hidden": [12], "train": LONG_STEPS},
        "head": "max_affine",
        "margin": 0.1,
        "radius_target": 0.4,
    },
    "l1_lipschitz": {
        "map_settings": {"hidden": [12, 8], "margin": 2.0, "train": LONG_STEPS},
        "head": "icnn",
        "margin": 1.0,
        "radius_target": 6.0,
    },
    "cayley-convnet": {
        "map_settings": {"network": "convnet", "width": 2, "train": FIRST},
        "head": "max_affine",
    },
}


def images(count: int = 80, seed: int = 0) -> tuple[Tensor, Tensor]:
    y = (torch.arange(count) % 2).float()
    x = 0.6 * torch.rand((count, 1, 6, 6), generator=torch.Generator().manual_seed(seed))
    x[:, :, :3] += 0.4 * y[:, None, None, None]
    return x, y


def method_of(name: str, **changes) -> FCNNLearned:
    table = {
        "feature_map": name.split("-")[0],
        "train": {"epochs": 4, "batch_size": 16, "learning_rate": 0.01},
    }
    table |= {"certificates": CERTIFICATES, **RECIPES[name]}
    return FCNNLearned(replace(from_table(FCNNLearnedSettings, table, name), **changes))


def fitted(method: FCNNLearned) -> FCNNLearned:
    (x, y), (x_val, y_val) = images(), images(60, seed=1)
    method.build((1, 6, 6), seed=1)
    method.fit(TrainingData(x, y, x_val, y_val), FitContext(seed=2))
    method.calibrate(x_val, y_val, seed=3)
    return method


def radii(method: FCNNLearned, x: Tensor, norm: str, curve: int = 0) -> Tensor:
    return torch.as_tensor(method.certify(x, method.curves()[curve], [norm], seed=0)[norm].radius)


@pytest.fixture(scope="module", params=RECIPES)
def trained(request) -> FCNNLearned:
    return fitted(method_of(request.param))


def sensitive(method: FCNNLearned) -> Tensor:
    x, y = images(60, seed=4)
    x = x[(method.predict(x, seed=0) == 1) & (y > 0.5)]
    assert len(x) > 20
    return x


def test_no_attack_succeeds_inside_the_radii_of_the_norm_it_is_made_for(trained):
    x, norm = sensitive(trained), trained.curves()[0].native[0]
    for curve in (0, 1):
        radius = radii(trained, x, norm, curve)
        assert (radius > 0).all()
        assert (descend(trained, x, radius, norm) > 0).all()
    assert (descend(trained, x, 10 * radius, norm) <= 0).any(), "an attack that never succeeds says nothing"


def descend(method: FCNNLearned, x: Tensor, radius: Tensor, norm: str) -> Tensor:
    """The lowest score (N,) met by steepest descent in the balls."""
    x = x.double()
    delta, lowest = torch.zeros_like(x), method.score(x).detach()
    radius = radius[:, None, None, None]
    for step in range(60):
        delta = delta.detach().requires_grad_()
        score = method.score(x + delta)
        lowest = torch.minimum(lowest, score.detach())
        (slope,) = torch.autograd.grad(score.sum(), delta)
        flat = slope.flatten(1)
        direction = {
            "l1": torch.nn.functional.one_hot(flat.abs().argmax(1), flat.shape[1]) * flat.sign(),
            "l2": flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-12),
            "linf": flat.sign(),
        }[norm].view_as(slope)
        delta = delta.detach() - radius * direction / (1 + step / 4)
        order = {"l1": 1.0, "l2": 2.0, "linf": math.inf}[norm]
        length = torch.linalg.vector_norm(delta.flatten(1), order, dim=1)[:, None, None, None]
        delta = delta * (radius / length.clamp_min(1e-12)).clamp(max=1)
    return lowest


def test_the_refined_radius_is_no_smaller_and_converted_ones_follow_the_norms(trained):
    x, native = sensitive(trained), trained.curves()[0].native[0]
    closed = {norm: radii(trained, x, norm) for norm in ("l1", "l2", "linf")}
    assert (radii(trained, x, native, 1) >= closed[native] * (1 - 1e-9)).all()
    assert (closed["l1"] >= closed["l2"]).all() and (closed["l2"] >= closed["linf"]).all()
    assert (closed["linf"] >= closed["l1"] / 36 * (1 - 1e-9)).all()


def test_a_state_restores_scores_and_radii_bit_for_bit(trained):
    other = FCNNLearned(trained.settings)
    other.build((1, 6, 6), seed=9)
    other.load_state(trained.state())
    x, norm = images(30, seed=5)[0], trained.curves()[0].native[0]
    assert torch.equal(trained.score(x), other.score(x))
    assert torch.equal(radii(trained, x, norm), radii(other, x, norm))


@pytest.mark.parametrize("name", ["cayley", "l1_lipschitz", "linf_distance"])
def test_training_the_head_never_ends_below_the_maps_own_network(name):
    """A head that is trained for the wrong labels leaves the start, which scores as the Lipschitz network does."""

    class Ruined(FCNNLearned):
        def loss(self, model, x, y, done):
            return super().loss(model, x, 1 - y, done)

    ruined = fitted(Ruined(method_of(name, train=replace(SHORT, learning_rate=0.3)).settings))
    base = ruined.settings.map_method(torch.device("cpu"))
    x, y = images()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        base.model = base.network((1, 6, 6))
    base.fit(TrainingData(x, y, x, y), FitContext(seed=2))
    found, expected = ruined.score(x) + ruined.model.threshold, base.score(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_what_is_kept_is_judged_at_both_operating_points():
    """On a line: the balanced threshold is 0.75, that for nine of ten 0.85, the median sensitive input 1.25."""
    others, sensitive_ones = torch.arange(10) / 10, torch.tensor([0.65, 0.95, 1.25, 1.55, 1.85])
    x, y = torch.cat([others, sensitive_ones])[:, None].double(), torch.cat([torch.zeros(10), torch.ones(5)])
    method = method_of("cayley", kept_recall=0.9)
    method.use_linear(torch.tensor([1.0], dtype=torch.float64), bias=0.0)
    method.dual_order = 2.0
    judged = method._validation_radius(TrainingData(x, y, x, y))
    assert judged == pytest.approx(math.sqrt((1.25 - 0.75) * (1.25 - 0.85)))


def test_an_interrupted_training_ends_with_the_same_network(tmp_path):
    class Interrupted(FCNNLearned):
        def loss(self, model, x, y, done):
            if done > 0.5:
                raise KeyboardInterrupt
            return super().loss(model, x, y, done)

    whole, (x, y), (x_val, y_val) = fitted(method_of("l1_lipschitz")), images(), images(60, seed=1)
    data, context = TrainingData(x, y, x_val, y_val), FitContext(seed=2, checkpoint=tmp_path / "state")
    cut = Interrupted(whole.settings)
    cut.build((1, 6, 6), seed=1)
    with pytest.raises(KeyboardInterrupt):
        cut.fit(data, context)
    resumed = FCNNLearned(whole.settings)
    resumed.build((1, 6, 6), seed=77)
    resumed.fit(data, context)
    resumed.calibrate(x_val, y_val, seed=3)
    assert torch.equal(whole.score(x), resumed.score(x))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"map_settings": {"margn": 1.0}}, "margn"),
        ({"radius_target": 0.0}, "radius_target"),
        ({"kept_recall": 1.0}, "kept"),
    ],
)
def test_settings_of_the_map_are_checked_like_any_others(wrong, named):
    with pytest.raises((UsageError, ValueError), match=named):
        FCNNLearnedSettings(**wrong)


def test_the_copy_that_is_certified_stays_until_a_weight_changes(trained):
    x = images(4)[0]
    before = trained.model.kept()
    trained.predict(x, seed=0)
    radii(trained, x, "l2")
    assert trained.model.kept() is before
    with torch.no_grad():
        next(trained.model.feature_map.parameters()).mul_(1.0000001)
    assert trained.model.kept() is not before
