"""What a finished experiment has left in its folder, and its figures, drawn from that alone."""

import importlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd
from matplotlib.figure import Figure

from bench.basics.errors import UsageError
from bench.basics.files import DamagedFileError, unseal
from bench.experiments._options import EXPERIMENTS
from bench.kept.store import FIGURES, RUN, Store, read_verified
from bench.report.figures.looks import house_look, save_figure

ROWS = "rows.csv"
Figures = dict[str, Callable[[], Figure]]


@dataclass(frozen=True)
class Finished:
    """A finished experiment: its folder, its record, and its rows; predictions: where it ran as a suite, else empty."""

    out: Path
    record: Mapping[str, Any]
    rows: pd.DataFrame
    predictions: pd.DataFrame

    @classmethod
    def read(cls, out: Path) -> Self:
        """Read a folder; raise UsageError if it is not a finished experiment's, or damaged."""
        try:
            record = unseal((out / RUN).read_bytes())
            if "experiment" not in record:
                return cls(out, *Store(out).read_run())
            table = read_verified(out / ROWS, record["files"][ROWS])
        except OSError as error:
            raise UsageError(
                f"{str(out)!r} is not the folder of a finished experiment ({error.strerror}): run it without --redraw"
            ) from error
        except (DamagedFileError, KeyError) as error:
            raise UsageError(
                f"the files in {str(out)!r} are damaged ({error}): run without --redraw"
            ) from error
        return cls(out, record, pd.read_csv(io.BytesIO(table)), pd.DataFrame())

    @property
    def configuration(self) -> Mapping[str, Any]:
        """Name, title and reduction, and what else says what was run."""
        return self.record.get("configuration", self.record)

    @property
    def name(self) -> str:
        """Which experiment it is."""
        return self.record.get("experiment") or self.configuration["name"]

    def heading(self, subject: str = "") -> str:
        """The title of a figure, on ``subject`` where one is named; a reduced run says so."""
        title, shortfall = self.configuration["title"], self.configuration.get("reduced")
        title = f"{title}: {subject}" if subject else title
        return f"{title}\nreduced: {shortfall}" if shortfall else title


def draw(out: Path, experiment: str) -> list[Path]:
    """Draw the figures of the experiment that was run into OUT, PNG and PDF; return the files.

    Raises UsageError if the folder holds no finished run of this experiment.
    """
    finished = Finished.read(out)
    if finished.name != experiment:
        kind = f"experiment {finished.name}" if finished.name in EXPERIMENTS else "a run of bench.compare"
        raise UsageError(f"{str(out)!r} holds {kind}, not {experiment}: give --out another folder")
    figures: Figures = importlib.import_module(f"bench.experiments.{experiment}").figures(finished)
    (out / FIGURES).mkdir(parents=True, exist_ok=True)
    written = []
    with house_look():
        for name, figure in figures.items():
            written += save_figure(figure(), out / FIGURES / name)
    return written
