"""No attack breaks a deterministic certificate of a trained baseline, in its native norms, on 300 real images each."""

import pytest
import torch

from bench.attacking.attacks import AttackSettings
from bench.attacking.targets import Target
from bench.basics.settings import from_table
from bench.contract import FitContext, TrainingData
from bench.data import load_dataset
from bench.methods import get_method

pytestmark = [pytest.mark.slow, pytest.mark.data]

IMAGES = 300
TRAINED_ON = 3000
ATTACK = AttackSettings(steps=25, restarts=3)
SHORT = {"epochs": 2, "batch_size": 64, "learning_rate": 3e-3}
RECIPES = {
    "crown": {"hidden": [40]},
    "ibp": {"hidden": [40], "epsilon": 0.05},
    "mtl_ibp": {"hidden": [40], "epsilon": 0.05, "attack_steps": 3},
    "crown_adversarial": {"hidden": [40], "attack_steps": 3, "slope_steps": 3},
    "alpha_beta_crown": {
        "hidden": [15],
        "attack_steps": 3,
        "domains": ["free"],
        "max_domains": 2,
        "rounds": 2,
    },
    "cayley": {"hidden": [32, 16]},
    "bro": {"network": "convnet", "width": 4, "depth": 1},
    "fcnn_learned": {
        "map_settings": {"hidden": [32, 16], "train": SHORT},
        "certificates": ["closed_form:free", "refined:free"],
    },
    "fcnn_union": {
        "members": {
            "pixels": {"method": "fcnn", "hidden": [20], "train": SHORT},
            "l2": {"method": "fcnn_learned", "map_settings": {"hidden": [32, 16], "train": SHORT}},
        },
    },
    "sll": {"hidden": [32]},
    "linear": {},
    "l1_lipschitz": {"hidden": [32, 16], "radius_target": 10.0, "train": {**SHORT, "learning_rate": 0.05}},
    "linf_distance": {"hidden": [32], "train": {**SHORT, "learning_rate": 0.05}},
    "smoothing_splitting": {"network": "mlp"},
}


@pytest.fixture(scope="module")
def mnist(data_dir):
    return load_dataset("mnist_38", data_dir)


@pytest.fixture(scope="module", params=RECIPES)
def trained(request, mnist):
    """A method after a short training, and 300 sensitive test images that it calls sensitive."""
    kind = get_method(request.param)
    table = {**({} if kind.name == "fcnn_union" else {"train": SHORT}), **RECIPES[request.param]}
    method = kind(from_table(kind.Settings, table, f"recipe of {request.param}"))
    splits = (mnist.x_train, mnist.y_train, mnist.x_val, mnist.y_val)
    data = TrainingData(*(torch.from_numpy(part)[:TRAINED_ON] for part in splits))
    method.build(mnist.input_shape, seed=0)
    method.fit(data, FitContext(seed=0))
    method.calibrate(data.x_val[:500], data.y_val[:500], seed=0)
    x = torch.from_numpy(mnist.x_test[mnist.y_test == 1])[: 2 * IMAGES]
    x = x[method.predict(x, seed=0) == 1][:IMAGES]
    assert len(x) == IMAGES
    return method, x


def targets(trained, largest=1.0):
    """What to attack: each curve in each norm it is native in, at a multiple of the radius."""
    method, x = trained
    for curve in method.curves():
        found = method.certify(x, curve, curve.native, seed=0)
        for norm, radii in found.items():
            radius = torch.as_tensor(radii.radius)
            certified = radius > 0
            assert certified.float().mean() > 0.5, f"{method.name} certifies too little in {norm}"
            yield Target(method, x[certified], largest * radius[certified], norm, curve.domain, seed=0)


def test_no_attack_succeeds_inside_a_certificate(trained):
    for target in targets(trained):
        points, _ = target.attack(ATTACK, library=IMAGES)
        broken = target.failures(points)
        broken[broken.clone()] = ~target.only_rounding(points[broken])
        assert not broken.any(), (target.method.name, target.norm)


def test_the_attacks_do_break_certificates_that_are_too_large(trained):
    """Thirty times the radius is a lie for every method; an attack that never succeeds would prove nothing."""
    method, x = trained
    for target in targets((method, x[:30]), largest=30.0):
        points, _ = target.attack(ATTACK, library=0)
        assert target.failures(points).float().mean() > 0.3, (target.method.name, target.norm)
