"""Whether what a finished run wrote is still what its cells, settings and code give, so that nothing is drawn again.

``finished.json``, written last of all, names what everything was made from, and the checksum of each file.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from bench.files import DamagedFileError, checksum, plain, seal, unseal, write_atomic
from bench.running.cells import CellJob
from bench.store import (
    CELL,
    CLAIM,
    CLAIM_TEXT,
    CURVES,
    FIGURES,
    PREDICTIONS,
    RADII,
    RUN,
    SUMMARY,
    Store,
    read_verified,
)
from bench.suite import Suite

MARK = "finished.json"
MADE = (RADII, PREDICTIONS, CURVES, SUMMARY, RUN, CLAIM, CLAIM_TEXT, "report.html")
# What the report shows, but another command writes.
SHOWN = ("falsify.csv",)
# Figures of another command.
NOT_OURS = "_bracket."


def made_from(store: Store, suite: Suite, jobs: Sequence[CellJob]) -> str:
    """Return a hash of the finished cells, of what the tables say of them, and of this package's code."""
    digest = hashlib.sha256(json.dumps(plain(suite), sort_keys=True).encode())
    digest.update(f"{store.out}\0{jobs[0].data.sensitive}".encode())
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
        if record["made_from"] != made:
            return None
        for name, expected in record["files"].items():
            read_verified(store.out / name, expected)
    except (OSError, DamagedFileError):  # whatever is wrong, everything is written again
        return None
    return record["text"]
