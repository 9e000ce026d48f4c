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

from bench.basics.errors import UsageError
from bench.model_files import open_model, operators
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
        assert model.removed == ("Softmax",)
        assert (np.sign(score) == np.sign(scores(found))).all()
        found = np.log(found)
    np.testing.assert_allclose(score, scores(found), rtol=1e-5, atol=1e-5)


@networks
@pytest.mark.parametrize("kind", ["script", "trace", "export"])
def test_torch_files_score_as_the_network_does(name, kind, tmp_path, inputs):
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
    below = open_model(paths[0], one[1], logit=0, threshold=0.25)
    assert torch.allclose(below.score(x), 0.25 - open_model(paths[0], one[1]).score(x))
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


def graph(
    nodes: list, path: Path, sizes: tuple = (None, 6), outputs: int = 1, width: int = 2, more: list = ()
) -> Path:
    """An ONNX file from nodes that read x and write y0, y1, ...; w (6, width) and two (1, 2) are constants."""
    constants = [
        numpy_helper.from_array(np.ones((6, width), np.float32), "w"),
        numpy_helper.from_array(np.ones((1, 2), np.float32), "two"),
        *more,
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)
    results = [
        helper.make_tensor_value_info(f"y{k}", TensorProto.FLOAT, (None, None)) for k in range(outputs)
    ]
    made = helper.make_graph(nodes, "g", [x], results, constants)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


PRODUCT = helper.make_node("MatMul", ["x", "w"], ["h"])
UNREAD = {
    "operator Sin": [PRODUCT, helper.make_node("Sin", ["h"], ["y0"])],
    "operator Sqrt": [
        PRODUCT,
        helper.make_node("Abs", ["h"], ["a"]),
        helper.make_node("Sqrt", ["a"], ["y0"]),
    ],
    "divides by a value": [PRODUCT, helper.make_node("Div", ["two", "h"], ["y0"])],
}


@pytest.mark.parametrize("message", UNREAD)
def test_what_is_not_read_is_named_and_only_run(message, tmp_path, inputs):
    path = graph(UNREAD[message], tmp_path / "net.onnx")
    model = open_model(path, (6,))
    assert message in model.unread and "\n" not in model.unread
    x = inputs((6,))
    (found,) = onnxruntime.InferenceSession(path).run(None, {"x": x.numpy()})
    np.testing.assert_allclose(model.score(x).numpy(), scores(found), rtol=1e-5, atol=1e-6)


def test_an_output_that_does_not_depend_on_the_input_is_refused(tmp_path):
    path = graph([helper.make_node("Identity", ["two"], ["y0"])], tmp_path / "net.onnx")
    with pytest.raises(UsageError, match="does not depend on the input"):
        open_model(path, (6,))


def test_inputs_of_a_batch_that_cannot_be_kept_apart_are_run_one_by_one(tmp_path, inputs):
    nodes = [PRODUCT, helper.make_node("Transpose", ["h"], ["y0"], perm=[1, 0])]
    weight = np.arange(12, dtype=np.float32).reshape(6, 2)
    path = graph(nodes, tmp_path / "net.onnx")
    model = onnx.load(path)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    onnx.save(model, path)
    opened, x = open_model(path, (6,)), inputs((6,))
    assert "batch apart" in opened.unread
    expected = x.numpy() @ (weight[:, 1] - weight[:, 0])
    np.testing.assert_allclose(opened.score(x).numpy(), expected, rtol=1e-5)


def test_an_operator_of_the_files_own_is_refused(tmp_path):
    path = graph([PRODUCT, helper.make_node("Relu", ["h"], ["y0"])], tmp_path / "net.onnx")
    model = onnx.load(path)
    model.graph.node[1].op_type, model.graph.node[1].domain = "Relx", "own"
    model.opset_import.append(helper.make_opsetid("own", 1))
    onnx.save(model, path)
    with pytest.raises(UsageError, match="onnxruntime cannot run it"):
        open_model(path, (6,))


