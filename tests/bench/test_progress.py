"""What a run tells while it runs, and what it says beforehand about the time it will take."""

import io
from dataclasses import dataclass
from pathlib import Path

import pytest
from undrawn import compare

from bench.compare import main
from bench.kept.store import CellFolder, Store
from bench.running.costs import Costs, in_words, seconds_left
from bench.running.progress import Progress, estimate
from bench.running.status import StatusFile

QUICK = ["--datasets", "digits_38", "--norms", "l2", "--jobs", "1"]


@dataclass(frozen=True)
class Job:
    """As much of a cell's job as progress looks at."""

    method: str
    status_file: StatusFile | None = None

    @property
    def key(self) -> str:
        return self.method

    @property
    def label(self) -> str:
        return f"{self.method} on data"

    @property
    def folder(self) -> CellFolder:
        return Store(Path("out")).cell("data", self.method, 0)

    def status(self) -> StatusFile:
        return self.status_file


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def costs(**seconds: float) -> Costs:
    known = Costs()
    for method, value in seconds.items():
        known.add("data", method, value)
    return known


@pytest.mark.parametrize(
    ("at_a_time", "spent", "left"),
    [(1, {}, 130), (2, {}, 100), (1, {"slow": 60}, 70), (2, {"slow": 60}, 40), (1, {"slow": 500}, 30)],
)
def test_the_time_left_is_the_work_left_shared_out_but_never_less_than_the_longest_cell(
    at_a_time, spent, left
):
    jobs = [Job("slow"), Job("fast")]
    assert seconds_left(jobs, costs(slow=100, fast=30), at_a_time, spent) == (left, 0)


def test_a_cell_never_timed_counts_as_a_typical_one_and_is_named_a_guess():
    jobs = [Job("slow"), Job("new")]
    assert seconds_left(jobs, costs(slow=100, fast=20), 1) == (160, 1)
    assert "a guess: 1 of 2" in estimate(jobs, costs(slow=100), 1)
    assert "unknown" in estimate(jobs, Costs(), 1)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (59, "59 s"), (95, "2 min"), (3600, "1 h 00 min"), (7900, "2 h 12 min")],
)
def test_durations_are_said_as_people_say_them(seconds, words):
    assert in_words(seconds) == words


def test_a_terminal_sees_the_running_cells_what_they_are_at_and_the_time_left(tmp_path):
    status = StatusFile(tmp_path / "deep" / "status.txt")
    status("epoch 3 of 30")
    progress = Progress([Job("slow", status), Job("fast")], 2, costs(slow=100, fast=30), Terminal())
    progress.begin()
    progress._told -= 60
    progress.watch({"slow": 61})
    told = progress.stream.getvalue()
    progress.close()
    assert "slow on data (epoch 3 of 30, 1 min)" in told and "about 39 s left" in told


def test_a_log_gets_a_line_for_each_cell_and_what_was_finished_before_is_no_work_to_do():
    jobs = [Job("done"), Job("slow"), Job("fast")]
    progress = Progress(jobs, 1, costs(slow=100, fast=30), io.StringIO())
    progress.found(jobs[0])
    progress.begin()
    progress.watch({"slow": 1})  # too early for a line
    progress.ended(jobs[1], 200, failed=False)
    progress.ended(jobs[2], None, failed=True)
    lines = progress.stream.getvalue().splitlines()
    assert lines[0].startswith("2 of 3 cells to compute, 1 finished before; about 2 min left")
    assert lines[1] == "[2/3] slow on data: done in 3 min; about 30 s left"
    assert lines[2] == "[3/3] fast on data: failed; all cells done"


def test_a_dry_run_names_data_cells_and_time_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "runs" / "one"
    words = [*QUICK, "--methods", "cayley", "sll", "--out", str(out)]
    assert main([*words, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "digits_38: 1 x 8 x 8; train 200 (" in told and "2 of 2 cells to compute" in told
    assert not out.parent.exists()


def test_earlier_runs_tell_how_long_cells_take(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bench.running.costs.PUBLISHED", tmp_path / "none")
    first, second = tmp_path / "runs" / "one", tmp_path / "runs" / "two"
    words = [*QUICK, "--methods", "cayley"]
    assert compare([*words, "--out", str(first)]) == 0
    (known,) = Costs.at_hand(second).seconds[("digits_38", "cayley")]
    cell = Store(first).cell("digits_38", "cayley", 0).record()
    assert known == pytest.approx(sum(cell["meta"]["seconds"].values()), abs=0.01)
    capsys.readouterr()
    assert main([*words, "--out", str(second), "--dry-run"]) == 0
    assert f"about {in_words(known)} each" in capsys.readouterr().out
    assert main([*words, "--out", str(first), "--dry-run"]) == 0
    assert "finished before" in capsys.readouterr().out
