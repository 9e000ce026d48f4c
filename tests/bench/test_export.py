"""Networks and questions for outside verifiers: ONNX, VNN-LIB, and the way back."""

import re

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
import vnnlib
import vnnlib.compat
from synthetic import blobs
from undrawn import undrawn

from bench.basics.errors import UsageError
from bench.basics.files import plain
from bench.basics.settings import from_table
from bench.commands.queries import ANSWERS
from bench.data import load_dataset
from bench.export.__main__ import main
from bench.export.answers import _radii as radii_of_answers
from bench.export.inputs import asked_inputs
from bench.export.networks import write_onnx
from bench.export.questions import ask
from bench.export.questions import vnnlib as written
from bench.kept.finished import load_method
from bench.kept.store import Store
from bench.methods import get_method
from bench.methods.cayley import Cayley
from bench.methods.crown import CROWN
from bench.methods.fcnn import FCNN, FCNNSettings
from bench.methods.fcnn_published import PublishedFCNN
from bench.methods.l1_lipschitz import L1Lipschitz
from bench.methods.linear import Linear
from bench.methods.sll import SLL
from bench.methods.smoothing_gaussian import SmoothingGaussian
from bench.queries import main as queries
from bench.running.evaluate import Evaluation
from bench.running.plan import CellPlan
from bench.running.provenance import RunClock, run_record
from fcnn.training import TrainSettings

SHORT = TrainSettings(epochs=8, batch_size=32, learning_rate=0.01)


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    data = blobs()
    arrays = {
        f"{axis}_{part}": getattr(data, f"{axis}_{part}") for axis in "xy" for part in ("train", "test")
    }
    np.savez(folder / "blobs.npz", **arrays)
    return folder


@pytest.fixture
def out(data_folder, tmp_path):
    """A finished run of a feature-convex network, a plain one, and a smoothed one."""
    store, data = Store(tmp_path / "out"), load_dataset("blobs", data_folder)
    store.prepare()
    cells, methods = [], {}
    makers = {
        "fcnn": FCNN(FCNNSettings(hidden=(6,), feature_map="centered_abs", train=SHORT)),
        "crown": CROWN(CROWN.Settings(hidden=(8,), train=SHORT)),
        "smoothing_gaussian": SmoothingGaussian(
            SmoothingGaussian.Settings(
                draws=200, draws_predict=100, draws_calibrate=20, hidden=(4,), train=SHORT
            )
        ),
    }
    for name, method in makers.items():
        result = Evaluation(method, data, CellPlan("blobs", name, 0, 0, ("linf",), "validation", 0)).run()
        cells.append(store.cell("blobs", name, 0))
        meta = {"method": name, "title": name, "settings": plain(method.settings)}
        cells[-1].write("key", result.radii, result.predictions, result.state, meta)
        methods[name] = {
            "method": name,
            "title": name,
            "reference": "",
            "guarantee": "deterministic",
            "family": "",
        }
    radii, _ = store.merge(cells)
    store.write_run(run_record({"title": "Run", "sensitive": None}, methods, radii, RunClock()))
    return store.out


def export(out, data_folder, *options: str) -> int:
    with undrawn():
        return main([str(out), "--data-dir", str(data_folder), *options])


def read_old(text: str) -> np.ndarray:
    """The bounds (d, 2) of a VNN-LIB 1.0 file, read anew."""
    declared = re.findall(r"\(declare-const (\w+) Real\)", text)
    bounds = dict.fromkeys(declared)
    for sign, name, value in re.findall(r"\(assert \((<=|>=) (\w+) ([-0-9.]+)\)\)", text):
        bounds[name] = {**(bounds[name] or {}), sign: float(value)}
    assert text.count("(assert") == 2 * (len(declared) - 1) + 1
    assert bounds.pop("Y_0") == {"<=": 0.0}
    return np.array(
        [[bounds[f"X_{place}"][">="], bounds[f"X_{place}"]["<="]] for place in range(len(bounds))]
    )


def test_networks_score_as_the_methods_do(out, data_folder, capsys):
    assert export(out, data_folder, "--inputs", "2") == 0
    assert "smoothing_gaussian on blobs: its classifier is a vote over noise" in capsys.readouterr().err
    data = load_dataset("blobs", data_folder)
    for name in ("fcnn", "crown"):
        session = onnxruntime.InferenceSession(out / "vnnlib" / "onnx" / f"blobs_{name}_0.onnx")
        method = load_method(Store(out), data, "blobs", name, 0)
        found = [session.run(None, {"X": row[None]})[0].item() for row in data.x_test]
        expected = method.score(torch.from_numpy(data.x_test)).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert (expected > 0).any() and (expected < 0).any()


