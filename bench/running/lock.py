"""One run at a time on an output folder: a lock that dies with its process.

The operating system holds the lock (``flock``) and drops it when the process ends, however it ends, so taking over
from a dead run is free of races. The locked file says who holds it, for the message to the second comer; it is
removed when the run ends.
"""

import fcntl
import json
import os
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.basics.errors import UsageError

LOCK = "run.lock"
WAIT_FOR_NAME = 1.0


@dataclass
class FolderLock:
    """Context manager that holds an output folder's lock.

    Entering raises UsageError naming the process, host and start time that hold it. A lock left by a run that died
    on this host is taken over. One left by a run on another host is not, as some network file systems do not show
    other hosts' locks; the message then says what to delete.
    """

    out: Path
    _descriptor: int | None = field(default=None, init=False, repr=False)
    _owner: int = field(default_factory=os.getpid, init=False, repr=False)

    def __enter__(self) -> "FolderLock":
        try:
            self._descriptor = _acquire(self.out / LOCK)
        except OSError as error:
            raise UsageError(
                f"cannot lock the output folder {str(self.out)!r} ({error.strerror}): choose another one with --out"
            ) from error
        # A forked child would keep the lock alive after its parent's death.
        os.register_at_fork(after_in_child=self._let_go)
        return self

    def __exit__(self, *_: object) -> None:
        if os.getpid() == self._owner:
            (self.out / LOCK).unlink(missing_ok=True)
        self._let_go()

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_still(path, descriptor):
                # Its holder removed the file between our opening and locking it: that file is gone, try again.
                os.close(descriptor)
                continue
            _refuse_other_host(path, _holder(descriptor))
            _sign(descriptor)
            return descriptor
        except BlockingIOError:
            holder = _wait_for_holder(descriptor)
            os.close(descriptor)
            raise _refusal(path, holder, "wait for it to end, or choose another folder with --out") from None
        except BaseException:
            os.close(descriptor)
            raise


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started})
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)
    os.fsync(descriptor)


def _holder(descriptor: int) -> dict[str, object]:
    """Read who signed the lock; empty if nobody has yet or the text is not ours."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) and {"pid", "host", "started"} <= holder.keys() else {}


def _wait_for_holder(descriptor: int) -> dict[str, object]:
    """Read who holds the lock, waiting a moment for a holder that has locked but not yet signed."""
    deadline = time.monotonic() + WAIT_FOR_NAME
    while not (holder := _holder(descriptor)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return holder


def _refuse_other_host(path: Path, holder: dict[str, object]) -> None:
    if holder and holder["host"] != socket.gethostname():
        raise _refusal(path, holder, f"if that run has died, delete {str(path)!r}")


def _refusal(path: Path, holder: dict[str, object], remedy: str) -> UsageError:
    who = (
        f"process {holder['pid']} on host {holder['host']}, started {holder['started']}"
        if holder
        else "another process"
    )
    return UsageError(f"the output folder {str(path.parent)!r} is in use by {who}: {remedy}")
