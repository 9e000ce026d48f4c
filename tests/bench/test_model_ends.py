"""A threshold means the network's own output: whatever the end of the network, the same inputs are sensitive."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.basics.errors import UsageError
from bench.certify.choice import obstacles
from bench.methods.given import GivenNetwork
from bench.model_files import open_model

SHAPE = (4,)


class Ended(nn.Module):
    """A small network whose scores lie on both sides of every threshold tried, and a function at its end."""

    def __init__(self, end: Callable[[Tensor], Tensor], outputs: int = 1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(outputs)
        self.first, self.last, self.end = nn.Linear(4, 8), nn.Linear(8, outputs), end
        for value in self.parameters():
            value.data = 2.0 * torch.randn(value.shape, generator=generator)
        with torch.no_grad():
            z = self.last(torch.relu(self.first(torch.rand(500, 4, generator=generator))))
            self.last.bias -= z.median(dim=0).values

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.last(torch.relu(self.first(x))))


SIGMOIDS: dict[str, tuple[Callable[[Tensor], Tensor], float | None, float]] = {
    # name: (end, threshold given, threshold that it means)
    "plain": (torch.sigmoid, 0.7, 0.7),
    "default": (torch.sigmoid, None, 0.5),
    "squeezed": (lambda z: torch.sigmoid(z).squeeze(1), 0.7, 0.7),
    "squeezed before": (lambda z: torch.sigmoid(z.squeeze(1)), None, 0.5),
    "viewed": (lambda z: torch.sigmoid(z).view(-1), 0.3, 0.3),
    "flattened": (lambda z: torch.sigmoid(z).flatten(), None, 0.5),
    "reshaped": (lambda z: torch.sigmoid(z).reshape(-1, 1, 1), 0.9, 0.9),
    "unsqueezed": (lambda z: torch.sigmoid(z).unsqueeze(2), None, 0.5),
    "minus a half": (lambda z: torch.sigmoid(z) - 0.5, None, 0.0),
    "percent": (lambda z: 100 * torch.sigmoid(z), 70.0, 70.0),
    "two p minus one": (lambda z: 2 * torch.sigmoid(z).squeeze(1) - 1, 0.4, 0.4),
    "complement": (lambda z: 1 - torch.sigmoid(z), 0.7, 0.7),
    "negated": (lambda z: -torch.sigmoid(z), -0.2, -0.2),
    "logarithm": (lambda z: torch.log(torch.sigmoid(z)), -0.5, -0.5),
    "tanh": (torch.tanh, 0.3, 0.3),
    "tanh by default": (lambda z: torch.tanh(z)[:, 0], None, 0.0),
    "softplus": (nn.functional.softplus, 0.8, 0.8),
    "elu": (nn.functional.elu, -0.4, -0.4),
    "leaky": (lambda z: nn.functional.leaky_relu(z, 0.2), -0.1, -0.1),
    "clipped": (lambda z: z.clamp(-1, 1), 0.5, 0.5),
    "rectified": (torch.relu, None, 0.0),
    "hard sigmoid": (nn.functional.hardsigmoid, 0.6, 0.6),
    "decided": (lambda z: (torch.sigmoid(z) > 0.5).float(), None, 0.5),
    "decided the other way": (lambda z: (torch.sigmoid(z.squeeze(1)) <= 0.25).float(), 0.25, 0.25),
    "decided, two numbers": (lambda z: torch.where(z >= 0.5, 2.0, -1.0), None, 0.0),
    "decided, scaled": (lambda z: 1 - 2 * (z > 0.25).float(), 0.5, 0.5),
    "scores": (lambda z: 3 * z, 0.6, 0.6),
}
PAIRS: dict[str, tuple[Callable[[Tensor], Tensor], float | None]] = {
    "logits": (lambda z: z, None),
    "softmax": (lambda z: z.softmax(1), None),
    "softmax with threshold": (lambda z: z.softmax(1), 0.8),
    "log-softmax with threshold": (lambda z: z.log_softmax(1), -0.3),
    "sigmoids": (torch.sigmoid, None),
    "negated logits": (lambda z: -z, None),
    "scaled softmax": (lambda z: 10 * z.softmax(1) - 5, None),
}


def write(network: nn.Module, kind: str, path: Path) -> Path:
    x = torch.rand(1, *SHAPE)
    if kind == "onnx":
        axes = {"x": {0: "n"}}
        torch.onnx.export(network, (x,), path, dynamo=False, input_names=["x"], dynamic_axes=axes)
    else:
        torch.jit.trace(network, x).save(path)
    return path


def far_and_near(count: int = 400) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    x = torch.rand(count, *SHAPE, generator=generator, dtype=torch.float64)
    return torch.cat([x, 3 * x - 1, 20 * x - 10])


def agree(score: Tensor, user: Tensor, distance: Tensor) -> None:
    """The same inputs, but for ties in single precision; some of each kind."""
    clear = distance.abs() > 1e-5
    assert bool(((score > 0) == user)[clear].all())
    assert clear.double().mean() > 0.5 and 10 < int(user.sum()) < len(user) - 10


@pytest.mark.parametrize("name", SIGMOIDS)
@pytest.mark.parametrize("kind", ["onnx", "ts"])
def test_one_output_is_compared_with_the_threshold(name, kind, tmp_path):
    end, threshold, means = SIGMOIDS[name]
    network = Ended(end).eval()
    path = write(network, kind, tmp_path / f"net.{kind}")
    x = far_and_near()
    for logit, sign in ((1, 1.0), (0, -1.0)):
        if name == "rectified" and logit == 0:
            continue  # never below 0
        model = open_model(path, SHAPE, threshold=threshold, logit=logit, trust=True)
        with torch.no_grad():
            distance = sign * (network.double()(x).flatten() - means)
        agree(model.score(x), distance > 0, distance)
        network.float()
        # What is left is affine at its end: no sigmoid would let bounds through.
        assert model.removed or name == "scores"


@pytest.mark.parametrize("name", PAIRS)
def test_of_two_outputs_the_greater_wins_or_a_probability_exceeds_the_threshold(name, tmp_path):
    end, threshold = PAIRS[name]
    network = Ended(end, 2).eval()
    path = write(network, "onnx", tmp_path / "net.onnx")
    x = far_and_near()
    with torch.no_grad():
        outputs = network.double()(x)
    for k in (0, 1):
        distance = outputs[:, k] - (outputs[:, 1 - k] if threshold is None else threshold)
        agree(open_model(path, SHAPE, logit=k, threshold=threshold).score(x), distance > 0, distance)


@pytest.mark.parametrize("outputs", [2, 3])
@pytest.mark.parametrize("scale", [4.0, -0.25])
def test_a_lead_that_is_asked_for_is_one_of_the_networks_own_outputs(scale, outputs, tmp_path):
    """Behind a scale the same lead is another number, and behind a negative one the least entry leads."""
    network = Ended(lambda z: scale * z, outputs).eval()
    path = write(network, "onnx", tmp_path / "net.onnx")
    x = far_and_near()
    with torch.no_grad():
        found = network.double()(x)
    distance = found[:, 0] - found[:, 1:].amax(dim=1) - 1.5
    agree(open_model(path, SHAPE, logit=0, threshold=1.5).score(x), distance > 0, distance)


COMPLEMENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "side by side": lambda z: torch.cat([1 - torch.sigmoid(z), torch.sigmoid(z)], dim=1),
    "stacked": lambda z: torch.stack([1 - torch.sigmoid(z[:, 0]), torch.sigmoid(z[:, 0])], dim=-1),
}


@pytest.mark.parametrize("end", COMPLEMENTS.values(), ids=COMPLEMENTS)
def test_both_probabilities_of_one_sigmoid_are_undone(end, tmp_path):
    network = Ended(end).eval()
    path = write(network, "onnx", tmp_path / "net.onnx")
    x = far_and_near()
    with torch.no_grad():
        outputs = network.double()(x)
    for k, threshold in ((0, None), (1, None), (0, 0.8), (1, 0.8)):
        model = open_model(path, SHAPE, logit=k, threshold=threshold)
        distance = outputs[:, k] - (threshold or 0.5)
        agree(model.score(x), distance > 0, distance)
        assert {"Gemm", "Relu"} <= set(model.layers) <= {"Gemm", "Relu", "Gather", "Unsqueeze"}


def test_an_end_that_falls_somewhere_is_not_undone(tmp_path):
    network = Ended(lambda z: nn.functional.elu(z, alpha=-0.5)).eval()
    path = write(network, "onnx", tmp_path / "net.onnx")
    x = far_and_near()
    model = open_model(path, SHAPE, threshold=0.2)
    with torch.no_grad():
        distance = network.double()(x).flatten() - 0.2
    agree(model.score(x), distance > 0, distance)
    assert not model.removed


def test_a_comparison_within_a_network_leaves_smoothing_and_says_why_not_bounds(tmp_path):
    network = Ended(lambda z: (z > 0.0).float() @ torch.tensor([[1.0], [-0.7]]) + 0.1, 2).eval()
    model = open_model(write(network, "onnx", tmp_path / "net.onnx"), SHAPE)
    score = model.score
    with torch.no_grad():
        assert bool(((score(far_and_near()) > 0) == (network.double()(far_and_near())[:, 0] > 0)).all())
    against = obstacles(GivenNetwork(score, SHAPE, unread=model.unread))
    assert not against["smoothing_gaussian"] and "'gt'" in against["crown"] and "\n" not in against["crown"]


@pytest.mark.parametrize(
    ("end", "threshold", "message"),
    [
        (torch.sigmoid, 1.5, "between 0 and 1"),
        (torch.sigmoid, 0.0, "between 0 and 1"),
        (lambda z: 100 * torch.sigmoid(z), None, "between 0 and 100"),
        (lambda z: torch.sigmoid(z) - 0.5, 0.7, "between -0.5 and 0.5"),
        (torch.relu, -1.0, "between 0 and inf"),
        (lambda z: z * z, float("nan"), "--threshold nan"),
        (lambda z: torch.sigmoid(z) * torch.sigmoid(z), None, "like a probability"),
    ],
)
def test_a_threshold_that_tells_nothing_apart_is_refused(end, threshold, message, tmp_path):
    path = write(Ended(end).eval(), "onnx", tmp_path / "net.onnx")
    with pytest.raises(UsageError, match=message) as caught:
        open_model(path, SHAPE, threshold=threshold)
    assert "\n" not in str(caught.value)


def test_a_threshold_on_one_of_three_probabilities_is_refused(tmp_path):
    path = write(Ended(lambda z: z.softmax(1), 3).eval(), "onnx", tmp_path / "net.onnx")
    with pytest.raises(UsageError, match="one of 3 probabilities"):
        open_model(path, SHAPE, logit=1, threshold=0.4)


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1)),
        nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)),
        nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 1)),
    ],
    ids=["dropout", "batch norm", "batch norm without statistics"],
)
@pytest.mark.parametrize("kind", ["onnx", "export"])
def test_networks_in_training_mode_are_refused(network, kind, tmp_path):
    network.train()
    x = torch.rand(3, 4)
    path = tmp_path / ("net.onnx" if kind == "onnx" else "net.pt2")
    if kind == "onnx" and "track_running_stats=False" in str(network):
        pytest.skip("torch does not write it as ONNX")
    if kind == "onnx":
        mode = torch.onnx.TrainingMode.PRESERVE
        torch.onnx.export(
            network, (x,), path, dynamo=False, training=mode, input_names=["x"], dynamic_axes={"x": {0: "n"}}
        )
    else:
        torch.export.save(torch.export.export(network, (x,)), path)
    with pytest.raises(UsageError) as caught:
        open_model(path, SHAPE, trust=True)
    assert "\n" not in str(caught.value)


def test_a_score_that_is_not_the_rule_is_noticed(tmp_path, monkeypatch):
    from bench.model_files import ends

    monkeypatch.setattr(ends, "log_odds", lambda t, logarithm: t)
    path = write(Ended(lambda z: z.softmax(1), 2).eval(), "onnx", tmp_path / "net.onnx")
    with pytest.raises(UsageError, match="by its own outputs"):
        open_model(path, SHAPE, threshold=0.9)


@pytest.mark.parametrize(("outputs", "logit"), [(1, 0), (1, 1), (3, 0), (3, 2)])
def test_an_end_that_is_not_known_stays_and_the_rule_is_on_its_outputs(outputs, logit, tmp_path):
    network = Ended(lambda z: torch.sigmoid(z).sin(), outputs).eval()
    threshold = 0.25 if outputs == 1 else None
    path = write(network, "onnx", tmp_path / "net.onnx")
    model = open_model(path, SHAPE, threshold=threshold, logit=logit)
    assert model.unread
    x = far_and_near().float()
    with torch.no_grad():
        found = network(x)
    if outputs == 1:
        distance = (found[:, 0] - 0.25) * (1 if logit else -1)
    else:
        distance = found[:, logit] - found[:, [k for k in range(3) if k != logit]].amax(dim=1)
    agree(model.score(x), distance > 0, distance)