WRITTEN = [
    (PublishedFCNN, (4,), {"hidden": (6, 5)}),
    (PublishedFCNN, (1, 5, 5), {"architecture": "convnet", "convnet": {"first_kernel": 3}}),
    # Its normalisation comes after a sum and cannot be folded into a convolution.
    (FCNN, (1, 8, 8), {"architecture": "convnet", "convnet": {"depth": 2, "passthrough": True}}),
    (Cayley, (4,), {"hidden": (6, 5)}),
    (Cayley, (1, 5, 5), {"hidden": (30,)}),
    (SLL, (4,), {"hidden": (6, 5)}),
    (SLL, (3, 5, 5), {"network": "convnet", "width": 4}),
    (L1Lipschitz, (1, 5, 5), {"hidden": (6, 5)}),
    (Linear, (4,), {}),
]


PLAIN = [
    (FCNN, (1, 4, 3), {"hidden": (6, 5), "feature_map": "centered_abs"}),
    (FCNN, (1, 8, 8), {"architecture": "convnet", "convnet": {"depth": 2, "passthrough": True}}),
    (CROWN, (1, 4, 3), {"hidden": (6, 5)}),
    (CROWN, (1, 8, 8), {"network": "convnet"}),
    (PublishedFCNN, (1, 5, 5), {"architecture": "convnet", "convnet": {"first_kernel": 3}}),
    (Linear, (4,), {}),
]


