"""python -m bench.certify: certificates of a network that another program trained."""

import json
import shutil
import warnings

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from skl2onnx import to_onnx
from sklearn.neural_network import MLPClassifier
from torch import nn
from undrawn import without_drawing

from baselines.bounds import certify as bounds
from baselines.bounds.certify import RadiusSearch
from bench.basics.errors import UsageError
from bench.certify.__main__ import main
from bench.certify.meaning import sensitive_logit
from bench.data import load_dataset
from bench.falsify import main as falsify
from bench.kept.finished import load_method
from bench.kept.store import Store
from fcnn import ConvexMLP, FeatureConvexClassifier
from fcnn.checkpoints import save_classifier

ORDERS = {"l1": 1, "l2": 2, "linf": np.inf}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """own.npz, a table whose sensitive class is 1, and net.onnx, a scikit-learn classifier trained on it."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    x = rng.random((300, 5)).astype(np.float32)
    y = (x @ [1.0, 2.0, -1.0, 0.5, 0.0] + 0.05 * rng.standard_normal(300) > 1.2).astype(np.int64)
    np.savez(folder / "own.npz", x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    classifier = MLPClassifier((12, 8), max_iter=300, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier.fit(x[:200], y[:200])
    onnx.save(to_onnx(classifier, x[:1]), folder / "net.onnx")
    layers = []
    for weight, bias in zip(classifier.coefs_, classifier.intercepts_, strict=True):
        layers += [nn.Linear(*weight.shape), nn.ReLU()]
        layers[-2].weight.data, layers[-2].bias.data = torch.tensor(weight.T), torch.tensor(bias)
    torch.save(nn.Sequential(*layers[:-1]).double().state_dict(), folder / "weights.pt")
    return folder, classifier, nn.Sequential(*layers[:-1]).double().eval()


@pytest.fixture(scope="module")
def run(folder):
    folder, *_ = folder
    out = folder / "out"
    arguments = ["--model", folder / "net.onnx", "--data", folder / "own.npz", "--out", out, "--sigma", 0.05]
    assert main([*map(str, arguments), "--norms", "l2", "linf", "--draws", "500", "--inputs", "20"]) == 0
    return out, *Store(out).read_run()


def rows_of(radii: pd.DataFrame, certificate: str, norm: str, domain: str = "free") -> pd.DataFrame:
    chosen = (radii["certificate"] == certificate) & (radii["norm"] == norm) & (radii["domain"] == domain)
    return radii[chosen].set_index("index")


def test_a_scikit_learn_network_is_certified_by_crown(folder, run):
    path, classifier, copy = folder
    _, _, radii, _ = run
    data = load_dataset("own", path)
    for norm in ("l2", "linf"):
        rows = rows_of(radii, "crown", norm)
        certified = rows[rows["outcome"] == "certified"]
        assert len(certified) > 5
        x = torch.from_numpy(data.x_test[certified.index])
        assert (classifier.predict(x.numpy().astype(float)) == 1).all()
        # The same network put together by hand has the same radii; ONNX keeps its weights in float32.
        expected = bounds(copy, x, norm, "crown", tolerance=1e-3)
        np.testing.assert_allclose(certified["radius"].astype(float), expected, rtol=5e-3)


def test_no_certificate_is_broken_by_scikit_learns_own_predictions(folder, run):
    path, classifier, _ = folder
    _, _, radii, _ = run
    data = load_dataset("own", path)
    rng = np.random.default_rng(1)
    certified = radii[(radii["outcome"] == "certified") & (radii["guarantee"] == "deterministic")]
    certified = certified[certified["domain"] == "free"]
    assert set(certified["certificate"]) == {"ibp", "crown_ibp", "crown", "alpha_crown", "alpha_beta_crown"}
    for norm, rows in certified.groupby("norm"):
        x = data.x_test[rows["index"]].astype(float)
        for _ in range(50):
            step = rng.standard_normal(x.shape) * (rng.random(x.shape) < 0.5)
            size = np.linalg.norm(step, ORDERS[norm], axis=1, keepdims=True) + 1e-12
            moved = x + step / size * rows["radius"].to_numpy(dtype=float)[:, None]
            assert (classifier.predict(moved) == 1).all()


def test_branch_and_bound_brackets_the_bounds(run):
    _, _, radii, _ = run
    for norm in ("l2", "linf"):
        tight, loose = rows_of(radii, "alpha_beta_crown", norm), rows_of(radii, "crown", norm)
        both = (tight["outcome"] == "certified") & (loose["outcome"] == "certified")
        assert both.sum() > 5
        upper = tight["radius_upper"][both].astype(float)
        assert (loose["radius"][both].astype(float) <= upper + 1e-12).all()
        assert upper.notna().all()


def test_the_run_is_complete_and_says_what_it_is(run):
    out, record, radii, predictions = run
    for name in ("radii.parquet", "curves.csv", "summary.csv", "report.html", "figures"):
        assert (out / name).exists()
    assert record["configuration"]["reduced"] == "20 of 100 test inputs"
    assert record["methods"]["bounds"]["title"].startswith("net: ")
    smoothed = radii[radii["method"] == "smoothing_gaussian"]
    assert (smoothed["guarantee"] == "probabilistic").all() and smoothed["draws"].notna().any()
    assert len(predictions) == 3 * 20


@pytest.fixture
def finished(folder, run, tmp_path):
    """A copy of the run, and the command line that attacks it."""
    shutil.copytree(run[0], tmp_path / "copy")
    attack = [str(tmp_path / "copy"), "--data-dir", str(folder[0]), "--restarts", "1", "--steps", "20"]
    return Store(tmp_path / "copy"), attack


def plant(store: Store, method: str, factor: float) -> None:
    """Make all radii of a method ``factor`` times as large."""
    record, radii, _ = store.read_run()
    cells = [store.cell("own", name, 0) for name in radii["method"].unique()]
    (mine,) = (cell for cell in cells if cell.method == method)
    rows, predictions = mine.read()
    meta = mine.record()["meta"]
    mine.write("planted", rows.assign(radius=factor * rows["radius"]), predictions, mine.read_state(), meta)
    store.merge(cells)
    store.write_run(record)


@pytest.mark.slow
def test_the_certificates_of_a_given_network_hold_under_attack(finished):
    store, attack = finished
    (store.out.parent / "net.onnx").unlink(missing_ok=True)  # the copy kept with the rows is enough
    assert falsify([*attack, "--bracket", "10"]) == 0
    table = pd.read_csv(store.out / "falsify.csv")
    assert set(table["method"]) == {"bounds", "alpha_beta_crown", "smoothing_gaussian"}
    deterministic = table[table["guarantee"] == "deterministic"]
    assert (deterministic["attacked"] >= 5).all() and (deterministic["broken"] == 0).all()
    bracket = pd.read_csv(store.out / "bracket.csv")
    bracket = bracket[(bracket["method"] == "alpha_beta_crown") & (bracket["adversarial"] > 0)]
    assert (bracket["adversarial"] >= bracket["certified"]).all()
    assert np.isfinite(bracket["adversarial"]).any()


@pytest.mark.slow
def test_a_planted_radius_that_is_too_large_is_caught(finished, capsys):
    store, attack = finished
    plant(store, "alpha_beta_crown", 1.2)
    assert falsify([*attack, "--bracket", "0"]) == 1
    table = pd.read_csv(store.out / "falsify.csv").set_index("method")
    assert (table.loc["alpha_beta_crown", "broken"] > 0).all()
    assert (table.loc["bounds", "broken"] == 0).all()
    assert "Counterexamples are in" in capsys.readouterr().out


def test_a_changed_or_unsafe_model_is_not_attacked(finished, capsys):
    store, attack = finished
    kept = store.out / "model" / "net.onnx"
    kept.write_bytes(kept.read_bytes()[:-1])
    assert falsify(attack) == 2
    kept.unlink()
    assert falsify(attack) == 2
    _, radii, _ = store.read_run()
    for name in radii["method"].unique():
        cell = store.cell("own", name, 0)
        cell.write("other", *cell.read(), cell.read_state(), cell.record()["meta"] | {"model_file": "net.pt"})
    assert falsify(attack) == 2
    said = capsys.readouterr().err.strip().splitlines()
    said = [line for line in said if line.startswith("bench.falsify")]
    for line, word in zip(said, ("were written", "cannot be read", "can run code"), strict=True):
        assert word in line and "model" in line


def test_a_kept_network_is_opened_again_with_the_threshold_it_was_certified_with(folder, tmp_path):
    path, classifier, _ = folder
    arguments = ["--model", str(path / "net.onnx"), "--data", str(path / "own.npz"), "--norms", "l2"]
    arguments += ["--certificates", "ibp", "--threshold", "0.9", "--out", str(tmp_path / "out")]
    assert without_drawing(main)(arguments) == 0
    data = load_dataset("own", path)
    probability = classifier.predict_proba(data.x_test)[:, 1]
    assert ((probability > 0.5) & (probability < 0.9)).any()
    method = load_method(Store(tmp_path / "out"), data, "own", "bounds", 0)
    assert ((method.score(torch.from_numpy(data.x_test)) > 0).numpy() == (probability > 0.9)).all()


def test_a_checkpoint_of_ours_gets_its_four_certificates(folder, tmp_path, capsys):
    path, *_ = folder
    torch.manual_seed(0)
    classifier = FeatureConvexClassifier(ConvexMLP(5, (6,)), threshold=-1.0).eval()
    save_classifier(classifier, tmp_path / "own.safetensors")
    out = tmp_path / "out"
    arguments = [
        "--model",
        str(tmp_path / "own.safetensors"),
        "--data",
        str(path / "own.npz"),
        "--norms",
        "l1",
    ]
    assert without_drawing(main)([*arguments, "--out", str(out)]) == 0
    assert "closed_form, separable, in_domain, refined: yes" in capsys.readouterr().out
    _, radii, _ = Store(out).read_run()[0:3]
    data = load_dataset("own", path)
    for certificate, domain in [
        ("closed_form", "free"),
        ("separable", "free"),
        ("in_domain", "box"),
        ("refined", "box"),
    ]:
        rows = rows_of(radii, certificate, "l1", domain)
        expected = classifier.certify(torch.from_numpy(data.x_test[rows.index]), ("l1",), certificate)["l1"]
        np.testing.assert_allclose(rows["radius"].astype(float).fillna(0.0), expected, rtol=1e-12)


def bad(folder, tmp_path):
    """What a user may get wrong: arguments, and what the one line must say."""
    model, data = str(folder / "net.onnx"), str(folder / "own.npz")
    rng = np.random.default_rng(0)
    x, y = rng.random((20, 5)), np.arange(20) % 2
    np.savez(tmp_path / "outside.npz", x_train=3 * x, y_train=y, x_test=x, y_test=y)
    np.savez(tmp_path / "wide.npz", x_train=x[:, :4], y_train=y, x_test=x[:, :4], y_test=y)
    return {
        "values from": ["--model", model, "--data", str(tmp_path / "outside.npz")],
        "takes inputs of shape (5,)": ["--model", model, "--data", str(tmp_path / "wide.npz")],
        "does not exist": ["--model", model, "--data", str(tmp_path / "nowhere.npz")],
        "did you mean 'crown'": ["--model", model, "--data", data, "--certificates", "crwn"],
        "not a feature-convex checkpoint": ["--model", model, "--data", data, "--certificates", "refined"],
        "needs --sigma": ["--model", model, "--data", data, "--certificates", "smoothing_laplace"],
        "unknown norm 'l3'": ["--model", model, "--data", data, "--norms", "l3"],
        "--sigma -1.0": ["--model", model, "--data", data, "--sigma", "-1"],
        "it is a pickle": ["--model", str(folder / "weights.pt"), "--data", data, "--trust"],
        "required: --data": ["--model", model],
        "unknown data set 'digit_38' (did you mean 'digits_38'?)": ["--model", model, "--data", "digit_38"],
    }


def test_bad_input_is_one_clear_line_and_exit_code_2(folder, tmp_path, capsys):
    for message, arguments in bad(folder[0], tmp_path).items():
        out = tmp_path / "out"
        assert main([*arguments, "--out", str(out)]) == 2, message
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1 and "Traceback" not in told
        assert not out.exists()


def test_a_method_that_fails_costs_its_rows_and_the_exit_code_says_so(folder, tmp_path, capsys, monkeypatch):
    path, *_ = folder
    radii = RadiusSearch.radii

    def without_crown(self, method, domain="free"):
        if method == "crown":
            raise RuntimeError("no luck today")
        return radii(self, method, domain)

    monkeypatch.setattr(RadiusSearch, "radii", without_crown)
    arguments = ["--model", str(path / "net.onnx"), "--data", str(path / "own.npz"), "--norms", "l2"]
    arguments += ["--certificates", "ibp", "crown", "--inputs", "8", "--out", str(tmp_path / "out")]
    assert without_drawing(main)(arguments) == 1
    assert "no luck today" in capsys.readouterr().err
    _, found, _ = Store(tmp_path / "out").read_run()
    outcomes = found.groupby("certificate")["outcome"].unique()
    assert list(outcomes["crown"]) == ["error"] and "certified" in outcomes["ibp"]
    (record,) = (json.loads(file.read_text()) for file in (tmp_path / "out").rglob("cell.json"))
    assert "no luck today" in record["meta"]["errors"][0]


def test_a_network_read_the_wrong_way_round_is_pointed_out(folder, tmp_path, capsys):
    path, *_ = folder
    arguments = ["--model", str(path / "net.onnx"), "--data", str(path / "own.npz"), "--certificates", "ibp"]
    arguments += ["--norms", "l2", "--sensitive-logit", "0", "--out", str(tmp_path / "out")]
    assert without_drawing(main)(arguments) == 0
    assert "--sensitive-logit" in capsys.readouterr().err


def test_a_number_is_a_logit_whatever_the_classes_are_called():
    data = load_dataset("digits_38")
    assert data.labels == ("3", "8")
    assert [sensitive_logit(given, data) for given in ("3", "8", "0", "1")] == [3, 8, 0, 1]
    assert sensitive_logit("inner", load_dataset("circles")) == 1
    with pytest.raises(UsageError, match="unknown class in --sensitive-logit 'eight'"):
        sensitive_logit("eight", data)
