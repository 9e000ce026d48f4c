"""The registered Lipschitz methods: training through the harness's loop, states, recipes, results on MNIST 3-8."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from baselines.lipschitz import lipschitz_bound
from bench import load_dataset
from bench.contract import FitContext, Method, TrainingData
from bench.methods.bro import BRO, BROSettings
from bench.methods.cayley import Cayley, CayleySettings
from bench.methods.l1_lipschitz import L1Lipschitz, L1LipschitzSettings
from bench.methods.linf_distance import LinfDistance, LinfDistanceSettings
from bench.methods.sll import SLL, SLLSettings
from fcnn.training import TrainSettings

SHORT = TrainSettings(epochs=3, batch_size=16, learning_rate=0.01)
RECIPES = {
    "cayley-mlp": lambda: Cayley(CayleySettings(hidden=(8,), train=SHORT)),
    "cayley-convnet": lambda: Cayley(CayleySettings(network="convnet", width=2, train=SHORT)),
    "cayley-resnet9": lambda: Cayley(CayleySettings(network="resnet9", width=1, train=SHORT)),
    "bro-mlp": lambda: BRO(BROSettings(turned=(8,), train=SHORT)),
    "bro-convnet": lambda: BRO(BROSettings(network="convnet", width=2, depth=1, train=SHORT)),
    "sll-mlp": lambda: SLL(SLLSettings(hidden=(8,), train=SHORT)),
    "sll-convnet": lambda: SLL(SLLSettings(network="convnet", width=4, depth=1, train=SHORT)),
    "linf_distance": lambda: LinfDistance(LinfDistanceSettings(hidden=(8,), train=SHORT)),
    "l1_lipschitz": lambda: L1Lipschitz(L1LipschitzSettings(hidden=(8, 4), radius_target=3.0, train=SHORT)),
}


def images(count: int = 48) -> tuple[Tensor, Tensor]:
    y = (torch.arange(count) % 2).float()
    x = 0.5 * torch.rand((count, 1, 6, 6), generator=torch.Generator().manual_seed(0))
    return x + 0.5 * y[:, None, None, None], y


def fitted(method: Method) -> Method:
    x, y = images()
    method.build((1, 6, 6), seed=1)
    method.fit(TrainingData(x, y, x, y), FitContext(seed=2))
    method.calibrate(x, y, seed=3)
    return method


def native_radii(method: Method, x: Tensor) -> Tensor:
    norm = method.native_norm
    return torch.as_tensor(method.certify(x, method.curves()[0], [norm], seed=0)[norm].radius)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_state_restores_scores_and_radii_bit_for_bit(recipe):
    method, other = fitted(RECIPES[recipe]()), RECIPES[recipe]()
    other.build((1, 6, 6), seed=9)
    other.load_state(method.state())
    x, _ = images()
    assert method.score(x).dtype == torch.float64
    assert torch.equal(method.score(x), other.score(x))
    assert torch.equal(native_radii(method, x), native_radii(other, x))
    assert (native_radii(method, x) > 0).any()


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_radius_is_the_score_the_prediction_uses(recipe):
    method = fitted(RECIPES[recipe]())
    x, _ = images()
    score, radius = method.score(x).detach(), native_radii(method, x)
    assert torch.equal(radius > 0, method.predict(x, seed=0) == 1)
    assert (radius <= score.clamp_min(0)).all()
    torch.testing.assert_close(radius, score.clamp_min(0), rtol=1e-8, atol=1e-8)


def test_training_ends_with_the_exact_distance_whatever_the_schedule():
    method = fitted(LinfDistance(LinfDistanceSettings(hidden=(8,), relaxed=1.0, train=SHORT)))
    assert lipschitz_bound(method.model.body, "linf") == 1


class Interrupted(LinfDistance):
    """Stops in the middle of the second of the three epochs, as a killed run does."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, done: float) -> Tensor:
        if done > 0.5:
            raise KeyboardInterrupt
        return super().loss(model, x, y, done)


def test_an_interrupted_training_ends_with_the_same_network(tmp_path):
    whole = fitted(RECIPES["linf_distance"]())
    x, y = images()
    data, context = TrainingData(x, y, x, y), FitContext(seed=2, checkpoint=tmp_path / "state")
    cut = Interrupted(whole.settings)
    cut.build((1, 6, 6), seed=1)
    with pytest.raises(KeyboardInterrupt):
        cut.fit(data, context)
    assert context.checkpoint.exists()
    resumed = LinfDistance(whole.settings)
    resumed.build((1, 6, 6), seed=77)
    resumed.fit(data, context)
    resumed.calibrate(x, y, seed=3)
    assert torch.equal(whole.score(x), resumed.score(x))


