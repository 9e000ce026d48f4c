"""What every figure of the suite has in common: how it looks, and how it becomes files."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import seaborn
from matplotlib.figure import Figure
from PIL import Image

from bench.basics.files import write_atomic
from bench.report.figures.small_pdf import small_pdf

# Nothing in a file may depend on when it was drawn.
FILE_METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
# What a page of a paper takes: no figure is wider, or it is printed smaller; no text is smaller than 6 pt there.
PAGE, PAGE_HEIGHT, SMALL, NORMAL = 6.75, 9.2, 6.0, 7.0
# Wide enough on a screen, where a page's width has room for more dots than in print.
DOTS, FEWEST, MOST = 1350, 150, 200
# Hinted letters are as wide as a file's dots allow: names placed on the screen's dots would run past an edge in print.
LOOK: Any = {
    "pdf.fonttype": 42,
    "font.family": "DejaVu Sans",
    "text.hinting": "none",
    "axes.linewidth": 0.7,
    "grid.linewidth": 0.6,
}


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
        dpi = float(np.clip(DOTS / figure.get_figwidth(), FEWEST, MOST))
        figure.savefig(sink, format=kind, metadata=metadata, dpi=dpi)
        path = stem.with_name(f"{stem.name}.{kind}")
        smaller = in_palette if kind == "png" else small_pdf
        write_atomic(path, smaller(sink.getvalue()))
        written.append(path)
    return written


def in_palette(png: bytes) -> bytes:
    """Return a PNG in 128 colours of its own: a third of the size, and nothing that the eye tells apart is lost."""
    with Image.open(io.BytesIO(png)) as image:
        look: dict[str, Any] = {"method": Image.Quantize.MEDIANCUT, "dither": Image.Dither.NONE}
        small = image.convert("RGB").quantize(128, kmeans=2, **look)
    sink = io.BytesIO()
    small.save(sink, "PNG", optimize=True)
    return sink.getvalue()
