"""How good a candidate is: certified radii of validation inputs at the operating points. No test data comes here."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from bench.basics.seeds import derive_seed
from bench.calibration import OperatingPoint
from bench.contract import Curve, Method, Outcome, TrainingData
from bench.data import Dataset
from bench.running.validation import cheapest_curve

# A radius that is infinite counts as this.
LARGEST = 1e9
PATIENCE = 2.0
# A recall counts as its lower bound, so many standard errors down (84 % on one side): the best of many candidates is
# one that was lucky, too, and what reaches a floor on a few hundred inputs by their luck alone misses it on others.
STANDARD_ERRORS = 1.0


@dataclass(frozen=True)
class Verdict:
    """A candidate at one operating point: median radius of the sensitive inputs (not certified: 0), both recalls.

    sensitive, others: inputs that the recalls are shares of; 0: more than enough.
    """

    radius: float
    recall: float
    other_recall: float
    sensitive: int = 0
    others: int = 0

    def measure(self, point: OperatingPoint, floor: float, patience: float = 1.0) -> float:
        """Return what a search maximises: the radius, less where recalls fall below the floor.

        Below it the radius is worth share lost at the floor / share lost of itself, so that radius is not bought by
        giving inputs up. patience: how many times the floor's share may be lost at no cost. A candidate that certifies
        less than half of the inputs gets recall - 1, at most 0, so that there too better is more.
        """
        recall = self._recall_that_counts(point)
        if self.radius <= 0:
            return recall - 1
        return min(self.radius, LARGEST) * min(1.0, patience * (1 - floor) / max(1 - recall, 1e-9))

    def meets(self, point: OperatingPoint, floor: float) -> bool:
        """Say whether the recalls reach the floor."""
        return self._recall_that_counts(point) >= floor

    def _recall_that_counts(self, point: OperatingPoint) -> float:
        """The smaller recall's lower bound; the sensitive class's alone where the point fixes the other's."""
        own = lower_bound(self.recall, self.sensitive)
        return min(own, lower_bound(self.other_recall, self.others)) if point.other_recall is None else own


def lower_bound(share: float, count: int) -> float:
    """Return Wilson's one-sided lower bound of a share of so many inputs, the share itself for 0 inputs.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    if not count:
        return share
    square = STANDARD_ERRORS**2
    spread = STANDARD_ERRORS * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    return (share + square / (2 * count) - spread) / (1 + square / count)


@dataclass(frozen=True)
class Judge:
    """Judges trained networks of a method on validation data by its cheapest certificate.

    x, y: the validation inputs; table: settings of the entry and of judging are laid over a candidate's.
    """

    x: Tensor
    y: Tensor
    points: tuple[OperatingPoint, ...]
    floor: float
    seed: int

    def judge(self, method: Method, norms: Sequence[str]) -> list[dict[str, Verdict]]:
        """Return for each operating point norm -> verdict; the method is trained, and its threshold is moved."""
        curve, found = cheapest_curve(method), []
        for calibration in method.calibrations(self.x, self.y, self.seed, self.points):
            if calibration.threshold is not None:
                method.set_threshold(calibration.threshold)
            found.append(self._verdicts(method, curve, norms))
        return found

    def meets(self, verdicts: Sequence[Verdict]) -> bool:
        """Say whether the recalls reach the floor at every operating point."""
        return all(v.meets(point, self.floor) for v, point in zip(verdicts, self.points, strict=True))

    def measure(self, verdicts: Sequence[Verdict], patience: float = 1.0) -> float:
        """Return the mean measure over the operating points."""
        pairs = zip(verdicts, self.points, strict=True)
        return float(np.mean([verdict.measure(point, self.floor, patience) for verdict, point in pairs]))

    def promise(self, verdicts: Sequence[Verdict]) -> float:
        """Return the measure that a longer training may reach: short ones lose inputs that longer ones keep."""
        return self.measure(verdicts, PATIENCE)

    def _verdicts(self, method: Method, curve: Curve, norms: Sequence[str]) -> dict[str, Verdict]:
        """Norm -> verdict at the threshold that is set."""
        batches = [method.predict(batch, self.seed) for batch in self.x.split(method.batch_size)]
        predicted = torch.cat(batches).cpu().numpy()
        sensitive = self.y.cpu().numpy() == 1
        found = np.flatnonzero(sensitive & (predicted == 1))
        radii = {norm: np.zeros(sensitive.sum()) for norm in norms}
        for start in range(0, len(found), method.batch_size):
            part = found[start : start + method.batch_size]
            batch = method.certify(self.x[part], curve, tuple(norms), self.seed)
            for norm in norms:
                proved = batch[norm].outcome == Outcome.CERTIFIED
                radii[norm][start : start + len(part)] = np.where(proved, batch[norm].radius, 0.0)
        recall, other = (predicted[sensitive] == 1).mean(), (predicted[~sensitive] == 0).mean()
        counts = int(sensitive.sum()), int((~sensitive).sum())
        return {
            norm: Verdict(float(np.median(radii[norm])), float(recall), float(other), *counts)
            for norm in norms
        }


def judged_inputs(data: Dataset, count: int) -> np.ndarray:
    """Return which validation inputs judge: all for 0, else so many, half of each class where it has that many."""
    if not count or count >= len(data.y_val):
        return np.arange(len(data.y_val))
    rng = np.random.default_rng(derive_seed(data.name, "judged inputs", count))
    classes = [np.flatnonzero(data.y_val == label) for label in (0, 1)]
    fewer = min(min(len(each) for each in classes), count // 2)
    larger = max(classes, key=len)
    chosen = [rng.choice(each, count - fewer if each is larger else fewer, replace=False) for each in classes]
    return np.sort(np.concatenate(chosen))


def training_data(data: Dataset, device: torch.device) -> TrainingData:
    """Return the training and validation splits as tensors."""
    arrays = (data.x_train, data.y_train, data.x_val, data.y_val)
    return TrainingData(*(torch.from_numpy(array).to(device) for array in arrays))


def as_table(verdicts: Sequence[Verdict]) -> list[dict[str, float]]:
    """Return verdicts as plain tables, for storage."""
    return [asdict(verdict) for verdict in verdicts]