@pytest.mark.parametrize("wrong", [{"p_start": 1.0}, {"p_end": 4.0}, {"relaxed": 0.0}])
def test_impossible_schedules_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(LinfDistanceSettings(), **wrong)


@pytest.mark.parametrize("wrong", [{"margin": 0.0}, {"radius_target": -1.0}, {"radius_weight": float("nan")}])
def test_impossible_losses_are_refused(wrong):
    for settings in (CayleySettings, SLLSettings, L1LipschitzSettings, LinfDistanceSettings):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            settings(**wrong)


def test_shifts_and_a_radius_target_change_what_is_trained():
    plain = fitted(RECIPES["sll-mlp"]())
    for train, target in ((replace(SHORT, crop_padding=1), 0.0), (SHORT, 2.0)):
        other = fitted(SLL(SLLSettings(hidden=(8,), radius_target=target, train=train)))
        assert not torch.equal(plain.model.body[2].raw, other.model.body[2].raw)


MNIST_TRAIN = TrainSettings(epochs=3, batch_size=128)
MNIST_RECIPES = {
    "cayley-mlp": lambda: Cayley(CayleySettings(margin=1.0, train=MNIST_TRAIN)),
    "cayley-convnet": lambda: Cayley(
        CayleySettings(network="convnet", width=8, train=replace(MNIST_TRAIN, epochs=2))
    ),
    "sll-mlp": lambda: SLL(SLLSettings(margin=1.0, train=replace(MNIST_TRAIN, learning_rate=2e-3))),
    "linf_distance": lambda: LinfDistance(
        LinfDistanceSettings(train=replace(MNIST_TRAIN, epochs=8, learning_rate=0.05))
    ),
}


@pytest.fixture(scope="module")
def mnist_methods(data_dir: Path) -> dict[str, Method]:
    """The methods trained on MNIST 3-8, each in its short recipe."""
    data = load_dataset("mnist_38", data_dir)
    splits = [torch.as_tensor(part) for part in (data.x_train, data.y_train, data.x_val, data.y_val)]
    methods = {}
    for name, recipe in MNIST_RECIPES.items():
        method = recipe()
        method.build(data.input_shape, seed=0)
        method.fit(TrainingData(*splits), FitContext(seed=0))
        method.calibrate(splits[2], splits[3], seed=0)
        methods[name] = method
    return methods


@pytest.fixture(scope="module")
def mnist_test(data_dir: Path) -> tuple[Tensor, Tensor]:
    data = load_dataset("mnist_38", data_dir)
    return torch.as_tensor(data.x_test), torch.as_tensor(data.y_test)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", MNIST_RECIPES)
def test_recall_on_mnist(name, mnist_methods, mnist_test):
    x, y = mnist_test
    predicted = mnist_methods[name].predict(x, seed=0)
    for label in (0, 1):
        assert (predicted[y == label] == label).double().mean() >= 0.97


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ["cayley-mlp", "cayley-convnet", "sll-mlp"])
def test_singular_values_of_the_jacobian_on_mnist(name, mnist_methods, mnist_test):
    model = mnist_methods[name].model
    x = mnist_test[0][:200].double()
    for function in (model.body, model.body[:-1]) if name != "sll-mlp" else (model.body,):
        largest = torch.linalg.matrix_norm(jacobians(function, x), ord=2)
        assert largest.max() <= 1 + 1e-5


def jacobians(function, x: Tensor) -> Tensor:
    """(N, outputs, d), one backward pass per output."""
    x = x.clone().requires_grad_()
    outputs = function(x).flatten(1)
    rows = [
        torch.autograd.grad(outputs[:, k].sum(), x, retain_graph=True)[0] for k in range(outputs.shape[1])
    ]
    return torch.stack(rows, dim=1).flatten(2)


@pytest.mark.slow
@pytest.mark.data
def test_linf_distance_net_moves_by_at_most_the_distance_on_mnist(mnist_methods, mnist_test):
    method, images = mnist_methods["linf_distance"], mnist_test[0]
    generator = torch.Generator().manual_seed(0)
    first = images[torch.randint(len(images), (10_000,), generator=generator)].double()
    second = images[torch.randint(len(images), (10_000,), generator=generator)].double()
    # From nearly equal to unrelated images, with noise on half of the pairs.
    share = torch.rand(10_000, 1, 1, 1, generator=generator).double() ** 2
    noise = torch.rand(second.shape, generator=generator).double() - 0.5
    noise[::2] = 0
    second = first + share * (second - first + noise)
    with torch.no_grad():
        change = torch.cat([method.score(x) for x in first.split(500)])
        change -= torch.cat([method.score(x) for x in second.split(500)])
    distance = (first - second).flatten(1).abs().amax(dim=1)
    assert math.isfinite(distance.max()) and (change.abs() <= distance * (1 + 1e-12)).all()
