"""A fitted estimator as files without pickle: the classifier's checkpoint, and the rest in its settings as JSON."""

from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fcnn.checkpoints import load_classifier, load_extra, save_classifier
from fcnn.operating_point import Probability

KIND = "FCNNClassifier"
LABEL_KINDS = "biufU"
Estimator = TypeVar("Estimator")


def save_estimator(estimator: Any, path: Path) -> None:
    """Write an FCNNClassifier to ``path``; raise ValueError for labels or settings that JSON cannot hold."""
    classes = estimator.classes_
    texts = classes.dtype.kind in "OT" and all(isinstance(label, str) for label in classes)
    if not texts and classes.dtype.kind not in LABEL_KINDS:
        raise ValueError(f"labels {classes.tolist()} cannot be saved: use texts, numbers or booleans")
    names = getattr(estimator, "feature_names_in_", None)
    extra = {
        "kind": KIND,
        "settings": {name: _plain(name, value) for name, value in estimator.get_params(deep=False).items()},
        "classes": {"kind": "O" if texts else classes.dtype.str, "labels": classes.tolist()},
        "sensitive": int(estimator.sensitive_),
        "features": int(estimator.n_features_in_),
        "feature_names": None if names is None else list(map(str, names)),
        "low": estimator.low_.tolist(),
        "span": estimator.span_.tolist(),
        "mutable": estimator.mutable_.tolist(),
        "passes": int(estimator.n_iter_),
        "odds": [estimator.odds_.slope, estimator.odds_.offset],
        "probability": [estimator.probability_.slope, estimator.probability_.offset],
    }
    save_classifier(estimator.classifier_, path, extra)


def load_estimator(kind: type[Estimator], path: Path) -> Estimator:
    """Return what ``save_estimator`` wrote, as an estimator of this class; raise ValueError for other files."""
    classifier, extra = load_classifier(path), load_extra(path)
    if not isinstance(extra, dict) or extra.get("kind") != KIND:
        raise ValueError(
            f"checkpoint {path} is not of an {KIND}: load it with fcnn.checkpoints.load_classifier"
        )
    try:
        settings = {
            name: tuple(value) if isinstance(value, list) else _pairs(value)
            for name, value in extra["settings"].items()
        }
        # Its fitted attributes are set here, not by fit.
        estimator: Any = kind(**settings)
        labels = extra["classes"]
        estimator.classes_ = np.array(
            labels["labels"], dtype=object if labels["kind"] == "O" else labels["kind"]
        )
        estimator.sensitive_, estimator.n_features_in_ = extra["sensitive"], extra["features"]
        if extra["feature_names"] is not None:
            estimator.feature_names_in_ = np.array(extra["feature_names"], dtype=object)
        estimator.low_, estimator.span_ = np.array(extra["low"]), np.array(extra["span"])
        estimator.mutable_ = np.array(extra["mutable"], dtype=bool)
        estimator.odds_, estimator.probability_ = (
            Probability(*extra[name]) for name in ("odds", "probability")
        )
        estimator.n_iter_ = extra["passes"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"checkpoint {path}: its settings are damaged ({error}); save it again") from error
    estimator.classifier_ = classifier
    return estimator


def _plain(name: str, value: Any) -> Any:
    """A setting as JSON; a mapping as pairs, since its keys may be numbers; a random state that is no seed is None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {"pairs": [[_plain(name, key), _plain(name, item)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if name == "random_state":
        return None
    raise ValueError(f"{name} = {value!r} cannot be saved: use numbers, texts and lists")


def _pairs(value: Any) -> Any:
    return dict(map(tuple, value["pairs"])) if isinstance(value, dict) else value
