"""The classifier as a scikit-learn estimator: arrays in, arrays out, and certified radii beside the predictions."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from fcnn.certificates import NORMS, check_norm
from fcnn.certify import CERTIFICATES, certify_batch
from fcnn.checkpoints import pack_classifier, unpack_classifier
from fcnn.classifier import FeatureConvexClassifier
from fcnn.estimator_data import class_weights, hold_out, mutable_columns, warn_of_chance
from fcnn.estimator_files import load_estimator, save_estimator
from fcnn.feature_maps import CenteredAbs, FeatureMap, Identity
from fcnn.losses import WeightedLoss
from fcnn.networks import ConvexMLP
from fcnn.operating_point import Probability, choose_threshold
from fcnn.training import TrainSettings, train

FEATURE_MAPS = ("identity", "centered_abs")
UNITS = ("scaled", "original")
SMALLEST_BATCH, LARGEST_BATCH, BATCHES = 32, 512, 80


class FCNNClassifier(ClassifierMixin, BaseEstimator):
    """Feature-convex classifier for tables: a binary classifier whose sensitive class has certified radii.

    ``classes_[1]`` is the sensitive class unless ``sensitive`` names one. Columns are scaled to [0, 1] with the
    training data's range unless ``scale`` is False; radii are in the scaled units unless others are asked for, see
    ``certify``. ``predict``, the sign of ``decision_function`` and the certificates are of one function: no row has a
    radius that is not predicted sensitive.

    Args:
        hidden: widths of the convex network's hidden layers.
        feature_map: "identity" (centred inputs) or "centered_abs" (with their absolute values beside them), which is
            needed where the sensitive class lies amid the other one: a convex score is low in one convex place only.
        norm, weight: norm to be robust in, and how much: weight of the gradient regulariser.
        epochs: most passes over the data. n_iter_no_change: passes without a lower loss on the held-out rows before
            training stops, and the best weights are kept; None never stops early.
        batch_size: rows per step; "auto" is about an 80th of them, 32 to 512. learning_rate: of Adam, cosine schedule.
        class_weight: "balanced" (both classes count the same, however rare one is), a dict label -> weight, or None.
        other_recall: share of the other class to be classified right, such as 0.99 for one false alarm in a hundred.
            The threshold is set for it on the held-out rows. None: with "balanced" weights the threshold balances the
            two classes' recalls there; otherwise it is where they are equally likely there, weighted as they are.
        validation_fraction: share of the rows that are held out, for stopping, threshold and probabilities. Where that
            would leave fewer than five of a class none are, and threshold and probabilities come from all rows.
        immutable: columns that an adversary cannot change, by name or position: radii are for changes of the others.
        sensitive: label of the sensitive class; None for the greater of the two labels.
        scale: whether columns are scaled to [0, 1].
        random_state: seed of the held-out rows, the weights and the batches.

    Attributes set by ``fit``: ``classes_`` (2,), ``n_features_in_``, ``feature_names_in_`` (of data frames),
    ``classifier_`` (a FeatureConvexClassifier), ``low_`` and ``span_`` (d,), the scaling, ``mutable_`` (d,) bool,
    ``n_iter_`` passes made, ``odds_`` and ``probability_`` (see ``predict_proba``, ``calibrated_proba``).
    Source: Pfrommer, Anderson, Piet, Sojoudi (NeurIPS 2023).
    """

    def __init__(
        self,
        hidden: Sequence[int] = (64, 32),
        feature_map: str = "identity",
        norm: str = "l2",
        weight: float = 0.01,
        epochs: int = 100,
        n_iter_no_change: int | None = 10,
        batch_size: int | str = "auto",
        learning_rate: float = 0.01,
        class_weight: Mapping[Any, float] | str | None = "balanced",
        other_recall: float | None = None,
        validation_fraction: float = 0.2,
        immutable: Sequence[Any] | None = None,
        sensitive: Any = None,
        scale: bool = True,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.feature_map = feature_map
        self.norm = norm
        self.weight = weight
        self.epochs = epochs
        self.n_iter_no_change = n_iter_no_change
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.class_weight = class_weight
        self.other_recall = other_recall
        self.validation_fraction = validation_fraction
        self.immutable = immutable
        self.sensitive = sensitive
        self.scale = scale
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on X (N, d) and labels y (N,) of two classes, weighted by sample_weight (N,); return the estimator.

        Raises ValueError for settings or data that cannot be used.
        """
        self._check_settings()
        rows, labels = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(labels)
        weight = _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
        rows, labels, weight = rows[weight > 0], labels[weight > 0], weight[weight > 0]
        self.classes_, positions = np.unique(labels, return_inverse=True)
        if len(self.classes_) != 2:
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"{'one class' if len(self.classes_) < 2 else 'multiclass'}: y holds {len(self.classes_)} class(es)"
            )
        self.sensitive_ = self._sensitive_position()
        names = list(getattr(self, "feature_names_in_", ()))
        self.mutable_ = mutable_columns(self.immutable, names, self.n_features_in_)
        self._learn_scale(rows)
        sensitive = positions == self.sensitive_
        seed = int(check_random_state(self.random_state).randint(2**31))
        kept, held_out = hold_out(sensitive, self.validation_fraction, seed)
        self._train(rows, sensitive, self._weighted(sensitive, weight), kept, held_out, seed)
        judged = kept if held_out is None else held_out
        self._calibrate(self._scores(rows[judged]), sensitive[judged], weight[judged])
        return self

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return (N,) float64, positive for ``classes_[1]``: the score, its sign turned if classes_[0] is sensitive."""
        score = self._scores(self._checked(X))
        if self.sensitive_ == 1:
            return score
        # A score of 0 is not sensitive, so it must stay on the side of classes_[1] when the sign is turned.
        return np.where(score == 0, np.finfo(float).tiny, -score)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return the labels (N,); sensitive where the score is positive."""
        sensitive = self._scores(self._checked(X)) > 0
        return self.classes_[np.where(sensitive, self.sensitive_, 1 - self.sensitive_)]

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Return (N, 2) probabilities of ``classes_``, rising with the score; ``predict`` switches at 0.5.

        Calibrated on the held-out rows (Platt), the classes weighted as in training, and so that even odds are at the
        operating point. As of scikit-learn's classifiers with balanced class weights, a rare class seems more likely
        than it is: see ``calibrated_proba``.
        """
        scores = self._scores(self._checked(X))
        return self._columns(self.odds_.of(scores))

    def calibrated_proba(self, X: ArrayLike) -> np.ndarray:
        """Return (N, 2) probabilities of ``classes_`` as frequent as they were in training, whatever their weights.

        Calibrated on the held-out rows (Platt). ``predict`` switches where the sensitive class has the probability
        ``operating_probability_``: far below 0.5 where it is rare and its recall is balanced with the other's.
        """
        scores = self._scores(self._checked(X))
        return self._columns(self.probability_.of(scores))

    @property
    def operating_probability_(self) -> float:
        """Probability of the sensitive class, as ``calibrated_proba`` has it, above which ``predict`` says so."""
        check_is_fitted(self)
        return float(self.probability_.of(np.zeros(1))[0])

    def certify(
        self,
        X: ArrayLike,
        norms: str | Sequence[str] = NORMS,
        certificate: str = "refined",
        *,
        units: str = "scaled",
        threshold: float = 0.0,
    ) -> dict[str, np.ndarray]:
        """Return certified radii, norm -> (N,) float64, in the units of the scaled columns; 0 where not certified.

        No change of a scaled row by less than its radius, in columns that are not immutable, turns it from sensitive to
        not sensitive. Through a Pipeline, see ``fcnn.certify_pipeline``.

        Args:
            X: rows (N, d), scaled as the training rows were.
            norms: one of "l1", "l2", "linf", or several.
            certificate: "closed_form", "separable", "in_domain" (the scaled row stays in [0, 1]) or "refined" (in the
                free domain: columns of new data may lie outside the training range).
            units: "scaled", or "original": norm -> (N, d), how far each column may go in its own units, 0 for immutable
                ones. In linf all of them at once; in l1 and l2 one alone (or several by shares of this whose sum, or
                root of the sum of squares, is at most 1).
            threshold: of ``decision_function``: rows are sensitive on the sensitive class's side of it. For a threshold
                that was moved elsewhere; 0 is that of ``predict``.

        Raises ValueError for other names, and for rows outside [0, 1] with "in_domain".
        """
        norms = (norms,) if isinstance(norms, str) else tuple(norms)
        if units not in UNITS:
            raise ValueError(f"unknown units {units!r}: choose from {', '.join(UNITS)}")
        if not math.isfinite(threshold):
            raise ValueError(f"threshold = {threshold}: must be a finite number")
        rows = torch.from_numpy(self._scaled(self._checked(X)))
        domain = "free" if "free" in CERTIFICATES.get(certificate, ()) else None
        found = certify_batch(
            self._moved(threshold), rows, norms, certificate, domain=domain, mutable=self._mutable_tensor()
        )
        radii = {norm: radius.numpy() for norm, radius in found.items()}
        if units == "scaled":
            return radii
        # The last bit is given up, so that the product is not rounded up.
        room = np.where(self.mutable_, self.span_, 0.0)
        return {
            norm: np.nextafter(radius[:, None], 0) * np.nextafter(room, 0) for norm, radius in radii.items()
        }

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator to ``path`` (.safetensors) and a .json beside it; no pickle is involved.

        ``bench.certify --model`` opens the same file, for data scaled as here. Raises ValueError for another ending, or
        labels and settings that JSON cannot hold.
        """
        check_is_fitted(self)
        save_estimator(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the estimator that ``save`` wrote; nothing is executed. Raises ValueError for other files."""
        return load_estimator(cls, Path(path))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "probability_")

    def __getstate__(self) -> dict[str, Any]:
        """Plain values and arrays only, for pickle, joblib and skops."""
        state = dict(super().__getstate__())
        if "classifier_" in state:
            weights, settings = pack_classifier(state["classifier_"])
            state["classifier_"] = {"weights": np.frombuffer(weights, np.uint8), "settings": settings}
            for name in ("odds_", "probability_"):
                state[name] = [state[name].slope, state[name].offset]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "classifier_" in state:
            packed = state["classifier_"]
            state["classifier_"] = unpack_classifier(bytes(packed["weights"]), packed["settings"])
            for name in ("odds_", "probability_"):
                state[name] = Probability(*state[name])
        super().__setstate__(state)

    def _check_settings(self) -> None:
        check_norm(self.norm)
        if self.feature_map not in FEATURE_MAPS:
            raise ValueError(f"feature_map = {self.feature_map!r}: choose from {', '.join(FEATURE_MAPS)}")
        if self.other_recall is not None and not 0 <= self.other_recall <= 1:
            raise ValueError(f"other_recall = {self.other_recall}: must lie between 0 and 1, such as 0.99")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction = {self.validation_fraction}: must lie between 0 and 1")
        if not (self.class_weight in (None, "balanced") or isinstance(self.class_weight, Mapping)):
            raise ValueError(
                f"class_weight = {self.class_weight!r}: give 'balanced', a dict label -> weight, or None"
            )
        if self.batch_size != "auto" and not (isinstance(self.batch_size, int) and self.batch_size >= 1):
            raise ValueError(f"batch_size = {self.batch_size!r}: give 'auto' or a whole number >= 1")

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

    def _mutable_tensor(self) -> Tensor | None:
        return None if self.mutable_.all() else torch.from_numpy(self.mutable_)

    def _weighted(self, sensitive: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The rows' weights (N,), times those of their classes."""
        labels = self.classes_[[1 - self.sensitive_, self.sensitive_]]
        return weight * class_weights(self.class_weight, labels, sensitive, weight)

    def _learn_scale(self, rows: np.ndarray) -> None:
        self.low_, self.span_ = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
        if self.scale:
            self.low_ = rows.min(axis=0)
            span = rows.max(axis=0) - self.low_
            self.span_ = np.where(span > 0, span, 1.0)

    def _train(
        self,
        rows: np.ndarray,
        sensitive: np.ndarray,
        weight: np.ndarray,
        kept: np.ndarray,
        held_out: np.ndarray | None,
        seed: int,
    ) -> None:
        x = torch.from_numpy(self._scaled(rows).astype(np.float32))
        # The loss is told each row's weight beside its label.
        target = torch.from_numpy(np.stack([sensitive, weight / weight.mean()], axis=1).astype(np.float32))
        suggested = min(LARGEST_BATCH, max(SMALLEST_BATCH, len(kept) // BATCHES))
        batch = self.batch_size if isinstance(self.batch_size, int) else suggested
        self.classifier_ = self._untrained(x[kept], seed)
        loss = WeightedLoss({self.norm: self.weight}, self._mutable_tensor())
        patience = None if held_out is None else self.n_iter_no_change
        settings = TrainSettings(
            epochs=self.epochs,
            batch_size=batch,
            learning_rate=self.learning_rate,
            patience=patience or 0,
        )
        history = train(
            self.classifier_,
            loss,
            (x[kept], target[kept]),
            settings,
            seed=seed,
            after_step=self.classifier_.project,
            validate=(lambda model: -float(loss(model, x[held_out], target[held_out], 1.0).detach()))
            if patience is not None
            else None,
        )
        self.n_iter_ = len(history.loss)

    def _calibrate(self, scores: np.ndarray, sensitive: np.ndarray, weight: np.ndarray) -> None:
        """Set threshold and probabilities by the scores of the held-out rows."""
        by_class = self._weighted(sensitive, weight)
        if self.other_recall is not None or self.class_weight == "balanced":
            moved = choose_threshold(scores, sensitive, weight, self.other_recall)
        else:
            moved = Probability.fit(scores, sensitive, by_class).score_of(0.5)
        warn_of_chance(scores > moved, sensitive, self.feature_map)
        self.classifier_.threshold += moved
        self.odds_ = Probability.fit(scores - moved, sensitive, by_class, through_zero=True)
        self.probability_ = Probability.fit(scores - moved, sensitive, weight)

    def _columns(self, sensitive: np.ndarray) -> np.ndarray:
        """The probabilities (N, 2) of ``classes_`` from the sensitive one's (N,)."""
        both = [1 - sensitive, sensitive] if self.sensitive_ == 1 else [sensitive, 1 - sensitive]
        return np.stack(both, axis=1)

    def _untrained(self, x: Tensor, seed: int) -> FeatureConvexClassifier:
        mean = x.mean(dim=0)
        feature_map: FeatureMap = CenteredAbs(mean) if self.feature_map == "centered_abs" else Identity(mean)
        width = math.prod(feature_map.feature_shape(x.shape[1:]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return FeatureConvexClassifier(ConvexMLP(width, tuple(self.hidden)), feature_map)

    def _moved(self, threshold: float) -> FeatureConvexClassifier:
        """The classifier with its threshold moved by one of ``decision_function``."""
        if threshold == 0:
            return self.classifier_
        moved = unpack_classifier(*pack_classifier(self.classifier_))
        moved.threshold += threshold if self.sensitive_ == 1 else -threshold
        return moved

    def _checked(self, rows: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, rows, dtype=np.float64, reset=False)

    def _scaled(self, rows: np.ndarray) -> np.ndarray:
        return (rows - self.low_) / self.span_

    def _scores(self, rows: np.ndarray) -> np.ndarray:
        """Scores (N,) in float64 of the function that is certified."""
        frozen = self.classifier_.frozen()
        with torch.no_grad():
            batches = frozen.batches(torch.from_numpy(self._scaled(rows)))
            return torch.cat([frozen.score(batch) for batch in batches]).numpy()
