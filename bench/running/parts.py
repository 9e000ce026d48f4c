"""Finished batches of an unfinished cell on disk, so that a cut costs one batch.

A part is a file of two checksums and an .npz: what was computed for one batch by one trained network. It is written
atomically. A part of another network is ignored; a damaged one is named, set aside and computed again.
"""

import hashlib
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bench.basics.files import SCHEMA_VERSION, set_aside, write_atomic

LOG = logging.getLogger(__name__)
SUFFIX = ".part"
DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Parts:
    """The parts of one cell in ``folder`` (None: nothing is kept), made by what ``owner`` identifies."""

    folder: Path | None = None
    owner: bytes = b""

    def owned_by(self, state: Mapping[str, Tensor]) -> "Parts":
        """Return the parts of the network with this state: those of another one are not its certificates."""
        if self.folder is None:
            return self
        digest = hashlib.sha256(f"schema {SCHEMA_VERSION}".encode())
        for name in sorted(state):
            values = state[name].detach().cpu().contiguous().numpy()
            digest.update(f"{name} {values.dtype.str} {values.shape}".encode() + values.tobytes())
        return replace(self, owner=digest.digest())

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """Return the arrays saved under ``name`` by the same owner, or None."""
        path = self._path(name)
        if path is None or not path.is_file():
            return None
        content = path.read_bytes()
        digest, owned = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(owned).digest() != digest:
            set_aside(path, "does not match its checksum")
            return None
        if owned[:DIGEST_BYTES] != self.owner:
            return None
        with np.load(io.BytesIO(owned[DIGEST_BYTES:]), allow_pickle=False) as arrays:
            return dict(arrays)

    def save(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the arrays of a finished batch; a disk that cannot take them costs a warning, not the cell."""
        path = self._path(name)
        if path is None:
            return
        buffer = io.BytesIO()
        named: dict[str, Any] = dict(arrays)
        np.savez(buffer, **named)
        owned = self.owner + buffer.getvalue()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, hashlib.sha256(owned).digest() + owned)
        except OSError as error:
            LOG.warning("%s cannot be kept (%s): a cut would cost this batch again", path, error.strerror)

    def _path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}{SUFFIX}"
