"""Puts the page together: markup, style, script, charting library and data in one file.

The charts are drawn by Plotly (MIT licence), the only large charting library that ships its whole script in a package
on PyPI, so that installing the suite is enough. Uncompressed it would fill the page (4.8 MB); compressed it takes
2 MB, and every browser since 2023 can unpack it, and the data as well.
The page may load nothing (its content security policy says so) and
runs two scripts only, named by their checksums; names and reasons from the run are shown as text, never as markup.
"""

import argparse
import base64
import gzip
import hashlib
import html
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from bench.basics.commands import DONE
from bench.basics.errors import UsageError
from bench.basics.files import write_atomic
from bench.kept.store import RADII, Store
from bench.report.adversarial import find_adversarials
from bench.report.content import report_content
from bench.report.pictures import Pictures

REPORT = "report.html"
# Rows that would make the page larger by more than this stay beside it.
MAX_ROWS_BYTES = 200_000
SCRIPTS = (
    "values.js",
    "elements.js",
    "charts.js",
    "tables.js",
    "inputs.js",
    "verdict.js",
    "sections.js",
    "about.js",
    "address.js",
    "page.js",
)


def run(options: argparse.Namespace) -> int:
    """Write the report that python -m bench.report is asked for, and print its name."""
    if options.data_dir is not None and not options.data_dir.is_dir():
        raise UsageError(
            f"data folder {str(options.data_dir)!r} does not exist: give --data-dir the run's data sets"
        )
    print(write_report(options.out, options.data_dir, attack=options.attack))
    return DONE


def write_report(out: Path, data_dir: Path | None = None, attack: bool = False) -> Path:
    """Write OUT/report.html for a finished run and return its path.

    data_dir: where the run's data sets are, for their images; what cannot be loaded is named on the page.
    attack: look for adversarial examples near the shown inputs first, and keep them in OUT/adversarial.
    The rows are in the page if they are few; many stay in radii.parquet beside it, and the page says so.
    Raises UsageError if ``out`` is no finished run or is damaged, OSError if it cannot be written to.
    """
    run, radii, predictions = Store(out).read_run()
    library = _library()
    if attack:
        find_adversarials(out, run, radii, data_dir)
    pictures = Pictures(out, data_dir, run["configuration"])
    content = report_content(out, run, radii, predictions, pictures)
    rows = base64.b64encode(_packed_rows(radii)).decode()
    beside = len(rows) > MAX_ROWS_BYTES
    page = _page({**content, "rows_beside": RADII if beside else ""}, library, "" if beside else rows)
    write_atomic(out / REPORT, page)
    return out / REPORT


def _page(content: dict[str, Any], library: str, rows: str) -> bytes:
    static = files("bench.report") / "static"
    script = "\n".join(static.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS)
    parts = {
        "title": html.escape(content["title"]),
        "style": static.joinpath("report.css").read_text(encoding="utf-8"),
        "policy": f"'{_source_hash(script)}' '{_source_hash(library)}'",
        "script": script,
        "data": _zipped(json.dumps(content, allow_nan=False, separators=(",", ":"))),
        "library": _zipped(library),
        "rows": rows,
    }
    page = static.joinpath("report.html").read_text(encoding="utf-8")
    pieces = page.split("{{")
    # Split first, so that nothing in the data can look like a place to fill.
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled).encode()


def _zipped(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _library() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise UsageError("the report needs the package plotly: install it with pip install plotly") from error
    return get_plotlyjs()


def _source_hash(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _packed_rows(radii: pd.DataFrame) -> bytes:
    return gzip.compress(radii.to_csv(index=False, lineterminator="\n").encode(), mtime=0)
