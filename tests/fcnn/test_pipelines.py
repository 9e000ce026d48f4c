"""What scikit-learn wraps around the estimator: certificates are of what the wrapper predicts, or refused."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fcnn import FCNNClassifier, certify_pipeline

ORDERS = {"l1": 1, "l2": 2, "linf": np.inf}


def quick(**settings) -> FCNNClassifier:
    return FCNNClassifier(**{"hidden": (8,), "epochs": 6, "random_state": 0, **settings})


@pytest.fixture(scope="module")
def programs():
    """A data frame of numbers and categories, and labels of which one in ten is malware."""
    rng = np.random.default_rng(0)
    malware = rng.random(1000) < 0.1
    frame = pd.DataFrame(rng.standard_normal((1000, 3)), columns=["size", "imports", "entropy"])
    frame.loc[malware, ["size", "imports"]] += 2.0
    frame["size"] *= 5000
    frame["packer"] = np.where(malware & (rng.random(1000) < 0.5), "upx", "none")
    return frame, np.where(malware, "malware", "harmless")


@pytest.fixture(scope="module")
def pipeline(programs):
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["size", "imports", "entropy"]),
            ("packer", OneHotEncoder(sparse_output=False), ["packer"]),
        ],
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    steps = [("columns", columns), ("fcnn", quick(immutable=["packer_none", "packer_upx"]))]
    return Pipeline(steps).fit(*programs)


def test_a_pipeline_is_certified_in_its_last_steps_units(programs, pipeline):
    frame, _ = programs
    last, inputs = pipeline[-1], pipeline[:-1].transform(frame)
    assert list(last.feature_names_in_) == ["size", "imports", "entropy", "packer_none", "packer_upx"]
    radii = certify_pipeline(pipeline, frame, "linf", units="original")["linf"]
    np.testing.assert_array_equal(radii, last.certify(inputs, "linf", units="original")["linf"])
    caught = pipeline.predict(frame) == "malware"
    assert caught.any() and (radii[caught, :3] > 0).all() and (radii[:, 3:] == 0).all()
    for signs in np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T:
        moved = inputs.copy()
        moved.iloc[:, :3] += 0.999 * radii[:, :3] * signs
        assert (last.predict(moved)[caught] == "malware").all()


@pytest.mark.parametrize("sensitive", ["malware", "harmless"])
@pytest.mark.parametrize("response", ["predict_proba", "decision_function"])
@pytest.mark.parametrize("label", ["malware", "harmless"])
def test_a_moved_threshold_is_the_one_that_is_certified(programs, sensitive, response, label):
    frame, y = programs
    x = frame[["size", "imports", "entropy"]].to_numpy()
    inner = quick(sensitive=sensitive).fit(x, y)
    place = list(inner.classes_).index(label)
    scores = inner.predict_proba(x)[:, place]
    if response == "decision_function":
        scores = inner.decision_function(x) * (1 if place == 1 else -1)
    for share in (0.3, 0.9):
        threshold = float(np.quantile(scores, share))
        model = FixedThresholdClassifier(
            inner, threshold=threshold, pos_label=label, response_method=response
        )
        model.fit(x, y)
        predicted = model.predict(x)
        assert (predicted != inner.predict(x)).any()
        radii = certify_pipeline(model, x)
        for norm, radius in radii.items():
            certified = radius > 0
            assert (predicted[certified] == sensitive).all()
            assert (
                certified.sum() >= (predicted == sensitive).sum() - 2
            )  # but for those at the very threshold
            rng = np.random.default_rng(0)
            for _ in range(10):
                step = rng.standard_normal(x.shape)
                step *= 0.999 * (radius / np.linalg.norm(step, ORDERS[norm], axis=1))[:, None]
                moved = x + step * model.estimator_.span_
                assert (model.predict(moved)[certified] == sensitive).all()


def test_an_input_on_the_threshold_is_not_certified(programs):
    """What reaches a wrapper's threshold is positive; a certificate asks for more, since scores are rounded."""
    frame, y = programs
    x = frame[["size", "imports", "entropy"]].to_numpy()
    inner = quick(epochs=3).fit(x, y)
    scores = inner.decision_function(x)
    on_it = int(np.argsort(scores)[-20])
    sensitive_is_positive = inner.classes_[1] == "malware"
    fixed = FixedThresholdClassifier(
        inner, threshold=scores[on_it], response_method="decision_function", pos_label=inner.classes_[1]
    ).fit(x, y)
    assert sensitive_is_positive and fixed.predict(x[[on_it]])[0] == "malware"
    radius = certify_pipeline(fixed, x, "l2")["l2"]
    assert radius[on_it] == 0 and (radius > 0).sum() > 10


def test_a_tuned_threshold_inside_a_search_inside_a_pipeline(programs):
    frame, y = programs
    x = frame[["size", "imports", "entropy"]].to_numpy()
    tuned = TunedThresholdClassifierCV(quick(epochs=3), cv=2, scoring="balanced_accuracy", random_state=0)
    search = GridSearchCV(tuned, {"estimator__weight": [0.0, 0.05]}, cv=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make_pipeline(StandardScaler(), search).fit(x, y)
    radius = certify_pipeline(model, x, "l2")["l2"]
    predicted = model.predict(x)
    assert (predicted[radius > 0] == "malware").all() and (radius[predicted == "malware"] > 0).mean() > 0.99


def test_scores_and_searches_of_scikit_learn(programs, pipeline):
    frame, y = programs
    assert cross_val_score(pipeline, frame, y, scoring="roc_auc", cv=3).min() > 0.9
    search = GridSearchCV(pipeline, {"fcnn__weight": [0.0, 0.05]}, scoring="roc_auc", cv=2).fit(frame, y)
    assert search.best_score_ > 0.9
    assert (certify_pipeline(search, frame, "l1")["l1"] > 0).any()


def test_calibration_by_scikit_learn_works_and_is_not_certified(programs):
    frame, y = programs
    x = frame[["size", "imports", "entropy"]].to_numpy()
    model = CalibratedClassifierCV(quick(), cv=2).fit(x, y)
    assert model.predict_proba(x)[:, 1].mean() == pytest.approx((y == "malware").mean(), abs=0.03)
    with pytest.raises(ValueError, match="CalibratedClassifierCV cannot be certified"):
        certify_pipeline(model, x)
