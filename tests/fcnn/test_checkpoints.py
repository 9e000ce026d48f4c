"""Checkpoints: what is loaded equals what was saved bit for bit, and damaged files are refused in one line."""

import json

import pytest
import torch

from fcnn import CenteredAbs, ConvexConvNet, ConvexMLP, FeatureConvexClassifier, FeatureMap, Identity
from fcnn.checkpoints import load_classifier, save_classifier, settings_path
from fcnn.heads import MaxAffine


class Scaled(FeatureMap):
    """A user's own map with a parameter."""

    def __init__(self, size):
        super().__init__()
        self.size = size
        self.factor = torch.nn.Parameter(torch.rand(size))

    def forward(self, x):
        return self.factor * x

    def lipschitz(self, norm):
        return float(self.factor.abs().max())

    def feature_shape(self, input_shape):
        return tuple(input_shape)

    def settings(self):
        return {"size": self.size}


def conv_classifier():
    network = ConvexConvNet(6, 4, 2, first_kernel=5, passthrough=True)
    network.train()(torch.rand(9, 6, 8, 8))
    return FeatureConvexClassifier(network, CenteredAbs(torch.rand(3, 8, 8, dtype=torch.float64)), 0.1)


BUILDERS = {
    "conv_net": (conv_classifier, (3, 8, 8)),
    "mlp": (lambda: FeatureConvexClassifier(ConvexMLP(5, (4, 3))), (5,)),
    "float64": (lambda: FeatureConvexClassifier(ConvexMLP(5, (4,)).double(), Identity(0.3), -1 / 3), (5,)),
    "affine": (lambda: FeatureConvexClassifier(ConvexMLP(5, (), passthrough=False)), (5,)),
    "max_affine": (lambda: FeatureConvexClassifier(MaxAffine(5, 3), Identity(0.3)), (5,)),
    "own_map": (lambda: FeatureConvexClassifier(ConvexMLP(5, (2,)), Scaled(5)), (5,)),
}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save_classifier(conv_classifier(), path)
    return path


@pytest.mark.parametrize("name", BUILDERS)
def test_round_trip_is_exact(name, tmp_path):
    build, shape = BUILDERS[name]
    classifier, path = build(), tmp_path / "folder" / "model.safetensors"
    save_classifier(classifier, path)
    random_numbers = torch.random.get_rng_state()
    loaded = load_classifier(path, types=[Scaled])
    assert torch.equal(random_numbers, torch.random.get_rng_state())
    assert not loaded.training
    state = loaded.state_dict()
    assert list(state) == list(classifier.state_dict())
    for key, value in classifier.state_dict().items():
        assert state[key].dtype == value.dtype and torch.equal(state[key], value), key
    x = torch.rand(6, *shape)
    for before, after in zip(classifier.tangent(x), loaded.tangent(x), strict=True):
        assert torch.equal(before, after)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.json", "model.safetensors"]


def test_settings_are_readable(saved):
    settings = json.loads(settings_path(saved).read_text())
    assert settings["network"]["type"] == "ConvexConvNet"
    assert settings["network"]["settings"]["first_kernel"] == 5
    assert settings["feature_map"] == {
        "type": "CenteredAbs",
        "settings": {"mean": {"tensor": "feature_map.mean"}},
    }
    assert settings["threshold"] == 0.1


def test_saving_again_replaces_both_files(saved):
    save_classifier(FeatureConvexClassifier(ConvexMLP(3, (2,))), saved)
    assert isinstance(load_classifier(saved).network, ConvexMLP)


def change_settings(path, **changes):
    settings = json.loads(settings_path(path).read_text())
    settings_path(path).write_text(json.dumps({**settings, **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: settings_path(path).unlink(), "No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "digests differ"),
        (lambda path: path.write_bytes(b""), "digests differ"),
        (lambda path: settings_path(path).write_text("{"), "Expecting"),
        (lambda path: settings_path(path).write_text("[1]"), "cannot be loaded"),
        (lambda path: settings_path(path).write_bytes(b"\xff\xfe\x00"), "cannot be loaded"),
        (lambda path: settings_path(path).write_text('{"format": 1}'), "lacks 'sha256'"),
        (lambda path: change_settings(path, format=2), "format is 2"),
        (lambda path: change_settings(path, threshold="high"), "cannot be loaded"),
        (lambda path: change_settings(path, threshold=float("nan")), "threshold = nan"),
        (
            lambda path: change_settings(path, network={"type": "system", "settings": {}}),
            "type 'system', known are",
        ),
        (
            lambda path: change_settings(path, network={"type": "ConvexMLP", "settings": {"shape": 3}}),
            "shape",
        ),
        (lambda path: change_settings(path, network={"type": ["ConvexMLP"], "settings": {}}), "unhashable"),
        (
            lambda path: change_settings(path, network={"type": "ConvexMLP", "settings": {"in_features": 9}}),
            "Missing key",
        ),
        (
            lambda path: change_settings(path, network={"type": "Identity", "settings": {}}),
            "not a network",
        ),
    ],
)
def test_damaged_checkpoints_are_refused_in_one_line(saved, damage, message):
    damage(saved)
    with pytest.raises(ValueError, match=message) as caught:
        load_classifier(saved)
    assert "\n" not in str(caught.value) and str(saved) in str(caught.value)


def test_tensors_that_do_not_parse_are_refused(saved):
    """The digest may agree and the file still be no safetensors file."""
    import hashlib

    junk = b"\x08" + bytes(7) + b"notjson!"
    saved.write_bytes(junk)
    change_settings(saved, sha256=hashlib.sha256(junk).hexdigest())
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_classifier(saved)


def test_a_cut_while_saving_is_noticed(saved, monkeypatch):
    """New weights beside old settings must not pass for a checkpoint."""
    other = FeatureConvexClassifier(ConvexMLP(3, (2,)))
    monkeypatch.setattr("fcnn.checkpoints.settings_path", lambda path: path.with_name("elsewhere.json"))
    save_classifier(other, saved)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="digests differ"):
        load_classifier(saved)


def test_file_names_must_say_what_they_hold(tmp_path):
    with pytest.raises(ValueError, match=r"end in \.safetensors"):
        save_classifier(FeatureConvexClassifier(ConvexMLP(2)), tmp_path / "model.bin")
