"""The classifier as a scikit-learn estimator: arrays in, arrays out, and certified radii beside the predictions."""

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from fcnn.certificates import NORMS, check_norm
from fcnn.certify import CERTIFICATES, certify_batch
from fcnn.classifier import FeatureConvexClassifier
from fcnn.feature_maps import CenteredAbs, FeatureMap, Identity
from fcnn.losses import RegularisedLoss
from fcnn.networks import ConvexMLP
from fcnn.training import TrainSettings, train

FEATURE_MAPS = ("identity", "centered_abs")


class FCNNClassifier(ClassifierMixin, BaseEstimator):
    """Feature-convex classifier for tables: a binary classifier whose sensitive class has certified radii.

    ``classes_[1]`` is the sensitive class unless ``sensitive`` names one. Columns are scaled to [0, 1] with the
    training data's range unless ``scale`` is False; radii are then in the scaled units, see ``certify``.

    Args:
        hidden: widths of the convex network's hidden layers.
        feature_map: "identity" (centred inputs) or "centered_abs" (with their absolute values beside them).
        norm, weight: norm to be robust in, and how much: weight of the gradient regulariser.
        epochs, batch_size, learning_rate: of training (Adam, cosine schedule).
        sensitive: label of the sensitive class; None for the greater of the two labels.
        scale: whether columns are scaled to [0, 1].
        random_state: seed of the weights and batches.

    Attributes set by ``fit``: ``classes_`` (2,), ``n_features_in_``, ``classifier_`` (a FeatureConvexClassifier),
    ``low_`` and ``span_`` (d,), the scaling. Source: Pfrommer, Anderson, Piet, Sojoudi (NeurIPS 2023).
    """

    def __init__(
        self,
        hidden: Sequence[int] = (64, 32),
        feature_map: str = "identity",
        norm: str = "l2",
        weight: float = 0.01,
        epochs: int = 100,
        batch_size: int = 64,
        learning_rate: float = 0.01,
        sensitive: Any = None,
        scale: bool = True,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.feature_map = feature_map
        self.norm = norm
        self.weight = weight
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.sensitive = sensitive
        self.scale = scale
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on X (N, d) and labels y (N,) of two classes; return the estimator.

        Raises ValueError for settings or data that cannot be used.
        """
        check_norm(self.norm)
        if self.feature_map not in FEATURE_MAPS:
            raise ValueError(f"feature_map = {self.feature_map!r}: choose from {', '.join(FEATURE_MAPS)}")
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, positions = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"{'one class' if len(self.classes_) < 2 else 'multiclass'}: y holds {len(self.classes_)} class(es)"
            )
        self.sensitive_ = self._sensitive_position()
        self._learn_scale(X)
        x = self._tensor(X)
        target = torch.from_numpy((positions == self.sensitive_).astype(np.int64))
        seed = int(check_random_state(self.random_state).randint(2**31))
        self.classifier_ = self._untrained(x, seed)
        settings = TrainSettings(
            epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate
        )
        loss = RegularisedLoss({self.norm: self.weight})
        train(self.classifier_, loss, (x, target), settings, seed=seed, after_step=self.classifier_.project)
        return self

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return (N,) float64, positive for ``classes_[1]``: the score, its sign turned if classes_[0] is sensitive."""
        score = self._scores(self._checked(X))
        return score if self.sensitive_ == 1 else -score

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return the labels (N,); sensitive where the score is positive."""
        sensitive = self._scores(self._checked(X)) > 0
        return self.classes_[np.where(sensitive, self.sensitive_, 1 - self.sensitive_)]

    def certify(
        self,
        X: ArrayLike,
        norms: Sequence[str] = NORMS,
        certificate: str = "refined",
    ) -> dict[str, np.ndarray]:
        """Return certified radii, norm -> (N,) float64, in the units of the scaled columns; 0 where not certified.

        No change of a scaled row by less than its radius turns it from sensitive to not sensitive. certificate:
        "closed_form", "separable", "in_domain" (the scaled row stays in [0, 1]) or "refined" (in the free domain:
        columns of new data may lie outside the training range). Raises ValueError for other names, and for rows
        outside [0, 1] with "in_domain".
        """
        rows = torch.from_numpy(self._scaled(self._checked(X)))
        domain = "free" if "free" in CERTIFICATES.get(certificate, ()) else None
        radii = certify_batch(self.classifier_, rows, norms, certificate, domain=domain)
        return {norm: radius.numpy() for norm, radius in radii.items()}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def _sensitive_position(self) -> int:
        if self.sensitive is None:
            return 1
        matches = np.flatnonzero(self.classes_ == self.sensitive)
        if len(matches) != 1:
            known = ", ".join(map(repr, self.classes_.tolist()))
            raise ValueError(
                f"sensitive = {self.sensitive!r} is none of the labels in y: choose from {known}"
            )
        return int(matches[0])

    def _learn_scale(self, rows: np.ndarray) -> None:
        self.low_, self.span_ = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
        if self.scale:
            self.low_ = rows.min(axis=0)
            span = rows.max(axis=0) - self.low_
            self.span_ = np.where(span > 0, span, 1.0)

    def _untrained(self, x: Tensor, seed: int) -> FeatureConvexClassifier:
        mean = x.mean(dim=0)
        feature_map: FeatureMap = CenteredAbs(mean) if self.feature_map == "centered_abs" else Identity(mean)
        width = math.prod(feature_map.feature_shape(x.shape[1:]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return FeatureConvexClassifier(ConvexMLP(width, tuple(self.hidden)), feature_map)

    def _checked(self, rows: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, rows, dtype=np.float64, reset=False)

    def _scaled(self, rows: np.ndarray) -> np.ndarray:
        return (rows - self.low_) / self.span_

    def _tensor(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self._scaled(rows).astype(np.float32))

    def _scores(self, rows: np.ndarray) -> np.ndarray:
        """Scores (N,) in float64 of the function that is certified."""
        frozen = self.classifier_.frozen()
        with torch.no_grad():
            return frozen.score(torch.from_numpy(self._scaled(rows))).numpy()
