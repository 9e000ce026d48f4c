"""One cell of the table: train a method on a data set, predict, certify, and describe every input in rows."""

import logging
import re
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bench.contract import Curve, FitContext, Method, Outcome, Radii, TrainingData
from bench.data import Dataset
from bench.files import safe_name
from bench.running.batch_runner import BatchRunner, Clock
from bench.running.batches import checked_predictions, checked_radii, packed, spread, unpacked
from bench.running.cell_rows import RowMaker, no_predictions
from bench.running.plan import CellPlan, Scratch
from bench.seeds import derive_seed

LOG = logging.getLogger(__name__)


@dataclass
class CellResult:
    """Rows of one cell, its trained state, what it took, and the errors met on the way (the rows say so too)."""

    radii: pd.DataFrame
    predictions: pd.DataFrame
    state: dict[str, Tensor] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def chosen_test_inputs(data: Dataset, limit: int) -> np.ndarray:
    """Return sorted indices of the test inputs to use, the classes' shares kept; all of them for limit 0.

    The choice depends on the data set's name and the limit only, so that every method sees the same inputs.
    """
    count = len(data.y_test)
    if limit <= 0 or limit >= count:
        return np.arange(count)
    rng = np.random.default_rng(derive_seed(data.name, "test inputs", limit))
    sensitive, other = np.flatnonzero(data.y_test == 1), np.flatnonzero(data.y_test == 0)
    take = min(max(1, round(limit * len(sensitive) / count)), limit - 1)
    chosen = [rng.choice(sensitive, take, replace=False), rng.choice(other, limit - take, replace=False)]
    return np.sort(np.concatenate(chosen))


def failed(method: Method, data: Dataset, plan: CellPlan, outcome: Outcome, reason: str) -> CellResult:
    """Rows of a cell that could not be evaluated: every sensitive test input on every curve, with the reason."""
    index = chosen_test_inputs(data, plan.test_inputs)
    index = index[data.y_test[index] == 1]
    nothing = Radii.without(len(index), outcome, reason)
    rows = RowMaker(plan, method.guarantee, method.alpha)
    frames = [
        rows.radii(curve, norm, index, np.full(len(index), -1), nothing, 0.0)
        for curve in method.curves()
        for norm in plan.norms
    ]
    return CellResult(pd.concat(frames, ignore_index=True), no_predictions(), errors=[reason])


