"""The lock keeps two runs off one folder, and dies with its process; tried with real processes."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.basics.errors import UsageError
from bench.running.lock import LOCK, FolderLock

HOLD = """
import sys, time
from pathlib import Path
from bench.running.lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    {then}
"""
# Each process adds one to a number many times; without mutual exclusion additions get lost.
COUNT = """
import sys
from pathlib import Path
from bench.basics.errors import UsageError
from bench.running.lock import FolderLock
out, done = Path(sys.argv[1]), 0
while done < 50:
    try:
        with FolderLock(out):
            number = int((out / "number").read_text())
            (out / "number").write_text(str(number + 1))
            done += 1
    except UsageError:
        pass
"""


def start(script: str, out: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(out)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )


def hold(out: Path, then: str = "time.sleep(60)") -> subprocess.Popen:
    """Start a process that holds the lock; return once it does."""
    process = start(HOLD.format(then=then), out)
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_run_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    try:
        with pytest.raises(UsageError) as caught, FolderLock(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
    signed = json.loads((tmp_path / LOCK).read_text())
    assert signed["pid"] == holder.pid
    for part in (f"process {holder.pid}", f"host {socket.gethostname()}", f"started {signed['started']}"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_holder_that_signs_a_moment_later_is_named(tmp_path: Path, monkeypatch) -> None:
    """Here it signs while the second run waits."""
    with (tmp_path / LOCK).open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)

        def sign_meanwhile(_: float) -> None:
            holder.write(json.dumps({"pid": 12, "host": socket.gethostname(), "started": "now"}))
            holder.flush()

        monkeypatch.setattr("time.sleep", sign_meanwhile)
        with pytest.raises(UsageError, match="process 12 on host"), FolderLock(tmp_path):
            pass


def test_a_lock_left_by_a_killed_run_is_taken_over(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_a_forked_child_does_not_keep_a_dead_runs_lock(tmp_path: Path) -> None:
    # The child speaks, since only then is it sure to have come past the hook that runs at its start.
    then = "import os; child = os.fork(); child or print(os.getpid(), flush=True); time.sleep(60)"
    holder = hold(tmp_path, then)
    orphan = int(holder.stdout.readline())
    holder.kill()
    holder.wait()
    try:
        with FolderLock(tmp_path):
            pass
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_the_lock_is_gone_after_the_run_also_after_a_failed_one(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), FolderLock(tmp_path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_one_process_cannot_run_twice_on_a_folder(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        with pytest.raises(UsageError, match=f"process {os.getpid()}"), FolderLock(tmp_path):
            pass
        assert (tmp_path / LOCK).exists()


def test_a_lock_of_another_host_is_respected(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text('{"pid": 1, "host": "elsewhere", "started": "2026-01-01T00:00:00+00:00"}')
    with pytest.raises(UsageError, match=r"host elsewhere.*delete .*run\.lock"), FolderLock(tmp_path):
        pass
    assert (tmp_path / LOCK).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": 1}'])
def test_a_half_written_lock_of_a_dead_run_is_taken_over(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    with FolderLock(tmp_path):
        pass


def test_a_folder_that_cannot_be_locked_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot lock the output folder"), FolderLock(tmp_path / "missing"):
        pass


def test_racing_processes_never_hold_the_lock_together(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    racers = [start(COUNT, tmp_path) for _ in range(3)]
    assert [racer.wait(timeout=60) for racer in racers] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == "150"
