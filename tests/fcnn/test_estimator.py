"""The scikit-learn estimator: scikit-learn's own checks, and radii that hold in the units it says."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fcnn
from fcnn import FCNNClassifier
from fcnn.checkpoints import save_classifier

ORDERS = {"l1": 1, "l2": 2, "linf": np.inf}


def quick(**settings) -> FCNNClassifier:
    return FCNNClassifier(**{"hidden": (16,), "epochs": 30, "random_state": 0, **settings})


# Batches and held-out rows are drawn by position, so a row of weight 2 is not two rows.
DRAWN = "batches are drawn: a weight is the row's share of the loss, not a repetition"
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": DRAWN,
    "check_sample_weight_equivalence_on_sparse_data": DRAWN,
}


@pytest.mark.slow
@parametrize_with_checks([quick()], expected_failed_checks=lambda _: EXPECTED)
def test_it_is_a_scikit_learn_classifier(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def cancer():
    x, y = load_breast_cancer(return_X_y=True)
    return train_test_split(x, y, random_state=0, stratify=y)


@pytest.fixture(scope="module")
def fitted(cancer):
    x, _, y, _ = cancer
    return quick(sensitive=0).fit(x, y)  # malignant tumours are label 0


def test_it_learns_and_names_the_classes_it_was_given(cancer, fitted):
    _, x, _, y = cancer
    assert fitted.score(x, y) > 0.9
    assert set(fitted.predict(x)) == {0, 1}
    assert ((fitted.decision_function(x) > 0) == (fitted.predict(x) == fitted.classes_[1])).all()


@pytest.mark.parametrize("certificate", ["closed_form", "separable", "refined"])
def test_no_row_within_its_radius_changes_class(certificate, cancer, fitted):
    _, x, _, _ = cancer
    radii = fitted.certify(x, certificate=certificate)
    sensitive = fitted.predict(x) == 0
    rng = np.random.default_rng(0)
    for norm, radius in radii.items():
        assert ((radius > 0) == sensitive).all()
        for _ in range(20):
            step = rng.standard_normal(x.shape) * (rng.random(x.shape) < 0.3)
            size = np.linalg.norm(step, ORDERS[norm], axis=1, keepdims=True) + 1e-12
            moved = x + 0.999 * step / size * radius[:, None] * fitted.span_
            assert (fitted.predict(moved)[sensitive] == 0).all()


def test_the_closed_form_is_the_margin_over_the_gradients_dual_norm(cancer, fitted):
    _, x, _, _ = cancer
    radius = fitted.certify(x, ("l2",), "closed_form")["l2"]
    score = -fitted.decision_function(x)  # label 0 is sensitive
    step = 1e-6 * np.eye(x.shape[1])
    row = int(np.argmax(radius))
    moved = x[row] + step * fitted.span_
    gradient = (-fitted.decision_function(moved) - score[row]) / 1e-6
    assert radius[row] == pytest.approx(score[row] / np.linalg.norm(gradient), rel=1e-3)


def test_in_domain_needs_rows_in_the_training_range(cancer, fitted):
    x, _, _, _ = cancer
    inside, free = (fitted.certify(x, ("linf",), name)["linf"] for name in ("in_domain", "separable"))
    assert (inside >= free).all() and (inside > free).any()
    with pytest.raises(ValueError, match=r"inputs in \[0, 1\]"):
        fitted.certify(10 * x, ("linf",), "in_domain")


def test_same_seed_same_scores_whatever_the_global_seed(cancer):
    x, _, y, _ = cancer
    one, other = quick(epochs=2).fit(x, y), quick(epochs=2).fit(x, y)
    np.testing.assert_array_equal(one.decision_function(x), other.decision_function(x))


def test_it_works_in_pipelines_and_searches(cancer):
    x, other_x, y, other_y = cancer
    search = GridSearchCV(
        make_pipeline(StandardScaler(), quick(epochs=5)), {"fcnnclassifier__weight": [0, 0.1]}, cv=2
    )
    assert search.fit(x, y).score(other_x, other_y) > 0.85


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "l3"}, "l3"),
        ({"feature_map": "square"}, "choose from identity, centered_abs"),
        ({"sensitive": 7}, "choose from 0, 1"),
        ({"immutable": [30]}, "no column 30: choose from positions 0 to 29"),
        ({"immutable": list(range(30))}, "nothing is left"),
        ({"class_weight": {2: 1.0}}, "2 is none of the labels"),
        ({"class_weight": "heavy"}, "'heavy'"),
        ({"other_recall": 99}, "other_recall = 99"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"validation_fraction": 0}, "validation_fraction = 0"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings, message, cancer):
    x, _, y, _ = cancer
    with pytest.raises(ValueError, match=message):
        quick(**settings).fit(x, y)


def rare(rows: int, share: float = 0.01, seed: int = 0, shift: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds that are separable to the eye, unless shifted by less, one of them rare; labels "fine" and "fraud"."""
    rng = np.random.default_rng(seed)
    fraud = rng.random(rows) < share
    x = rng.standard_normal((rows, 5))
    x[fraud, :3] += shift
    return 1000 * x, np.where(fraud, "fraud", "fine")


