"""Networks from files compute what the program that wrote them computes, and what cannot be read is named."""

import pickle
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from bench.errors import UsageError
from bench.model_files import onnx_operators, open_model
from fcnn import ConvexMLP, FeatureConvexClassifier
from fcnn.checkpoints import save_classifier


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x):
        x = torch.relu(self.first(2 * x - 1))
        return self.last(torch.relu(self.second(x)) + x)


def convnet(outputs: int = 1) -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.AvgPool2d(3, stride=1, padding=1),
        nn.Conv2d(3, 4, 3, bias=False),
        nn.LeakyReLU(0.1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(4, outputs),
    )
    network(torch.rand(20, 2, 9, 8))  # gives the batch normalisation something to remember
    return network


NETWORKS = {
    "mlp": (nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)), (6,)),
    "residual": (Residual(), (6,)),
    "convnet": (convnet(), (2, 9, 8)),
    "two logits": (convnet(2), (2, 9, 8)),
    "softmax": (nn.Sequential(nn.Linear(6, 2), nn.Softmax(dim=1)), (6,)),
}
networks = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture
def inputs():
    def make(shape):
        return torch.rand(7, *shape, generator=torch.Generator().manual_seed(3))

    return make


def scores(logits: torch.Tensor | np.ndarray) -> np.ndarray:
    logits = np.asarray(logits)
    return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]


def export(network: nn.Module, shape: tuple[int, ...], path: Path) -> Path:
    torch.onnx.export(
        network.eval(),
        (torch.rand(1, *shape),),
        path,
        dynamo=False,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
    )
    return path


@networks
def test_onnx_files_score_as_onnxruntime_does(name, tmp_path, inputs):
    network, shape = NETWORKS[name]
    path = export(network, shape, tmp_path / "net.onnx")
    x = inputs(shape)
    (found,) = onnxruntime.InferenceSession(path).run(None, {"x": x.numpy()})
    model = open_model(path, shape)
    score = model.score(x.double()).numpy()
    if name == "softmax":
        assert model.removed == "Softmax"
        assert (np.sign(score) == np.sign(scores(found))).all()
        found = np.log(found)
    np.testing.assert_allclose(score, scores(found), rtol=1e-5, atol=1e-5)


