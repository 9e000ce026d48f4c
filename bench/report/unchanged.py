"""Whether what a finished run wrote is still what its cells, settings and code give, so that nothing is drawn again.

``finished.json``, written last of all, names what everything was made from, and the checksum of each file. A damaged
table is named and set aside, like a cell's files; figures and report, which other commands draw too, are drawn again.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.basics.files import (
    DamagedFileError,
    checksum,
    plain,
    seal,
    set_aside,
    unseal,
    write_atomic,
)
from bench.kept.store import (
    CANDIDATES,
    CELL,
    CLAIM,
    CLAIM_LATEX,
    CLAIM_TEXT,
    CURVES,
    FIGURES,
    ORIGINAL_UNITS,
    PREDICTIONS,
    RADII,
    ROC_TABLE,
    RUN,
    SUMMARY,
    SUMMARY_LATEX,
    TABLE_COLUMNS,
    VALIDATION,
    Store,
    read_verified,
)
from bench.running.cells import CellJob
from bench.suites.suite import Suite

MARK = "finished.json"
TABLES = (
    RADII,
    PREDICTIONS,
    CURVES,
    SUMMARY,
    SUMMARY_LATEX,
    ROC_TABLE,
    TABLE_COLUMNS,
    ORIGINAL_UNITS,
    RUN,
    CLAIM,
    CLAIM_TEXT,
    CLAIM_LATEX,
    VALIDATION,
)
MADE = (*TABLES, CANDIDATES, "report.html")
# What the report shows, but another command writes.
SHOWN = ("falsify.csv",)
# Figures of another command.
NOT_OURS = "_bracket."


def made_from(store: Store, suite: Suite, jobs: Sequence[CellJob]) -> str:
    """Return a hash of the finished cells, of what the tables say of them, and of this package's code."""
    digest = hashlib.sha256(json.dumps(plain(suite), sort_keys=True).encode())
    digest.update(f"{store.out}\0{json.dumps(plain(jobs[0].data.record()), sort_keys=True)}".encode())
    package = Path(__file__).parent.parent
    sources = sorted(path for kind in ("*.py", "static/*") for path in package.rglob(kind) if path.is_file())
    shown = [store.out / name for name in SHOWN if (store.out / name).exists()]
    for path in [*(job.folder.path / CELL for job in jobs), *shown, *sources]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def remember(store: Store, made: str, text: str) -> None:
    """Note that the run's files are complete, and the ``text`` that was printed of them."""
    files = {}
    for path in [*(store.out / name for name in MADE), *sorted((store.out / FIGURES).glob("*"))]:
        if path.is_file() and NOT_OURS not in path.name:
            data = path.read_bytes()
            files[str(path.relative_to(store.out))] = {"bytes": len(data), "sha256": checksum(data)}
    write_atomic(store.out / MARK, seal({"made_from": made, "text": text, "files": files}))


def remembered_text(store: Store, made: str) -> str | None:
    """Return the text of an earlier run that left the same files, all of them intact; None if there is none."""
    try:
        record = unseal((store.out / MARK).read_bytes())
        if not {"made_from", "files", "text"} <= record.keys():
            raise DamagedFileError("is not the mark of a finished run")
    except OSError:
        return None
    except DamagedFileError as error:
        set_aside(store.out / MARK, str(error))
        return None
    if record["made_from"] != made:
        return None
    damaged = [name for name, expected in record["files"].items() if not _intact(store.out, name, expected)]
    return None if damaged else record["text"]


def _intact(out: Path, name: str, expected: Mapping[str, Any]) -> bool:
    """Say whether a file is as it was written; a table that is not is set aside."""
    try:
        read_verified(out / name, expected)
    except DamagedFileError as error:
        if name in TABLES and (out / name).exists():
            set_aside(out / name, str(error))
        return False
    return True