@pytest.fixture(scope="module")
def fraud_model():
    x, y = rare(4000)
    names = [f"column{place}" for place in range(5)]
    return quick(immutable=["column4"]).fit(pd.DataFrame(x, columns=names), y), names


def recalls(model, x, y):
    return [(model.predict(x)[y == label] == label).mean() for label in ("fine", "fraud")]


def test_a_rare_class_is_found_with_default_settings():
    x, y = rare(4000)
    model = FCNNClassifier(random_state=0).fit(x, y)
    assert min(recalls(model, *rare(4000, share=0.1, seed=1))) >= 0.9
    assert model.n_iter_ < model.epochs  # it stopped early


def test_a_sensitive_class_amid_the_other_is_named_as_the_cause_and_the_way_out_works():
    rng = np.random.default_rng(0)
    y = rng.random(6000) < 0.05
    x = np.where(y[:, None], 0.7, 6.0) * rng.standard_normal((6000, 8))
    with pytest.warns(UserWarning, match="hardly better than a guess.*centered_abs"):
        FCNNClassifier(random_state=0).fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = FCNNClassifier(feature_map="centered_abs", random_state=0).fit(x, y)
    found = model.predict(x)
    assert found[y].mean() >= 0.9 and (~found[~y]).mean() >= 0.9


def test_other_recall_is_the_share_of_the_other_class_that_stays():
    x, y = rare(3000, share=0.05, shift=1.5)
    strict = quick(other_recall=0.999, epochs=6).fit(x, y)
    loose = quick(other_recall=0.9, epochs=6).fit(x, y)
    new_x, new_y = rare(8000, share=0.1, seed=1, shift=1.5)
    (few, caught), (many, more) = recalls(strict, new_x, new_y), recalls(loose, new_x, new_y)
    assert few > 0.99 > many > 0.85
    assert more > caught


@pytest.mark.parametrize("sensitive", ["fine", "fraud"])
def test_prediction_score_certificate_and_probability_agree(sensitive):
    x, y = rare(2000, share=0.2, shift=1.5)
    model = quick(sensitive=sensitive, epochs=10).fit(x, y)
    predicted, score, probability = model.predict(x), model.decision_function(x), model.predict_proba(x)
    assert ((score > 0) == (predicted == model.classes_[1])).all()
    assert ((model.certify(x, "l2")["l2"] > 0) == (predicted == sensitive)).all()
    assert ((probability[:, 1] > 0.5) == (predicted == model.classes_[1])).all()
    likely = model.calibrated_proba(x)
    place = list(model.classes_).index(sensitive)
    assert ((likely[:, place] > model.operating_probability_) == (predicted == sensitive)).all()
    for moved in (-0.5, 0.5):
        radius = model.certify(x, "l2", "closed_form", threshold=moved)["l2"]
        assert ((radius > 0) == (score > moved if place else score < moved)).all()
    order = np.argsort(score)
    for found in (probability, likely):
        assert (np.diff(found[order, 1]) >= 0).all()
        np.testing.assert_allclose(found.sum(axis=1), 1)


def test_probabilities_are_calibrated_though_the_classes_are_balanced():
    x, y = rare(10_000, share=0.05, shift=1.2)
    model = quick(epochs=8).fit(x, y)
    new_x, new_y = rare(20_000, share=0.05, seed=1, shift=1.2)
    probability = model.calibrated_proba(new_x)[:, 1]
    assert model.operating_probability_ < 0.3
    for low, high in ((0.0, 0.02), (0.02, 0.2), (0.2, 1.0)):
        within = (probability >= low) & (probability < high)
        assert within.sum() > 50
        assert probability[within].mean() == pytest.approx(
            (new_y[within] == "fraud").mean(), rel=0.35, abs=0.01
        )


def test_weights_of_rows_count():
    x, y = rare(2000, share=0.2)
    wrong = np.random.default_rng(1).random(2000) < 0.4
    flipped = np.where(wrong, np.where(y == "fraud", "fine", "fraud"), y)
    model = quick(epochs=10).fit(x, flipped, sample_weight=np.where(wrong, 0, 1.0))
    assert min(recalls(model, x, y)) > 0.95
    # Only their proportions do.
    few = [quick(epochs=2).fit(x[:300], y[:300], sample_weight=unit * (1 + wrong[:300])) for unit in (1, 8)]
    np.testing.assert_array_equal(few[0].decision_function(x), few[1].decision_function(x))
    heavy = quick(epochs=10, class_weight={"fraud": 30.0}).fit(x[:, 3:], y)  # these columns say nothing
    assert (heavy.predict(x[:, 3:]) == "fraud").mean() > 0.9


def test_original_units_are_the_scaled_radii_times_the_range(fraud_model):
    model, names = fraud_model
    x = pd.DataFrame(rare(500, share=0.5, seed=2)[0], columns=names)
    scaled, original = model.certify(x, "linf"), model.certify(x, "linf", units="original")
    assert original["linf"].shape == (500, 5)
    assert (original["linf"][:, 4] == 0).all()  # immutable
    expected = scaled["linf"][:, None] * model.span_[:4]
    assert (original["linf"][:, :4] <= expected).all()
    np.testing.assert_allclose(original["linf"][:, :4], expected)