@networks
@pytest.mark.parametrize("kind", ["script", "trace", "export"])
def test_torch_files_score_as_the_network_does(name, kind, tmp_path, inputs):
    if kind == "script" and "conv" in str(NETWORKS[name][0]).lower():
        pytest.skip("scripting keeps the helper operators of adaptive pooling; tracing does not")
    network, shape = NETWORKS[name]
    network.eval()
    path, x = tmp_path / "net.pt", inputs(shape)
    if kind == "export":
        torch.export.save(torch.export.export(network, (x,)), path)
    elif kind == "script":
        torch.jit.save(torch.jit.script(network), path)
    else:
        torch.jit.save(torch.jit.trace(network, x), path)
    with torch.no_grad():
        expected = network(x)
    score = open_model(path, shape, trust=True).score(x.double()).numpy()
    expected = scores(expected.log() if name == "softmax" else expected)
    np.testing.assert_allclose(score, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    x = rng.random((200, 6)).astype(np.float32)
    return x, (x.sum(axis=1) > 3).astype(int)


@pytest.mark.parametrize("options", [{}, {"zipmap": False}])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_scikit_learn_classifier_scores_its_own_log_odds(options, scaled, table, tmp_path):
    x, y = table
    classifier = MLPClassifier((8, 4), max_iter=40, random_state=0)
    classifier = make_pipeline(StandardScaler(), classifier) if scaled else classifier
    classifier.fit(x, y)
    path = tmp_path / "net.onnx"
    onnx.save(to_onnx(classifier, x[:1], options={id(classifier): options} if not scaled else None), path)
    probability = classifier.predict_proba(x.astype(np.float64))
    expected = np.log(probability[:, 1] / probability[:, 0])
    model = open_model(path, (6,))
    np.testing.assert_allclose(model.score(torch.from_numpy(x).double()), expected, rtol=1e-4, atol=1e-4)
    other = open_model(path, (6,), place=0)
    np.testing.assert_allclose(other.score(torch.from_numpy(x).double()), -expected, rtol=1e-4, atol=1e-4)


def test_the_sensitive_logit_the_sign_and_the_threshold_are_the_users_choice(tmp_path, inputs):
    one, two = NETWORKS["convnet"], NETWORKS["two logits"]
    paths = [export(*network, tmp_path / f"{place}.onnx") for place, network in enumerate((one, two))]
    x = inputs(one[1]).double()
    for path in paths:
        plain = open_model(path, one[1]).score(x)
        assert torch.allclose(open_model(path, one[1], logit=0).score(x), -plain)
        assert torch.allclose(open_model(path, one[1], threshold=0.25).score(x), plain - 0.25)
    assert torch.allclose(
        open_model(paths[1], one[1], place=0).score(x), -open_model(paths[1], one[1]).score(x)
    )
    assert torch.allclose(
        open_model(paths[0], one[1], place=0).score(x), open_model(paths[0], one[1]).score(x)
    )


def test_flat_inputs_are_images_row_by_row(tmp_path):
    network = nn.Sequential(nn.Linear(12, 1))
    path = export(network, (12,), tmp_path / "flat.onnx")
    x = torch.rand(4, 1, 3, 4)
    with torch.no_grad():
        expected = network(x.flatten(1)).squeeze(1)
    assert torch.allclose(open_model(path, (1, 3, 4)).score(x.double()).float(), expected, atol=1e-6)


def graph(nodes: list, path: Path, sizes: tuple = (None, 6), outputs: int = 1, width: int = 2) -> Path:
    """An ONNX file from nodes that read x and write y0, y1, ...; w (6, width) and two (1, 2) are constants."""
    constants = [
        numpy_helper.from_array(np.ones((6, width), np.float32), "w"),
        numpy_helper.from_array(np.ones((1, 2), np.float32), "two"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)
    results = [
        helper.make_tensor_value_info(f"y{k}", TensorProto.FLOAT, (None, None)) for k in range(outputs)
    ]
    made = helper.make_graph(nodes, "g", [x], results, constants)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


PRODUCT = helper.make_node("MatMul", ["x", "w"], ["h"])
REFUSED = {
    "operator Erf": [PRODUCT, helper.make_node("Erf", ["h"], ["y0"])],
    "operator Relx is not supported (did you mean 'Relu'?)": None,
    "multiplies two values": [PRODUCT, helper.make_node("Mul", ["h", "h"], ["y0"])],
    "divides by a value": [PRODUCT, helper.make_node("Div", ["two", "h"], ["y0"])],
    "casts to float and double": [PRODUCT, helper.make_node("Cast", ["h"], ["y0"], to=10)],
    "keep the inputs of a batch apart": [PRODUCT, helper.make_node("Transpose", ["h"], ["y0"], perm=[1, 0])],
    "does not depend on the input": [helper.make_node("Identity", ["two"], ["y0"])],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_read_is_named(message, tmp_path):
    nodes = REFUSED[message]
    path = tmp_path / "net.onnx"
    if nodes is None:
        # A function of the file's own domain is a valid ONNX operator of any name.
        graph([PRODUCT, helper.make_node("Relu", ["h"], ["y0"])], path)
        model = onnx.load(path)
        model.graph.node[1].op_type = "Relx"
        model.graph.node[1].domain = "own"
        model.opset_import.append(helper.make_opsetid("own", 1))
        onnx.save(model, path)
        message = "operator own.Relx is not supported"
    else:
        graph(nodes, path)
    with pytest.raises(UsageError) as caught:
        open_model(path, (6,))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_with_three_logits_is_refused(tmp_path):
    path = graph([helper.make_node("MatMul", ["x", "w"], ["y0"])], tmp_path / "net.onnx", width=3)
    with pytest.raises(UsageError, match="gives 3 numbers per input"):
        open_model(path, (6,))


def test_a_model_for_another_input_size_is_refused(tmp_path):
    path = graph([helper.make_node("MatMul", ["x", "w"], ["y0"])], tmp_path / "net.onnx")
    with pytest.raises(UsageError, match=r"shape \(6,\) \(6 numbers\), the data has \(1, 2, 4\) \(8\)"):
        open_model(path, (1, 2, 4))
    network = tmp_path / "net.pt"
    torch.jit.save(torch.jit.trace(nn.Linear(6, 1), torch.rand(1, 6)), network)
    with pytest.raises(UsageError, match="does not fit inputs of shape"):
        open_model(network, (8,), trust=True)


def test_channels_last_is_refused_rather_than_scrambled(tmp_path):
    path = export(nn.Sequential(nn.Flatten(), nn.Linear(24, 1)), (2, 4, 3), tmp_path / "net.onnx")
    with pytest.raises(UsageError, match="channels first"):
        open_model(path, (3, 2, 4))


def test_one_of_several_outputs_must_be_named(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y0"]), helper.make_node("Relu", ["y0"], ["y1"])]
    path = graph(nodes, tmp_path / "net.onnx", outputs=2)
    with pytest.raises(UsageError, match="2 outputs that may hold scores"):
        open_model(path, (6,))
    with pytest.raises(UsageError, match="unknown output 'y7'"):
        open_model(path, (6,), output="y7")
    assert open_model(path, (6,), output="y0").layers == ("MatMul",)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    for name, content, message in [
        ("a.onnx", b"not an ONNX file", "not a valid ONNX file"),
        ("b.onnx", b"", "not a valid ONNX file"),
        ("c.pt", b"neither", "pickle"),
        ("d.joblib", b"", "are not supported"),
        ("e.safetensors", b"", "cannot be loaded"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=message):
            open_model(tmp_path / name, (6,), trust=True)
    with pytest.raises(UsageError, match="does not exist"):
        open_model(tmp_path / "nowhere.onnx", (6,))


def test_weights_in_other_files_are_refused(tmp_path):
    path = graph([helper.make_node("MatMul", ["x", "w"], ["y0"])], tmp_path / "net.onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, size_threshold=0)
    with pytest.raises(UsageError, match="other files"):
        open_model(path, (6,))


class Trap:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_pickles_are_never_loaded(tmp_path):
    mark = tmp_path / "mark"
    for name, write in [
        ("saved.pt", lambda path: torch.save(Trap(mark), path)),
        ("plain.pt", lambda path: path.write_bytes(pickle.dumps(Trap(mark)))),
    ]:
        write(tmp_path / name)
        with pytest.raises(UsageError, match="pickle"):
            open_model(tmp_path / name, (6,), trust=True)
    assert not mark.exists()


def test_a_scripted_network_with_helper_operators_is_told_to_be_traced(tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(NETWORKS["convnet"][0].eval()), path)
    with pytest.raises(UsageError, match=r"operator len is not supported.*torch\.jit\.trace"):
        open_model(path, (2, 9, 8), trust=True)


def test_torch_files_need_trust(tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.trace(nn.Linear(6, 1), torch.rand(1, 6)), path)
    with pytest.raises(UsageError, match="--trust"):
        open_model(path, (6,))


def test_a_wrong_reading_is_noticed(tmp_path, monkeypatch):
    path = export(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1)), (6,), tmp_path / "net.onnx")
    monkeypatch.setitem(onnx_operators.OPERATORS, "Relu", lambda call: nn.Tanh())
    with pytest.raises(UsageError, match="computes other values"):
        open_model(path, (6,))


def test_a_checkpoint_of_ours_keeps_its_certificates(tmp_path, inputs):
    classifier = FeatureConvexClassifier(ConvexMLP(6, (4,))).eval()
    save_classifier(classifier, tmp_path / "net.safetensors")
    x = inputs((6,)).double()
    opened = open_model(tmp_path / "net.safetensors", (6,), threshold=0.1).score
    assert torch.allclose(opened.score(x).double(), classifier.score(x).double() - 0.1)
    with pytest.raises(UsageError, match="expected 6 values"):
        open_model(tmp_path / "net.safetensors", (7,))
