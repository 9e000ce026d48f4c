"""Runs of which nothing is drawn, for tests of what is computed and stored: figures and report take most of a run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

import pytest

from bench.compare import main


@contextmanager
def undrawn() -> Iterator[None]:
    """Leave out figures and report of the runs made inside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.report.finish.draw_run", lambda out: [])
        patch.setattr("bench.report.finish.write_report", lambda out, data_dir: out / "report.html")
        yield


def without_drawing(command: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
    """Return a command that draws nothing."""

    @wraps(command)
    def quiet(arguments: list[str]) -> int:
        with undrawn():
            return command(arguments)

    return quiet


compare = without_drawing(main)


def run_suite(folder: Path, suite: str, *options: str) -> Path:
    """Write a suite into a folder, run it in one process at a time, and return the output folder."""
    (folder / "suite.toml").write_text(suite)
    arguments = ["--suite", str(folder / "suite.toml"), "--out", str(folder / "out"), "--jobs", "1"]
    assert compare([*arguments, *options]) == 0
    return folder / "out"
