"""python -m bench.publish OUT NAME: copy a finished run's tables and figures to results/NAME.

The one way into ``results/``, and a deliberate one: no run writes there by itself. Rows, curves (compressed), summary,
figures and run.json are copied; trained weights stay behind. Exit codes: 0 done; 2 bad usage, nothing changed.
"""

import argparse
import gzip
import shutil
import sys
from pathlib import Path

from bench.basics.commands import DONE, command
from bench.basics.errors import Parser, UsageError
from bench.basics.files import safe_name
from bench.contract import Outcome
from bench.kept.store import (
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
    Store,
)

RESULTS = Path(__file__).parent.parent / "results"
MAX_BYTES = 40 * 2**20
TABLES = (RADII, PREDICTIONS, CURVES, SUMMARY, RUN)
EXPERIMENTS, ROWS = "experiments", "rows.csv"
OPTIONAL = (
    ROC_TABLE,
    CLAIM,
    CLAIM_TEXT,
    CLAIM_LATEX,
    SUMMARY_LATEX,
    "report.html",
    "radii.csv.gz",
    CANDIDATES,
    "falsify.csv",
    "bracket.csv",
    "queries.csv",
)


def publish(out: Path, name: str, results: Path = RESULTS) -> Path:
    """Copy the run in ``out`` to ``results/name``, replacing what is there; return the new folder.

    Raises UsageError for a folder that is no finished run, a run with failed cells, or one that would make the
    results larger than 40 MB.
    """
    run, _, _ = Store(out).read_run()
    if run["outcomes"][Outcome.ERROR]:
        raise UsageError(f"{str(out)!r} has rows with errors: mend and run again before publishing")
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
    total = sum(
        path.stat().st_size for path in results.rglob("*") if path.is_file() and folder not in path.parents
    )
    if total > MAX_BYTES:
        shutil.rmtree(draft)
        raise UsageError(
            f"results/ would hold {total:,} bytes: at most {MAX_BYTES:,} are allowed, remove some first"
        )
    shutil.rmtree(folder, ignore_errors=True)
    return draft.rename(folder)


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


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(prog="python -m bench.publish", description="Copy a finished run to results/NAME.")
    top.add_argument("out", type=Path, metavar="OUT", help="output folder of a finished run")
    top.add_argument("name", metavar="NAME", help="folder under results/")
    return top


def run(options: argparse.Namespace) -> int:
    """Publish, and say where."""
    print(f"Published to {publish(options.out, options.name)}; commit it with what it shows.")
    return DONE


main = command("bench.publish", parser, run)

if __name__ == "__main__":
    sys.exit(main())
