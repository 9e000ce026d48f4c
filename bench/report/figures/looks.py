"""What every figure of the suite has in common: how it looks, and how it becomes files."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import seaborn
from matplotlib.figure import Figure
from PIL import Image

from bench.basics.files import write_atomic

# Nothing in a file may depend on when it was drawn.
FILE_METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
LOOK: Any = {"pdf.fonttype": 42, "font.family": "DejaVu Sans", "savefig.dpi": 150}


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
        write_atomic(path, in_palette(sink.getvalue()) if kind == "png" else sink.getvalue())
        written.append(path)
    return written


def in_palette(png: bytes) -> bytes:
    """Return a PNG in 256 colours of its own: a third of the size, and nothing that the eye tells apart is lost."""
    with Image.open(io.BytesIO(png)) as image:
        small = image.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    sink = io.BytesIO()
    small.save(sink, "PNG", optimize=True)
    return sink.getvalue()
