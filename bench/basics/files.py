"""Files that are either whole or absent: atomic durable writes, checksums, sealed JSON, safe names.

A crash, a full disk or a kill at any moment leaves the old file or the new one, never a mixture. What cannot be
trusted when it is read back is set aside under another name, never deleted.
"""

import dataclasses
import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from bench.basics.errors import UsageError

SCHEMA_VERSION = 2
# Version 1 had no operating points; published results are still of it.
READABLE_VERSIONS = (1, SCHEMA_VERSION)
MAX_JSON_BYTES = 64 * 2**20
MAX_NAME_LENGTH = 150

LOG = logging.getLogger(__name__)


class DamagedFileError(ValueError):
    """A stored file is not what was written: damaged, cut off, foreign or of another schema version."""


def checksum(data: bytes) -> str:
    """Return the SHA-256 of the bytes in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Replace the file by ``data`` in one step that survives a crash; raise OSError naming the file."""
    commit({path: stage(path, data)})


def stage(path: Path, data: bytes) -> Path:
    """Write ``data`` to disk beside ``path`` under a temporary name, and return that name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    return temporary


def commit(staged: Mapping[Path, Path]) -> None:
    """Rename staged files {path: temporary} to their final names, in order, and make that durable."""
    for path, temporary in staged.items():
        temporary.replace(path)
    for folder in {path.parent for path in staged}:
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to disk, so that renames in it survive a power cut; raise OSError naming it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Delete what killed writers left behind; only call while no other run writes to the folder."""
    for path in folder.rglob(".*.tmp"):
        if re.fullmatch(r"\..+\.\d+\.tmp", path.name) and path.is_file():
            path.unlink()


def set_aside(path: Path, why: str) -> Path:
    """Rename a file that cannot be trusted to ``NAME.damaged-N``, say so in a warning, return the new name."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    LOG.warning("%s %s: set aside as %s", path, why, aside.name)
    return aside


def safe_name(name: str) -> str:
    """Return a name that is one path component: other characters become %XX, so different names stay different.

    Raises UsageError for a name that is empty or too long for a file system.
    """
    kept = re.sub(r"[^A-Za-z0-9_.-]", lambda found: _percent(found.group()), name)
    if kept.startswith("."):
        kept = _percent(".") + kept[1:]
    if not 0 < len(kept) <= MAX_NAME_LENGTH:
        raise UsageError(
            f"the name {name[:40]!r} cannot be a folder: use 1 to {MAX_NAME_LENGTH} letters, digits, _, - or ."
        )
    return kept


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def seal(record: Mapping[str, Any]) -> bytes:
    """Return the record as JSON text that carries its schema version and its own checksum."""
    body = {"schema_version": SCHEMA_VERSION, **plain(record)}
    return _render({**body, "checksum": checksum(_render(body))})


def unseal(data: bytes) -> dict[str, Any]:
    """Return a sealed record without its checksum; raise DamagedFileError for any byte that was changed."""
    try:
        record = json.loads(data[:MAX_JSON_BYTES])
        body = {name: value for name, value in record.items() if name != "checksum"}
        intact = record["checksum"] == checksum(_render(body)) and _render(record) == data
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedFileError("is not a record of this suite, or is damaged") from error
    if not intact:
        raise DamagedFileError("does not match its checksum")
    if body.get("schema_version") not in READABLE_VERSIONS:
        raise DamagedFileError(
            f"has schema version {body.get('schema_version')}, this version of the suite writes {SCHEMA_VERSION}"
        )
    return body


def _render(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, ensure_ascii=True, allow_nan=False) + "\n").encode()


def plain(value: Any) -> Any:
    """Turn settings into what JSON can hold: dataclasses become objects, inf and nan become strings.

    Of a path only the last part is kept: results are published, and a user's folders are nobody's business.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, PurePath):
        return value.name
    if hasattr(value, "tolist"):  # NumPy and torch scalars and arrays
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)