@pytest.mark.parametrize("kind", ["Loop", "If"])
def test_control_flow_is_refused(kind, tmp_path):
    flag = numpy_helper.from_array(np.array(True), "flag")
    out = helper.make_tensor_value_info("b", TensorProto.FLOAT, (None, 2))
    body = helper.make_graph([helper.make_node("Relu", ["h"], ["b"])], "body", [], [out])
    if kind == "If":
        node = helper.make_node("If", ["flag"], ["y0"], then_branch=body, else_branch=body)
    else:
        trip = helper.make_tensor_value_info("i", TensorProto.INT64, ())
        go = helper.make_tensor_value_info("c", TensorProto.BOOL, ())
        kept = helper.make_node("Identity", ["c"], ["d"])
        carried = helper.make_tensor_value_info("a", TensorProto.FLOAT, (None, 2))
        body = helper.make_graph(
            [kept, helper.make_node("Relu", ["a"], ["b"])],
            "body",
            [trip, go, carried],
            [helper.make_tensor_value_info("d", TensorProto.BOOL, ()), out],
        )
        node = helper.make_node("Loop", ["", "flag", "h"], ["y0"], body=body)
    path = graph([PRODUCT, node], tmp_path / "net.onnx", more=[flag])
    with pytest.raises(UsageError, match=f"operator {kind}"):
        open_model(path, (6,))


def test_the_greatest_of_three_logits_is_by_the_smallest_margin(tmp_path, inputs):
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), nn.Softmax(dim=1))
    path = export(network, (6,), tmp_path / "net.onnx")
    with pytest.raises(UsageError, match=r"3 logits: say which .*--sensitive-logit K, from 0 to 2"):
        open_model(path, (6,))
    for wrong in (3, -1):
        with pytest.raises(UsageError, match=f"--sensitive-logit {wrong}: it gives 3 logits"):
            open_model(path, (6,), logit=wrong)
    x = inputs((6,)).double()
    with torch.no_grad():
        logits = network[:3].double()(x)
    for k in range(3):
        model = open_model(path, (6,), logit=k)
        others = logits[:, [j for j in range(3) if j != k]]
        expected = (logits[:, [k]] - others).amin(dim=1)
        assert torch.allclose(model.score(x), expected, atol=1e-6)
        assert model.logits == 3 and model.score.margins(x).shape == (7, 2)
    assert open_model(path, (6,), labels=(2, 3)).logit == 2


def test_a_model_for_another_input_size_is_refused(tmp_path):
    path = graph([helper.make_node("MatMul", ["x", "w"], ["y0"])], tmp_path / "net.onnx")
    with pytest.raises(UsageError, match=r"shape \(6,\) \(6 numbers\), the data has \(1, 2, 4\) \(8\)"):
        open_model(path, (1, 2, 4))
    network = tmp_path / "net.pt"
    torch.jit.save(torch.jit.trace(nn.Linear(6, 1), torch.rand(1, 6)), network)
    with pytest.raises(UsageError, match="does not fit inputs of shape"):
        open_model(network, (8,), trust=True)


def test_channels_last_is_read_as_such_or_by_word(tmp_path):
    path = export(nn.Sequential(nn.Flatten(), nn.Linear(24, 1)), (2, 4, 3), tmp_path / "net.onnx")
    x = torch.rand(5, 3, 2, 4)
    session = onnxruntime.InferenceSession(path)
    (expected,) = session.run(None, {"x": x.permute(0, 2, 3, 1).numpy()})
    score = open_model(path, (3, 2, 4)).score
    np.testing.assert_allclose(score(x.double()), expected[:, 0], rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match="--layout"):
        open_model(path, (4, 3, 2))
    same = export(nn.Sequential(nn.Flatten(), nn.Linear(27, 1)), (3, 3, 3), tmp_path / "same.onnx")
    x = torch.rand(5, 3, 3, 3)
    for layout, fed in (("auto", x), ("chw", x), ("hwc", x.permute(0, 2, 3, 1))):
        (expected,) = onnxruntime.InferenceSession(same).run(None, {"x": fed.numpy()})
        score = open_model(same, (3, 3, 3), layout=layout).score
        np.testing.assert_allclose(score(x.double()), expected[:, 0], rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match="unknown layout"):
        open_model(same, (3, 3, 3), layout="whc")


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


def test_torch_files_need_trust(tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.trace(nn.Linear(6, 1), torch.rand(1, 6)), path)
    with pytest.raises(UsageError, match="--trust"):
        open_model(path, (6,))


def test_a_wrong_reading_is_noticed(tmp_path, monkeypatch):
    path = export(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1)), (6,), tmp_path / "net.onnx")
    monkeypatch.setitem(operators.OPERATORS, "Relu", lambda call: nn.Tanh())
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