@pytest.mark.parametrize("feature_map", ["identity", "centered_abs"])
def test_immutable_columns_make_radii_larger_and_they_hold(feature_map):
    x, y = rare(2000, share=0.3)
    x[:, 2] += 1.5 * x[:, 0]
    model = quick(immutable=[0], feature_map=feature_map, epochs=10).fit(x, y)
    everything = quick(feature_map=feature_map, epochs=10)
    everything.__setstate__({**model.__getstate__(), "mutable_": np.ones(5, dtype=bool)})
    rng = np.random.default_rng(0)
    for certificate in ("closed_form", "refined"):
        some, all_of_them = (each.certify(x, certificate=certificate) for each in (model, everything))
        for norm, radius in some.items():
            assert (radius >= all_of_them[norm] * (1 - 5e-3)).all()
            assert (radius > 1.05 * all_of_them[norm]).any()
            caught = radius > 0
            for _ in range(20):
                step = rng.standard_normal(x.shape) * (rng.random(x.shape) < 0.5)
                step[:, 0] = 0
                step *= 0.999 * (radius / (np.linalg.norm(step, ORDERS[norm], axis=1) + 1e-12))[:, None]
                assert (model.predict(x + step * model.span_)[caught] == "fraud").all()


def test_column_names_are_kept_and_checked(fraud_model):
    model, names = fraud_model
    assert list(model.feature_names_in_) == names
    x = pd.DataFrame(rare(20)[0], columns=names)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(x[names[::-1]])
    np.testing.assert_array_equal(model.mutable_, [True, True, True, True, False])


def test_saved_and_loaded_it_is_the_same_bit_for_bit(fraud_model, tmp_path):
    model, names = fraud_model
    x = pd.DataFrame(rare(200, share=0.5, seed=3)[0], columns=names)
    model.save(tmp_path / "model.safetensors")
    loaded = FCNNClassifier.load(tmp_path / "model.safetensors")
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    for copied in (loaded, pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(copied.predict(x), model.predict(x))
        np.testing.assert_array_equal(copied.predict_proba(x), model.predict_proba(x))
        np.testing.assert_array_equal(copied.calibrated_proba(x), model.calibrated_proba(x))
        for norm, radius in model.certify(x).items():
            np.testing.assert_array_equal(copied.certify(x)[norm], radius)
        assert {**copied.get_params(), "immutable": None} == {**model.get_params(), "immutable": None}
        assert list(copied.feature_names_in_) == names


@pytest.mark.parametrize(
    "labels", [np.array([False, True]), np.array([-1, 1]), np.array([0.0, 2.0]), np.array(["a", "b"], object)]
)
def test_labels_keep_their_type_in_files(labels, tmp_path):
    x, y = rare(200, share=0.5)
    model = quick(epochs=2).fit(x, labels[(y == "fraud").astype(int)])
    model.save(tmp_path / "model.safetensors")
    loaded = FCNNClassifier.load(tmp_path / "model.safetensors")
    assert loaded.classes_.dtype == model.classes_.dtype and list(loaded.classes_) == list(labels)


def test_files_of_other_kinds_are_refused(tmp_path, fraud_model):
    save_classifier(fraud_model[0].classifier_, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="no more"):
        FCNNClassifier.load(tmp_path / "plain.safetensors")


def test_skops_keeps_and_loads_it_without_running_anything(fraud_model):
    skops = pytest.importorskip("skops.io")
    model, names = fraud_model
    x = pd.DataFrame(rare(50, seed=3)[0], columns=names)
    kept = skops.dumps(model)
    assert skops.get_untrusted_types(data=kept) == ["fcnn.estimator.FCNNClassifier"]
    loaded = skops.loads(kept, trusted=["fcnn.estimator.FCNNClassifier"])
    np.testing.assert_array_equal(loaded.decision_function(x), model.decision_function(x))


def test_the_names_that_wait_for_scikit_learn_are_listed():
    assert {"FCNNClassifier", "certify_pipeline"} <= set(dir(fcnn))


def test_certify_takes_one_norm_and_names_what_it_does_not_know(cancer, fitted):
    x = cancer[1]
    np.testing.assert_array_equal(fitted.certify(x, "l1")["l1"], fitted.certify(x, ["l1"])["l1"])
    for options, part in (
        ({"norms": "l3"}, "'l3'"),
        ({"units": "miles"}, "'miles'"),
        ({"threshold": np.inf}, "inf"),
    ):
        with pytest.raises(ValueError, match=part):
            fitted.certify(x, **options)


def test_fcnn_does_not_import_scikit_learn():
    code = "import sys, fcnn; assert 'sklearn' not in sys.modules; fcnn.FCNNClassifier; assert 'sklearn' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_what_is_not_fitted_is_not_saved(tmp_path):
    with pytest.raises(NotFittedError, match="not fitted"):
        FCNNClassifier().save(tmp_path / "mine.safetensors")
    assert not list(tmp_path.iterdir())
