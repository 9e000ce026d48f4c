"""One cell of the table: train a method on a data set, predict, certify, and describe every input in rows."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from bench.basics.seeds import derive_seed
from bench.calibration import GIVEN, Calibration, OperatingPoint
from bench.contract import Curve, FitContext, Method, Outcome, Radii, TrainingData
from bench.data import Dataset
from bench.kept.batches import checked_predictions, checked_scores, spread
from bench.kept.roc import grid_of_thresholds, no_roc, roc_rows
from bench.kept.rows import check_predictions, check_radii
from bench.running.batch_runner import BatchRunner, Clock
from bench.running.cell_rows import RowMaker, no_predictions
from bench.running.certifying import Asked, Certifier, Found
from bench.running.plan import CellPlan, Scratch

LOG = logging.getLogger(__name__)


@dataclass
class CellResult:
    """Rows of one cell, its trained state, what it took, and the errors met on the way (the rows say so too).

    calibrations: the threshold of each operating point; the state holds the first.
    """

    radii: pd.DataFrame
    predictions: pd.DataFrame
    roc: pd.DataFrame = field(default_factory=no_roc)
    calibrations: list[Calibration] = field(default_factory=list)
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


def calibration_labels(data: Dataset, split: str, test_inputs: int) -> np.ndarray:
    """Return the labels (N,) of the split, ``validation`` or ``test``, that thresholds are chosen on."""
    return data.y_test[chosen_test_inputs(data, test_inputs)] if split == "test" else data.y_val


def evaluate(method: Method, data: Dataset, plan: CellPlan, scratch: Scratch, threads: int) -> CellResult:
    """Evaluate one cell on so many threads; whatever a method raises becomes ``error`` rows with the reason.

    All that determines a cell's numbers is called from here: its key is a hash of the code that this function uses.
    """
    torch.set_num_threads(threads)
    with threadpool_limits(threads):
        try:
            result = Evaluation(method, data, plan, scratch).run()
            check_radii(result.radii)
            check_predictions(result.predictions)
        except Exception as error:  # a failing method must not take the other cells down
            LOG.exception("%s on %s, seed %d failed", plan.method_id, plan.dataset, plan.seed)
            return failed(method, data, plan, Outcome.ERROR, describe(error))
    return result


def failed(method: Method, data: Dataset, plan: CellPlan, outcome: Outcome, reason: str) -> CellResult:
    """Rows of a cell that could not be evaluated: every sensitive test input on every curve, with the reason."""
    index = chosen_test_inputs(data, plan.test_inputs)
    index = index[data.y_test[index] == 1]
    nothing = Radii.without(len(index), outcome, reason)
    labels = calibration_labels(data, plan.calibrate, plan.test_inputs)
    others = None if plan.calibrate == "none" else int((labels == 0).sum())
    frames = [
        RowMaker(plan, method.guarantee, method.alpha, Calibration(point, None, others)).radii(
            curve, norm, index, np.full(len(index), -1), nothing, 0.0
        )
        for point in plan.operating_points
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
        """Train, calibrate, predict and certify; a curve that fails becomes ``error`` rows, the others go on.

        One trained network is evaluated at all operating points.
        """
        index = chosen_test_inputs(self.data, self.plan.test_inputs)
        with Clock(self.method.device) as clock:
            self._fit()
            points = self._calibrate(index)
        self.seconds["fit"] = clock.seconds
        parts = self.scratch.parts.owned_by(self.method.state())
        runner = BatchRunner(self.method.device, self.method.batch_size, parts, self.scratch.progress)
        scores = self._scores(runner, index)
        predicted = self._predict(runner, index, points)
        radii, roc = self._certify(runner, index, points, predicted, scores)
        self._abstain(index, predicted, radii)
        self._set(points[0].threshold)
        return CellResult(
            pd.concat(radii, ignore_index=True),
            self._predictions(index, points, predicted, scores),
            roc,
            points,
            self.method.state(),
            self.seconds,
            self.errors,
        )

    def _fit(self) -> None:
        plan, data = self.plan, self.data
        self.method.mutable = None if data.mutable is None else self._tensor(data.mutable)
        self.method.build(data.input_shape, plan.seed_for("build"))
        splits = (data.x_train, data.y_train, data.x_val, data.y_val)
        context = FitContext(plan.seed_for("fit"), self.scratch.checkpoint, self.scratch.progress)
        self.method.fit(TrainingData(*map(self._tensor, splits)), context)

    def _calibrate(self, test_index: np.ndarray) -> list[Calibration]:
        """Choose the threshold of each operating point; the first is set, so that the state is that of the cell."""
        plan, data = self.plan, self.data
        if plan.calibrate == "none":
            return [Calibration(GIVEN, self.method.threshold)]
        x = data.x_test[test_index] if plan.calibrate == "test" else data.x_val
        points = self.method.calibrations(
            self._tensor(x),
            self._tensor(calibration_labels(data, plan.calibrate, plan.test_inputs)),
            plan.seed_for("calibrate"),
            [OperatingPoint.parse(point) for point in plan.operating_points],
        )
        self._set(points[0].threshold)
        return points

    def _scores(self, runner: BatchRunner, index: np.ndarray) -> np.ndarray:
        """Return scores (N,) of the test inputs, which a threshold is compared with; NaN where the method has none."""

        def score(start: int, batch: Tensor) -> dict[str, np.ndarray]:
            found = self.method.decision_range(batch, self.plan.seed_for("score", start))
            if found is None:
                return {"score": np.full(len(batch), np.nan)}
            low, high = (np.asarray(part.detach().cpu(), np.float64) for part in found)
            return {"score": checked_scores(low + (high - low) / 2, len(batch))}

        self._set(None if self.method.threshold is None else 0.0)
        return runner.run("score", self.data.x_test[index], score)[0]["score"]

    def _predict(self, runner: BatchRunner, index: np.ndarray, points: Sequence[Calibration]) -> np.ndarray:
        """Return predictions (P, N) of the test inputs ``index``: 1, 0 or -1 (abstained), at each operating point."""
        thresholds = [point.threshold or 0.0 for point in points]

        def predict(start: int, batch: Tensor) -> dict[str, np.ndarray]:
            found = self.method.predict_at(batch, thresholds, self.plan.seed_for("predict", start))
            rows = [checked_predictions(predicted.cpu().numpy(), len(batch)) for predicted in found]
            return {"predicted": np.stack(rows, axis=1)}

        arrays, self.seconds["predict"] = runner.run("predict", self.data.x_test[index], predict)
        return arrays["predicted"].T.copy()

    def _certify(
        self,
        runner: BatchRunner,
        index: np.ndarray,
        points: Sequence[Calibration],
        predicted: np.ndarray,
        scores: np.ndarray,
    ) -> tuple[list[pd.DataFrame], pd.DataFrame]:
        """Rows of every curve and norm, a table for each operating point, and what is certified at other thresholds.

        predicted: (P, N), scores: (N,) of the test inputs ``index``; only sensitive ones predicted so are certified.
        """
        sensitive = self.data.y_test[index] == 1
        inputs, predicted, others = index[sensitive], predicted[:, sensitive], scores[~sensitive]
        at_points = [
            Asked(point.threshold or 0.0, row == 1) for point, row in zip(points, predicted, strict=True)
        ]
        grid = np.zeros(0) if points[0].threshold is None else grid_of_thresholds(others)
        at_grid = [Asked(float(threshold), scores[sensitive] > threshold) for threshold in grid]
        x, norms = self.data.x_test[inputs], self.plan.norms
        certifier = Certifier(self.method, runner, x, norms, self.plan.seed_for, describe)
        rows: list[list[pd.DataFrame]] = [[] for _ in points]
        roc = [no_roc()]
        self.seconds["certify"] = 0.0
        self._set(None if self.method.threshold is None else 0.0)
        for curve in self.method.curves():
            found = certifier.curve(curve, at_points, at_grid)
            self.errors += found.errors
            self.seconds["certify"] += found.seconds
            for table, point, row, one in zip(rows, points, predicted, found.points, strict=True):
                table += self._rows(curve, point, inputs, row, one)
            roc += self._roc(curve, at_grid, others, found.more)
        return [pd.concat(table, ignore_index=True) for table in rows], pd.concat(roc, ignore_index=True)

    def _rows(
        self, curve: Curve, point: Calibration, index: np.ndarray, predicted: np.ndarray, found: Found
    ) -> list[pd.DataFrame]:
        """Rows of one curve at one operating point, a table for each norm; index, predicted: (N,)."""
        maker = RowMaker(self.plan, self.method.guarantee, self.method.alpha, point)
        certified = np.flatnonzero(predicted == 1)
        return [
            maker.radii(
                *(curve, norm, index, predicted),
                spread(found.radii[norm], certified, predicted),
                found.seconds,
            )
            for norm in self.plan.norms
        ]

    def _roc(
        self, curve: Curve, asked: Sequence[Asked], others: np.ndarray, found: Sequence[Found]
    ) -> list[pd.DataFrame]:
        """What a curve certifies at thresholds over the whole range of the scores, a table for each of its norms."""
        cell = {"dataset": self.plan.dataset, "method": self.plan.method_id, "seed": self.plan.seed}
        tables = []
        for norm in (norm for norm in self.plan.norms if norm in curve.norms and found):
            radii = [widened(one.radii[norm], at.wanted) for one, at in zip(found, asked, strict=True)]
            facts = {**cell, "certificate": curve.certificate, "domain": curve.domain, "norm": norm}
            tables.append(roc_rows(facts, [at.threshold for at in asked], others, radii))
        return tables

    def _abstain(self, index: np.ndarray, predicted: np.ndarray, radii: Sequence[pd.DataFrame]) -> None:
        """Let an abstention of the certificate count as one of the prediction, too; predicted: (P, N), changed."""
        for row, table in zip(predicted, radii, strict=True):
            row[np.isin(index, table.loc[table["outcome"] == Outcome.ABSTAINED, "index"])] = -1

    def _predictions(
        self, index: np.ndarray, points: Sequence[Calibration], predicted: np.ndarray, scores: np.ndarray
    ) -> pd.DataFrame:
        each = self.seconds["predict"] / predicted.size
        tables = []
        for point, row in zip(points, predicted, strict=True):
            maker = RowMaker(self.plan, self.method.guarantee, self.method.alpha, point)
            above = scores - (point.threshold or 0.0)
            tables.append(maker.predictions(index, self.data.y_test[index], row, above, each))
        return pd.concat(tables, ignore_index=True)

    def _set(self, threshold: float | None) -> None:
        if threshold is not None:
            self.method.set_threshold(threshold)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.method.device)


def widened(radii: Radii, wanted: np.ndarray) -> np.ndarray:
    """Return radii (N,) of all inputs, 0 where not certified; radii: of the ``wanted`` ones, (N,) bool."""
    full = np.zeros(len(wanted))
    full[wanted] = np.where(radii.outcome == Outcome.CERTIFIED, radii.radius, 0.0)
    return full


def describe(error: BaseException) -> str:
    """An exception in one line; rows are published, so of absolute paths only the last part is kept."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return re.sub(r"(?<![\w.])/(?:[^\s/'\"]+/)+", "", line)