@dataclass
class Evaluation:
    """Runs one method on one data set, in the order of the contract; ``scratch`` lets it go on where it was cut."""

    method: Method
    data: Dataset
    plan: CellPlan
    scratch: Scratch = field(default_factory=Scratch)
    seconds: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def run(self) -> CellResult:
        """Train, calibrate, predict and certify; a curve that fails becomes ``error`` rows, the others go on."""
        method, labels = self.method, self.data.y_test
        index = chosen_test_inputs(self.data, self.plan.test_inputs)
        with Clock(method.device) as clock:
            self._fit(index)
        self.seconds["fit"] = clock.seconds
        parts = self.scratch.parts.owned_by(method.state())
        runner = BatchRunner(method.device, method.batch_size, parts, self.scratch.progress)
        predicted = self._predict(runner, index)
        sensitive = labels[index] == 1
        radii = self._certify(runner, index[sensitive], predicted[sensitive])
        abstained = radii.loc[radii["outcome"] == Outcome.ABSTAINED, "index"]
        predicted[np.isin(index, abstained)] = -1
        predictions = self._rows.predictions(
            index, labels[index], predicted, self.seconds["predict"] / len(index)
        )
        return CellResult(radii, predictions, method.state(), self.seconds, self.errors)

    @property
    def _rows(self) -> RowMaker:
        return RowMaker(self.plan, self.method.guarantee, self.method.alpha)

    def _fit(self, test_index: np.ndarray) -> None:
        plan, data = self.plan, self.data
        self.method.mutable = None if data.mutable is None else self._tensor(data.mutable)
        self.method.build(data.input_shape, plan.seed_for("build"))
        splits = (data.x_train, data.y_train, data.x_val, data.y_val)
        context = FitContext(plan.seed_for("fit"), self.scratch.checkpoint, self.scratch.progress)
        self.method.fit(TrainingData(*map(self._tensor, splits)), context)
        if plan.calibrate == "validation":
            x, y = data.x_val, data.y_val
        elif plan.calibrate == "test":
            x, y = data.x_test[test_index], data.y_test[test_index]
        else:
            return
        self.method.calibrate(self._tensor(x), self._tensor(y), plan.seed_for("calibrate"))

    def _predict(self, runner: BatchRunner, index: np.ndarray) -> np.ndarray:
        """Return predictions (N,) of the test inputs ``index``: 1, 0 or -1 (abstained)."""

        def predict(start: int, batch: Tensor) -> dict[str, np.ndarray]:
            predicted = self.method.predict(batch, self.plan.seed_for("predict", start)).cpu().numpy()
            return {"predicted": checked_predictions(predicted, len(batch))}

        arrays, self.seconds["predict"] = runner.run("predict", self.data.x_test[index], predict)
        return arrays["predicted"]

    def _certify(self, runner: BatchRunner, index: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
        """Rows of every curve and norm for the sensitive inputs ``index``; only those predicted so are certified."""
        certified = np.flatnonzero(predicted == 1)
        frames = []
        self.seconds["certify"] = 0.0
        for curve in self.method.curves():
            norms = tuple(norm for norm in self.plan.norms if norm in curve.norms)
            found, seconds = self._certify_curve(runner, curve, norms, index[certified])
            self.seconds["certify"] += seconds
            each = seconds / max(1, len(certified))
            for norm in self.plan.norms:
                radii = found[norm] if norm in norms else self._unsupported(curve, norm, len(certified))
                full = spread(radii, certified, predicted)
                frames.append(self._rows.radii(curve, norm, index, predicted, full, each))
        return pd.concat(frames, ignore_index=True)

    def _certify_curve(
        self, runner: BatchRunner, curve: Curve, norms: tuple[str, ...], index: np.ndarray
    ) -> tuple[dict[str, Radii], float]:
        """Return the radii on one curve and the seconds they took; an exception makes all its rows ``error`` rows."""
        if not norms or not len(index):
            return {norm: Radii.from_radius(np.zeros(0)) for norm in norms}, 0.0

        def certify(start: int, batch: Tensor) -> dict[str, np.ndarray]:
            seed = self.plan.seed_for("certify", curve.certificate, curve.domain, start)
            radii = self.method.certify(batch, curve, norms, seed)
            checked = {norm: self._within_reach(checked_radii(radii, norm, len(batch))) for norm in norms}
            return {name: array for norm in norms for name, array in packed(checked[norm], norm).items()}

        name = safe_name(f"certify-{curve.certificate}-{curve.domain}")
        try:
            arrays, seconds = runner.run(name, self.data.x_test[index], certify)
        except Exception as error:  # a method may raise anything; the other curves and cells must go on
            LOG.exception("%s, certificate %s in %s", self.method.name, curve.certificate, norms)
            reason = describe(error)
            self.errors.append(reason)
            return {norm: Radii.without(len(index), Outcome.ERROR, reason) for norm in norms}, 0.0
        return {norm: unpacked(arrays, norm) for norm in norms}, seconds

    def _within_reach(self, radii: Radii) -> Radii:
        """Forget adversarial points that may have moved a feature which nobody can change."""
        if self.data.mutable is not None and not self.method.respects_mutable:
            radii.radius_upper = None
        return radii

    def _unsupported(self, curve: Curve, norm: str, count: int) -> Radii:
        reason = f"{self.method.title} issues no {curve.certificate} certificate in {norm}"
        return Radii.without(count, Outcome.UNSUPPORTED, reason)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.method.device)


def describe(error: BaseException) -> str:
    """An exception in one line; rows are published, so of absolute paths only the last part is kept."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return re.sub(r"(?<![\w.])/(?:[^\s/'\"]+/)+", "", line)
