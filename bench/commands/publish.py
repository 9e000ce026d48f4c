"""Copy a finished run's tables and figures to results/NAME; trained weights stay behind."""

import argparse
import gzip
import re
import shutil
from pathlib import Path

from bench.basics.commands import DONE
from bench.basics.errors import UsageError
from bench.basics.files import safe_name
from bench.basics.results import RESULTS
from bench.contract import Outcome
from bench.kept.store import (
    BRACKET,
    CANDIDATES,
    CLAIM,
    CLAIM_LATEX,
    CLAIM_TEXT,
    CURVES,
    FIGURES,
    PREDICTIONS,
    RADII,
    ROC_TABLE,
    RUN,
    SUMMARY,
    SUMMARY_LATEX,
    VALIDATION,
    Store,
)

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
# What one run may add to the repository, and what all of them may take together.
MAX_BYTES, MAX_TOTAL_BYTES = 20 * 2**20, 80 * 2**20
TABLES = (RADII, PREDICTIONS, CURVES, SUMMARY, RUN)
EXPERIMENTS, ROWS = "experiments", "rows.csv"
OPTIONAL = (
    ROC_TABLE,
    VALIDATION,
    CLAIM,
    CLAIM_TEXT,
    CLAIM_LATEX,
    SUMMARY_LATEX,
    "report.html",
    CANDIDATES,
    "falsify.csv",
    BRACKET,
    "queries.csv",
)


def publish(out: Path, name: str, results: Path = RESULTS) -> Path:
    """Copy the run in ``out`` to ``results/name``, replacing what is there; return the new folder.

    Raises UsageError for a folder that is no finished run, a run with failed cells, one of more than 20 MB, or one
    that would make the results larger than 80 MB.
    """
    if not re.fullmatch(NAME, name):
        raise UsageError(
            f"the name {name!r} cannot be a folder under results/: use letters, digits, _, - and ."
        )
    run, _, _ = Store(out).read_run()
    if run["outcomes"][Outcome.ERROR]:
        raise UsageError(f"{str(out)!r} has rows with errors: mend and run again before publishing")
    for part in (*TABLES, FIGURES):
        if not (out / part).exists():
            raise UsageError(f"{str(out)!r} has no {part}: run python -m bench.compare again, then publish")
    files = [out / table for table in (*TABLES, *OPTIONAL) if (out / table).exists()]
    files += sorted((out / FIGURES).iterdir()) + experiment_files(out)
    folder = results / safe_name(name)
    draft = results / f".{folder.name}.part"
    shutil.rmtree(draft, ignore_errors=True)
    for path in files:
        copy = draft / path.relative_to(out)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    _compress(draft / CURVES)
    own, others = (
        _size(draft),
        {path.name: _size(path) for path in results.iterdir() if path not in (draft, folder)},
    )
    if own > MAX_BYTES:
        shutil.rmtree(draft)
        raise UsageError(
            f"{str(out)!r} has {_mb(own)} of tables and figures: at most {_mb(MAX_BYTES)} are published"
        )
    if own + sum(others.values()) > MAX_TOTAL_BYTES:
        shutil.rmtree(draft)
        largest = sorted(others, key=lambda name: others[name], reverse=True)[:3]
        raise UsageError(
            f"{str(results)!r} would hold {_mb(own + sum(others.values()))}: at most {_mb(MAX_TOTAL_BYTES)} are "
            f"allowed. Largest: {', '.join(f'{name} ({_mb(others[name])})' for name in largest)}; remove one of them, "
            f"or publish over an old run by its name"
        )
    shutil.rmtree(folder, ignore_errors=True)
    return draft.rename(folder)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(part.stat().st_size for part in (path, *path.rglob("*")) if part.is_file())


def _mb(size: int) -> str:
    return f"{size / 2**20:.1f} MB"


def _compress(path: Path) -> None:
    """Replace PATH by PATH.gz: curves are the largest table, and pandas reads them as they are."""
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()


def experiment_files(out: Path) -> list[Path]:
    """Rows and figures of the experiments that were run into the same folder; their curves follow from the rows."""
    kept = (RADII, PREDICTIONS, SUMMARY, RUN, ROWS)
    return [
        path
        for folder in sorted((out / EXPERIMENTS).glob("*/"))
        for path in (*(folder / name for name in kept), *sorted((folder / FIGURES).glob("*")))
        if path.is_file()
    ]


def run(options: argparse.Namespace) -> int:
    """Publish, and say where."""
    print(f"Published to {publish(options.out, options.name)}; commit it with what it shows.")
    return DONE
