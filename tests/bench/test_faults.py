"""A cell that fails in any way becomes its row with a reason; the others finish, and a cut cell goes on."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from misbehaving import OutOfMemory, write_plugin
from synthetic import MeanThreshold, blobs, plan

from bench import methods as registry
from bench.compare import main
from bench.data.request import DataRequest
from bench.kept.rows import without_timing
from bench.kept.store import Store
from bench.running.batch_runner import in_halves
from bench.running.cells import CellJob, CellOutcome, logging_to
from bench.running.evaluate import Evaluation
from bench.running.processes import _log_file
from bench.running.runner import _store
from bench.suites.suite import MethodEntry

MARK = "CERTBENCH_TEST_MARK"


@pytest.fixture
def plugged(tmp_path, monkeypatch) -> Path:
    """Folder with a package of misbehaving methods that this process and its children find."""
    folder = write_plugin(tmp_path / "plugin")
    monkeypatch.syspath_prepend(folder)
    registry.registered_methods.cache_clear()
    yield folder
    registry.registered_methods.cache_clear()


def suite_file(folder: Path, *methods: str, settings: str = "") -> Path:
    path = folder / "suite.toml"
    tables = "".join(f'[[methods]]\nmethod = "{name}"\n{settings}' for name in methods)
    path.write_text(f'datasets = ["circles"]\nnorms = ["l2"]\n{tables}')
    return path


def rows(out: Path) -> dict[str, pd.DataFrame]:
    return dict(tuple(pd.read_parquet(out / "radii.parquet").groupby("method")))


REASONS = {
    "sleeper": ("timeout", "0.1 minutes"),
    "eater": ("error", "0.3 GiB"),
    "crasher": ("error", "SIGSEGV"),
    "killed": ("error", "SIGKILL"),
    "quitter": ("error", "exit code 3"),
    "raiser": ("error", "RuntimeError: out of luck"),
    "not_a_number": ("error", "NaN"),
    "wrong_shape": ("error", "shape"),
    "wrong_prediction": ("error", "predict returned shape"),
}


@pytest.mark.slow
def test_every_way_to_fail_is_a_row_with_its_reason_and_a_log(plugged, tmp_path, capsys):
    out, suite = tmp_path / "out", suite_file(tmp_path, *REASONS, "too_large", "out_of_memory")
    arguments = ["--suite", str(suite), "--out", str(out), "--jobs", "2", "--cell-memory", "0.3"]
    # Of time only the one that never ends gets little: a busy machine may take any time for the others.
    assert main([*arguments, "--methods", "sleeper", "--cell-minutes", "0.1"]) == 1
    late = rows(out)["sleeper"]
    others = [name for name in REASONS if name != "sleeper"]
    assert main([*arguments, "--methods", *others, "too_large", "out_of_memory"]) == 1
    said, found = capsys.readouterr().err, {**rows(out), "sleeper": late}
    assert f"{len(others)} of {len(others) + 2} cells failed" in said
    for method, (outcome, reason) in REASONS.items():
        mine = found[method]
        mine = mine[mine["outcome"] != "misclassified"]
        assert set(mine["outcome"]) == {outcome}, method
        assert mine["reason"].str.contains(reason, regex=False).all(), method
        log = out / "cells" / "circles" / method / "seed0" / "cell.log"
        assert log.stat().st_size > 20 and str(log) in said
    assert "ctypes" in (out / "cells" / "circles" / "crasher" / "seed0" / "cell.log").read_text()
    assert "certified" in set(found["too_large"]["outcome"])
    assert set(found["out_of_memory"]["outcome"]) == {"certified", "misclassified"}


@pytest.mark.slow
def test_a_failed_cell_is_computed_again_by_the_next_run(plugged, tmp_path):
    tally = tmp_path / "tally"
    suite = suite_file(tmp_path, "cut_short", settings=f'settings.tally = "{tally}"\n')
    arguments = ["--suite", str(suite), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    parts = list((tmp_path / "out").rglob("*.part"))
    assert sorted(path.name.partition("-")[0] for path in parts if "certify" in path.name) == ["certify"] * 2
    assert main(arguments) == 0
    # The two finished batches were not computed again, the one that was cut was.
    counted = tally.read_text().count("batch")
    assert main(["--suite", str(suite), "--out", str(tmp_path / "whole")]) == 0
    assert counted == tally.read_text().count("batch") - counted + 1
    assert not list((tmp_path / "out").rglob("unfinished"))
    honest = suite_file(tmp_path, "out_of_memory")
    assert main(["--suite", str(honest), "--out", str(tmp_path / "honest")]) == 0
    pd.testing.assert_frame_equal(
        without_timing(rows(tmp_path / "out")["cut_short"]).drop(columns="method"),
        without_timing(rows(tmp_path / "honest")["out_of_memory"]).drop(columns="method"),
    )


def test_a_cell_with_errors_is_stored_and_does_not_count_as_finished(tmp_path):
    found = Evaluation(MeanThreshold(), blobs(), plan()).run()
    folder, request = Store(tmp_path).cell("blobs", "method", 0), DataRequest("blobs")
    job = CellJob(folder, request, MethodEntry("fcnn"), plan(), key="asked for")
    for errors, finished in (((), True), (("RuntimeError: out of luck",), False)):
        outcome = CellOutcome(found.radii, found.predictions, {}, {}, errors=errors)
        assert _store(job, outcome).errors == errors
        assert folder.finished("asked for") == finished
        assert len(folder.read()[0]) == len(found.radii)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_log_that_does_not_fit_costs_nothing_but_itself(capfd):
    with _log_file(Path("/dev/full")) as log, logging_to(log):
        logging.getLogger("bench.test").warning("no room for this")
    assert "Error" not in capfd.readouterr().err


def test_a_batch_that_does_not_fit_is_halved():
    whole = Evaluation(MeanThreshold(), blobs(), plan()).run().radii
    halved = Evaluation(OutOfMemory(), blobs(), plan()).run()
    assert not halved.errors
    pd.testing.assert_frame_equal(without_timing(whole), without_timing(halved.radii))


def test_halves_of_a_batch_are_told_where_they_start_so_that_each_has_noise_of_its_own():
    started = []

    def small_only(start, batch):
        if len(batch) > 2:
            raise MemoryError
        started.append((start, len(batch)))
        return {"first": batch[:, 0].numpy()}

    parts = in_halves(small_only, 40, torch.arange(7.0)[:, None])
    assert started == [(40, 2), (42, 2), (44, 2), (46, 1)]
    assert np.concatenate([part["first"] for part in parts]).tolist() == list(range(7))


def test_halving_ends_at_one_input_and_leaves_other_errors_alone():
    tried = []

    def never_fits(start, batch):
        tried.append(len(batch))
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        in_halves(never_fits, 0, torch.zeros(6, 2))
    assert tried == [6, 3, 2, 1]
    tried.clear()

    def broken(start, batch):
        tried.append(len(batch))
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        in_halves(broken, 0, torch.zeros(6, 2))
    assert tried == [6]


@pytest.fixture
def running(plugged, tmp_path):
    """A run in a process of its own whose only cell never ends; killed at the end of the test if need be."""
    mark = str(tmp_path)
    paths = [str(plugged), str(Path(__file__).parent), str(Path.cwd())]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "bench.compare", "--suite", str(suite_file(tmp_path, "sleeper"))),
            *("--out", str(tmp_path / "out"), "--jobs", "1"),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), MARK: mark},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: list((tmp_path / "out").rglob("cell.log")), 60)
    yield process
    process.kill()
    process.communicate()


def wait_until(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def alive(mark: Path) -> list[int]:
    """Processes that were started with this mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}\0".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_run_and_its_children_and_says_how_to_go_on(running, tmp_path, number, code):
    started = time.monotonic()
    running.send_signal(number)
    said = running.communicate(timeout=20)[1]
    assert running.returncode == code and time.monotonic() - started < 10
    assert "run the same command again" in said and "Traceback" not in said
    wait_until(lambda: not alive(tmp_path), 10)
    assert not (tmp_path / "out" / "run.lock").exists()


@pytest.mark.slow
def test_no_worker_outlives_a_killed_run(running, tmp_path):
    assert len(alive(tmp_path)) >= 2
    running.kill()
    running.wait()
    wait_until(lambda: not alive(tmp_path), 10)
