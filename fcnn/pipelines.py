"""Certificates through what scikit-learn wraps around an FCNNClassifier: pipelines, searches, moved thresholds."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.pipeline import Pipeline

from fcnn.estimator import FCNNClassifier

# A wrapper compares rounded probabilities with its threshold: the score must clear it by this much, relatively.
CLEARANCE = 1e-9


def certify_pipeline(model: Any, X: ArrayLike, *args: Any, **options: Any) -> dict[str, np.ndarray]:
    """Return certified radii of rows X (N, d) as ``model.predict`` classifies them; the rest as FCNNClassifier.certify.

    model: fitted; a Pipeline that ends in an FCNNClassifier, a search over one (GridSearchCV, its best_estimator_), a
    FixedThresholdClassifier or TunedThresholdClassifierCV around one, whose threshold is the one that is certified, or
    any of these in each other. Radii are in the units of the **last step's** input, what the steps before it return:
    scaled by the FCNNClassifier, or its columns' own with units="original". They say how far that input may move; an
    earlier step that is not the identity has units of its own. Raises ValueError for other models.
    """
    threshold = 0.0
    while not isinstance(model, FCNNClassifier):
        if isinstance(model, Pipeline):
            X, model = (model[:-1].transform(X) if len(model) > 1 else X), model[-1]
        elif isinstance(model, FixedThresholdClassifier | TunedThresholdClassifierCV):
            threshold, model = _score_threshold(model), getattr(model, "estimator_", model.estimator)
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        else:
            raise ValueError(
                f"{type(model).__name__} cannot be certified: give a fitted FCNNClassifier, or a Pipeline, search or "
                "threshold classifier around one (of a CalibratedClassifierCV, certify one of its estimators)"
            )
    if threshold and options.get("threshold"):
        raise ValueError("the model moves the threshold itself: leave out threshold")
    return model.certify(X, *args, **{"threshold": threshold, **options})


def _score_threshold(wrapper: FixedThresholdClassifier | TunedThresholdClassifierCV) -> float:
    """The wrapper's threshold as one of the decision function of the FCNNClassifier inside."""
    inner = _innermost(getattr(wrapper, "estimator_", wrapper.estimator))
    tuned = isinstance(wrapper, TunedThresholdClassifierCV)
    value = wrapper.best_threshold_ if tuned else wrapper.threshold
    by_score = wrapper.response_method == "decision_function"
    if value == "auto":
        value = 0.0 if by_score else 0.5
    # Scikit-learn finds positive what reaches the threshold, of classes_[1] unless a label is named.
    label = wrapper._curve_scorer._get_pos_label() if tuned else wrapper.pos_label
    places = np.flatnonzero(inner.classes_ == label) if label is not None else [1]
    positive_is_sensitive = int(places[0]) == inner.sensitive_
    if by_score:
        score = value if positive_is_sensitive else -value
    else:
        score = inner.odds_.score_of(value if positive_is_sensitive else 1 - value)
    score += CLEARANCE * (1 + abs(score))
    if not math.isfinite(score):
        raise ValueError(f"threshold = {value}: must be a finite number")
    return score if inner.sensitive_ == 1 else -score


def _innermost(model: Any) -> FCNNClassifier:
    """The FCNNClassifier inside."""
    while not isinstance(model, FCNNClassifier):
        if isinstance(model, Pipeline):
            model = model[-1]
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        else:
            raise ValueError(
                f"{type(model).__name__} cannot be certified: a threshold needs an FCNNClassifier in it"
            )
    return model
