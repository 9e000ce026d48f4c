"""The scikit-learn estimator: scikit-learn's own checks, and radii that hold in the units it says."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fcnn import FCNNClassifier

ORDERS = {"l1": 1, "l2": 2, "linf": np.inf}


def quick(**settings) -> FCNNClassifier:
    return FCNNClassifier(**{"hidden": (16,), "epochs": 30, "random_state": 0, **settings})


@pytest.mark.slow
@parametrize_with_checks([quick()])
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
    ],
)
def test_settings_that_make_no_sense_are_named(settings, message, cancer):
    x, _, y, _ = cancer
    with pytest.raises(ValueError, match=message):
        quick(**settings).fit(x, y)


def test_fcnn_does_not_import_scikit_learn():
    code = "import sys, fcnn; assert 'sklearn' not in sys.modules; fcnn.FCNNClassifier; assert 'sklearn' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
