"""Methods that do what methods should not, for tests of the harness."""

import ctypes
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from synthetic import MeanSettings, MeanThreshold
from torch import Tensor

from bench.contract import Curve, FitContext, Outcome, Radii, TrainingData


@dataclass(frozen=True)
class TallySettings(MeanSettings):
    """tally: a file to count batches in."""

    tally: str = ""


class Sleeper(MeanThreshold):
    """Never comes back from training."""

    name = "sleeper"

    def fit(self, data: TrainingData, context: FitContext) -> None:
        time.sleep(3600)


class Eater(MeanThreshold):
    """Takes memory until it is stopped."""

    name = "eater"

    def fit(self, data: TrainingData, context: FitContext) -> None:
        eaten = []
        while True:
            eaten.append(np.ones(2**22))
            time.sleep(0.02)


class Crasher(MeanThreshold):
    """Reads the memory at address 0."""

    name = "crasher"

    def fit(self, data: TrainingData, context: FitContext) -> None:
        ctypes.string_at(0)


class Killed(MeanThreshold):
    """Is killed from outside, as the system does when memory runs out."""

    name = "killed"

    def fit(self, data: TrainingData, context: FitContext) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Quitter(MeanThreshold):
    """Ends its process."""

    name = "quitter"

    def fit(self, data: TrainingData, context: FitContext) -> None:
        os._exit(3)


class Raiser(MeanThreshold):
    """Raises."""

    name = "raiser"

    def fit(self, data: TrainingData, context: FitContext) -> None:
        raise RuntimeError("out of luck")


class NotANumber(MeanThreshold):
    """Returns NaN radii."""

    name = "not_a_number"

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        nothing = np.full(len(x), np.nan)
        return {norm: Radii(nothing, np.full(len(x), Outcome.CERTIFIED)) for norm in norms}


class WrongShape(MeanThreshold):
    """Returns one radius too many."""

    name = "wrong_shape"

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        return {norm: Radii.from_radius(np.ones(len(x) + 1)) for norm in norms}


class WrongPrediction(MeanThreshold):
    """Predicts for one input too few."""

    name = "wrong_prediction"

    def predict(self, x: Tensor, seed: int) -> Tensor:
        return super().predict(x, seed)[1:]


class TooLarge(MeanThreshold):
    """Claims radii 5 % larger than the truth: only an attack can tell."""

    name = "too_large"

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        honest = super().certify(x, curve, norms, seed)
        return {norm: Radii.from_radius(1.05 * honest[norm].radius) for norm in norms}


class OutOfMemory(MeanThreshold):
    """Cannot take more than seven inputs at a time."""

    name = "out_of_memory"

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        if len(x) > 7:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().certify(x, curve, norms, seed)


class CutShort(MeanThreshold):
    """Is killed in its third batch of certificates, once; keeps a tally of the batches it certified."""

    name = "cut_short"
    Settings = TallySettings
    batch_size = 20

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        tally = Path(self.settings.tally)
        with tally.open("a") as file:
            file.write("batch\n")
        if tally.read_text().count("batch") == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().certify(x, curve, norms, seed)


class Holder(MeanThreshold):
    """Notes in its tally when it begins and ends to use its device, which it keeps until another one has begun, too."""

    name = "holder"
    Settings = TallySettings

    def fit(self, data: TrainingData, context: FitContext) -> None:
        self._note("begins")
        deadline = time.monotonic() + 60
        while Path(self.settings.tally).read_text().count("begins") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.1)
        self._note("ends")

    def _note(self, what: str) -> None:
        with Path(self.settings.tally).open("a") as file:
            file.write(f"{self.device} {what}\n")


METHODS = (
    Sleeper,
    Eater,
    Crasher,
    Killed,
    Quitter,
    Raiser,
    NotANumber,
    WrongShape,
    WrongPrediction,
    TooLarge,
    OutOfMemory,
    CutShort,
    Holder,
)


def write_plugin(folder: Path) -> Path:
    """Write what an installed package leaves for its methods to be found; put the folder on the search path."""
    info = folder / "misbehaving-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: misbehaving\nVersion: 1.0\n")
    lines = [f"{kind.name} = misbehaving:{kind.__name__}" for kind in METHODS]
    (info / "entry_points.txt").write_text("\n".join(["[certbench.methods]", *lines, ""]))
    return folder
