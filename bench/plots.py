"""Figures of a run: certified accuracy over the radius, and seconds per certificate.

``python -m bench.plots OUT`` redraws all figures of a finished run from its rows. The same rows give the same files,
byte for byte, with the same version of matplotlib.
"""

import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import seaborn
from matplotlib.figure import Figure

from bench.curve_figure import curve_figure
from bench.curves import certified_curves, envelopes
from bench.errors import Parser, UsageError
from bench.files import safe_name, write_atomic
from bench.line_styles import legend_styles
from bench.seconds_figure import seconds_figure
from bench.store import FIGURES, Store
from bench.summary import summarise

# Nothing in a file may depend on when it was drawn.
FILE_METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
LOOK = {"pdf.fonttype": 42, "font.family": "DejaVu Sans", "savefig.dpi": 150}


def draw_run(out: Path) -> list[Path]:
    """Draw all figures of a finished run from its rows; return the files written, PNG and PDF.

    Raises UsageError if ``out`` is not the output folder of a finished run, or its tables are damaged.
    """
    run, radii, predictions = Store(out).read_run()
    return draw_figures(run, radii, predictions, out / FIGURES)


def draw_figures(
    run: Mapping[str, Any], radii: pd.DataFrame, predictions: pd.DataFrame, folder: Path
) -> list[Path]:
    """Draw each data set's curves and seconds into the folder; ``run`` gives titles and the order of methods."""
    curves, summary = certified_curves(radii), summarise(radii, predictions)
    families = {name: method["family"] for name, method in run["methods"].items() if method.get("family")}
    best = envelopes(curves, families)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for dataset, panel in summary.groupby("dataset", sort=True):
        styles = legend_styles(panel, run["methods"])
        heading = _heading(run["configuration"], str(dataset))
        with house_look():
            own = [table[table["dataset"] == dataset] for table in (curves, best)]
            lines = curve_figure(*own, panel, styles, heading)
            written += save_figure(lines, folder / f"{safe_name(str(dataset))}_certified_accuracy")
            if (panel["seconds_per_certificate"] > 0).any():
                seconds = seconds_figure(panel, styles, heading)
                written += save_figure(seconds, folder / f"{safe_name(str(dataset))}_seconds")
    return written


def _heading(configuration: Mapping[str, Any], dataset: str) -> str:
    """Title of the suite and data set, and how the run falls short of the full settings, if it does."""
    heading = f"{configuration.get('title') or configuration.get('name') or 'Comparison'}: {dataset}"
    reduced = configuration.get("reduced")
    return f"{heading}\nreduced: {reduced}" if reduced else heading


@contextmanager
def house_look() -> Iterator[None]:
    """Draw inside this, and every figure of the suite looks the same."""
    with matplotlib.rc_context(), seaborn.axes_style("whitegrid"), seaborn.plotting_context("paper"):
        matplotlib.rcParams.update(LOOK)
        yield


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write STEM.png and STEM.pdf, each in one step; return their paths."""
    written = []
    for kind, metadata in FILE_METADATA.items():
        sink = io.BytesIO()
        figure.savefig(sink, format=kind, metadata=metadata)
        path = stem.with_name(f"{stem.name}.{kind}")
        write_atomic(path, sink.getvalue())
        written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Redraw a run's figures and print their names; return 2 if the folder holds no finished run."""
    parser = Parser(prog="python -m bench.plots", description="Redraw the figures of a finished run.")
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of bench.compare")
    try:
        for path in draw_run(parser.parse_args(arguments).out):
            print(path)
    except UsageError as error:
        print(f"bench.plots: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