@pytest.mark.parametrize(("kind", "shape", "settings"), PLAIN)
def test_normalisation_is_folded_and_only_plain_operators_are_left(kind, shape, settings, tmp_path):
    method = kind(kind.Settings(**settings))
    method.build(shape, seed=0)
    write_onnx(method, shape, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    assert {node.op_type for node in model.graph.node} <= {"Flatten", "MatMul", "Add", "Relu"}
    assert [node.op_type for node in model.graph.node][:2] == ["Flatten", "MatMul"]


def test_bench_queries_asks_about_the_same_inputs(out, data_folder):
    assert export(out, data_folder, "--methods", "crown", "--inputs", "4", "--radii", "0.05") == 0
    told = [
        "--dataset",
        "blobs",
        "--methods",
        "crown",
        "--radii",
        "linf=0.05",
        "--inputs",
        "4",
        "--jobs",
        "1",
    ]
    assert queries([str(out), *told, "--data-dir", str(data_folder)]) == 0
    asked = pd.read_csv(out / "vnnlib" / "questions.csv")
    answered = pd.read_csv(out / ANSWERS)
    asked = asked[asked["operating_point"] == asked["operating_point"][0]]
    assert sorted(asked["index"]) == sorted(answered["index"]) and len(asked) == 4


@pytest.mark.parametrize(("kind", "shape", "settings"), WRITTEN)
def test_networks_are_written_with_plain_weights(kind, shape, settings, tmp_path):
    method = kind(kind.Settings(**settings))
    method.build(shape, seed=0)
    method.load_state({**method.state(), "threshold": torch.tensor(0.3, dtype=torch.float64)})
    method.model.eval()
    x = torch.rand(20, *shape, generator=torch.Generator().manual_seed(0))
    before = method.score(x)
    write_onnx(method, shape, tmp_path / "net.onnx")
    assert torch.equal(method.score(x), before)  # the method itself is left as it was
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    found = [session.run(None, {"X": row[None].numpy()})[0].item() for row in x]
    np.testing.assert_allclose(found, method.score(x).detach(), rtol=1e-5, atol=1e-5)
    operators = {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
    assert not operators & {"Exp", "Abs", "Clip", "ReduceSum"}  # of the weights' computation


def test_networks_that_cannot_be_written_are_left_out_with_the_reason(tmp_path):
    method = Cayley(Cayley.Settings(network="convnet", width=2))
    method.build((1, 4, 4), seed=0)
    method.load_state(method.state())
    with pytest.raises(UsageError, match="Fourier"):
        write_onnx(method, (1, 4, 4), tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_instances_name_files_and_questions_are_boxes_around_sensitive_inputs(out, data_folder):
    assert export(out, data_folder, "--inputs", "3", "--radii", "0.05", "0.3", "--timeout", "7") == 0
    folder = out / "vnnlib"
    questions = pd.read_csv(folder / "questions.csv")
    data = load_dataset("blobs", data_folder)
    lines = [line.split(",") for line in (folder / "instances.csv").read_text().splitlines()]
    assert len(lines) == len(questions) == 2 * 3 * 2
    for (network, question, seconds), row in zip(lines, questions.itertuples(), strict=True):
        assert (folder / network).is_file() and seconds == "7" and question == row.vnnlib
        box = read_old((folder / question).read_text())
        x = data.x_test[questions.loc[row.Index, "index"]].astype(float)
        assert data.y_test[questions.loc[row.Index, "index"]] == 1
        low, high = np.clip(x - row.radius, 0, 1), np.clip(x + row.radius, 0, 1)
        assert (box[:, 0] <= low).all() and (box[:, 1] >= high).all()
        np.testing.assert_allclose(box, np.stack([low, high], axis=1), atol=1e-7)
        assert row.radius <= row.reach <= row.radius + 1e-7


@pytest.mark.parametrize("shape", [(4,), (2, 3, 3)])
@pytest.mark.parametrize("domain", ["box", "free"])
def test_an_independent_parser_reads_the_same_box(shape, domain):
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    x.flat[0], x.flat[1] = 0.0, 1e-7
    question = ask(x, 0.1, domain)
    (case,) = vnnlib.compat.transform(vnnlib.parse_query_string(written(question, "2.0", "a comment")))
    np.testing.assert_array_equal(
        np.array(case.input_box), np.stack([question.lower.ravel(), question.upper.ravel()], 1)
    )
    np.testing.assert_array_equal(read_old(written(question, "1.0", "a comment")), case.input_box)
    (polytope,) = case.output_constraints
    assert np.array(polytope.coeff_matrix).tolist() == [[1.0]] and np.array(polytope.rhs).item() == 0
    low, high = x.astype(float) - 0.1, x.astype(float) + 0.1
    if domain == "box":
        low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
    assert (question.lower <= low).all() and (question.upper >= high).all()


def answers(out, tmp_path, text: str):
    path = tmp_path / "results.csv"
    path.write_text(text)
    return path


def test_questions_are_about_the_first_inputs_that_are_called_sensitive():
    predicted = pd.array([1, 0, 1, 1, None, 1], dtype="Int8")
    rows = pd.DataFrame({"index": [9, 2, 4, 4, 6, 8], "predicted": predicted})
    assert asked_inputs(rows, 2).tolist() == [4, 8]
    assert asked_inputs(rows, 7).tolist() == [4, 8, 9]


def test_answers_come_back_as_a_method(out, data_folder, tmp_path):
    radii = ("0.01", "0.02", "0.5", "0.9")
    assert export(out, data_folder, "--methods", "fcnn", "--inputs", "3", "--radii", *radii) == 0
    questions = pd.read_csv(out / "vnnlib" / "questions.csv")
    first, second, third = sorted(questions["index"].unique())
    told = {
        first: ["unsat", "holds", "sat", "violated"],
        second: ["timeout", "timeout", "unknown", "error"],
        third: ["unsat", "timeout", "timeout", "sat"],
    }
    lines = ["vnnlib,result,seconds"]
    for row in questions.to_dict("records"):
        word = told[row["index"]][radii.index(f"{row['radius']:g}")]
        lines.append(f"./somewhere/{row['vnnlib']},{word},1.5")
    results = answers(out, tmp_path, "\n".join(lines))
    assert export(out, data_folder, "--import", str(results), "--tool", "oracle") == 0
    run, rows, predictions = Store(out).read_run()
    assert set(rows["method"]) == {"fcnn", "crown", "smoothing_gaussian", "oracle:fcnn"}
    assert run["methods"]["oracle:fcnn"]["title"] == "fcnn by oracle"
    mine = rows[rows["method"] == "oracle:fcnn"].set_index("index")
    assert set(mine["domain"]) == {"box"} and set(mine["norm"]) == {"linf"}
    assert mine.loc[first, ["outcome", "radius"]].tolist() == ["certified", 0.02]
    assert mine.loc[first, "radius_upper"] == pytest.approx(0.5, abs=1e-6)
    assert mine.loc[first, "radius_upper"] >= 0.5
    assert mine.loc[second, "outcome"] == "timeout" and pd.isna(mine.loc[second, "radius"])
    assert mine.loc[third, "radius"] == 0.01 and mine.loc[third, "radius_upper"] >= 0.9
    assert mine.loc[first, "seconds"] == pytest.approx(6.0)
    theirs = rows[(rows["method"] == "fcnn") & (rows["certificate"] == "closed_form")]
    assert sorted(mine.index) == sorted(theirs["index"])
    rest = mine.drop([first, second, third])
    assert set(rest["outcome"]) <= {"unknown", "misclassified"}
    assert (predictions["method"] == "oracle:fcnn").sum() == (predictions["method"] == "fcnn").sum()


def test_a_violated_question_bounds_the_radius_by_all_of_its_box():
    """Boxes are rounded outwards: the point that violates one may be as far as it reaches. The ball within held."""
    answers = {
        "answer": ["holds", "violated", "violated"],
        "radius": [0.1, 0.3, 0.2],
        "reach": [0.11, 0.31, 0.21],
    }
    found = radii_of_answers(pd.DataFrame({"index": 7, **answers}), np.array([5, 7]), np.array([1, 1]))
    assert found.radius.tolist() == [0.0, 0.1] and found.radius_upper.tolist() == [np.inf, 0.21]


BAD_ANSWERS = {
    "need a first line": "a,b\nc,d",
    "none of the questions": "vnnlib,result\nelsewhere.vnnlib,holds",
    "unknown result 'hold' (did you mean 'holds'?)": "vnnlib,result\n{0},hold",
    "twice": "vnnlib,result\n{0},holds\n{0},holds",
    "contradict each other": "vnnlib,result\n{0},sat\n{1},unsat",
    "give a number >= 0, or none": "vnnlib,result,seconds\n{0},holds,soon",
}


def test_results_that_do_not_fit_are_refused_and_change_nothing(out, data_folder, tmp_path, capsys):
    assert export(out, data_folder, "--methods", "fcnn", "--inputs", "1", "--radii", "0.1", "0.2") == 0
    names = pd.read_csv(out / "vnnlib" / "questions.csv")["vnnlib"].tolist()
    before = (out / "radii.parquet").read_bytes()
    for message, text in BAD_ANSWERS.items():
        results = answers(out, tmp_path, text.format(*names))
        assert export(out, data_folder, "--import", str(results)) == 2, message
        assert message in capsys.readouterr().err
    assert (out / "radii.parquet").read_bytes() == before


def test_bad_usage_is_one_clear_line(out, data_folder, tmp_path, capsys):
    for message, options in {
        "only linf balls": ["--norms", "l2"],
        "unknown format 'vnnlb' (did you mean 'vnnlib'?)": ["--format", "vnnlb"],
        "unknown method 'fcn' (did you mean 'fcnn'?)": ["--methods", "fcn"],
        "unknown VNN-LIB version": ["--vnnlib-version", "3"],
        "give numbers > 0": ["--radii", "0"],
        "no question can be written": ["--methods", "smoothing_gaussian"],
        "use 1 to 40 letters": ["--import", str(tmp_path / "nowhere.csv"), "--tool", "a:b"],
        "export the questions first": ["--import", str(tmp_path / "nowhere.csv")],
    }.items():
        assert export(out, data_folder, *options) == 2, message
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1
        assert not (out / "vnnlib").exists()
    assert main([str(tmp_path / "nothing")]) == 2


def test_features_that_nobody_can_change_are_pinned_in_the_question():
    x = np.array([[0.25, 0.5], [0.1, 0.9]], dtype=np.float32)
    question = ask(x, 0.25, "free", np.array([True, False, False, True]))
    assert question.lower[0, 1] == question.upper[0, 1] == x[0, 1]
    assert question.lower[1, 0] == question.upper[1, 0] == x[1, 0]
    assert question.lower[0, 0] <= 0.0 and question.upper[1, 1] >= 1.15
    assert 0.25 <= question.reach < 0.2501


SCORES = {
    "linf_distance": {"hidden": [5, 4]},
    "l1_lipschitz": {"hidden": [5, 4]},
    "fcnn_learned": {"head": "max_affine", "pieces": 3, "map_settings": {"hidden": [5, 4]}},
    "fcnn_union": {
        "members": {
            "pixels": {"method": "fcnn", "hidden": [3]},
            "linf": {
                "method": "fcnn_learned",
                "feature_map": "linf_distance",
                "map_settings": {"hidden": [5, 4]},
            },
        }
    },
}


@pytest.mark.parametrize("name", SCORES)
def test_lipschitz_networks_learned_maps_and_unions_are_written(name, tmp_path):
    """What is written is held against the method itself, or UsageError is raised."""
    kind = get_method(name)
    method = kind(from_table(kind.Settings, SCORES[name], name))
    method.build((6,), seed=0)
    method.model.double().eval()
    method.set_threshold(0.25)
    write_onnx(method, (6,), tmp_path / "score.onnx")
    assert (tmp_path / "score.onnx").stat().st_size > 0
