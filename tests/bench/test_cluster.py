"""Cells on a real Dask cluster of processes on loopback: the same tables, also when its workers are killed."""

import os
import signal
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from misbehaving import write_plugin
from undrawn import compare as main

from bench import methods as registry
from bench.kept.rows import without_timing

pytestmark = pytest.mark.slow
SUITE = """
datasets = ["circles", "digits_38"]
norms = ["l1", "l2"]
[[methods]]
method = "fcnn"
settings.train.epochs = 12
[[methods]]
method = "smoothing_gaussian"
settings.network = "mlp"
settings.train.epochs = 6
settings.draws = 2000
[[methods]]
method = "crown"
settings.train.epochs = 10
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    return write_plugin(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="module")
def cluster(plugin):
    """Two workers, each a process of its own with a nanny that starts it again when it dies."""
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("distributed")
    paths = [str(plugin), str(Path(__file__).parent), str(Path.cwd())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        for path in paths:
            patch.syspath_prepend(path)
        registry.registered_methods.cache_clear()
        settings = {"distributed.scheduler.allowed-failures": 10, "distributed.admin.tick.limit": "60s"}
        with (
            dask.config.set(settings),
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
            ) as cluster,
        ):
            yield cluster
        registry.registered_methods.cache_clear()


def run(suite: Path, out: Path, cluster=None, *rest: str) -> int:
    where = ["--backend", "dask", "--scheduler", cluster.scheduler_address] if cluster else ["--jobs", "1"]
    return main(["--suite", str(suite), "--out", str(out), *where, *rest])


def kill_workers(cluster, times: int, stop: threading.Event, killed: list[int]) -> None:
    """Kill one worker process after another, as the system does when memory runs out."""
    while len(killed) < times and not stop.wait(2.0):
        pids = [nanny.pid for nanny in cluster.workers.values() if nanny.pid and nanny.pid not in killed]
        if pids:
            pid = pids[0]
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)


def test_tables_are_the_same_with_workers_killed_five_times(cluster, tmp_path):
    suite = tmp_path / "suite.toml"
    suite.write_text(SUITE)
    assert run(suite, tmp_path / "alone") == 0
    stop, killed = threading.Event(), []
    killer = threading.Thread(target=kill_workers, args=(cluster, 5, stop, killed))
    killer.start()
    rounds = 0
    while len(killed) < 5 or not rounds:
        rounds += 1
        assert run(suite, tmp_path / "cluster", cluster, "--fresh") == 0
    stop.set()
    killer.join()
    for name in ("radii", "predictions"):
        tables = [pd.read_parquet(tmp_path / place / f"{name}.parquet") for place in ("alone", "cluster")]
        pd.testing.assert_frame_equal(*map(without_timing, tables))
    assert len(killed) == 5


def test_cells_that_fail_on_the_cluster_are_rows_with_reasons(cluster, tmp_path, capsys):
    suite = tmp_path / "suite.toml"
    methods = "".join(f'[[methods]]\nmethod = "{name}"\n' for name in ("raiser", "sleeper", "out_of_memory"))
    suite.write_text(f'datasets = ["circles"]\nnorms = ["l2"]\n{methods}')
    # Without a limit those that end: a busy machine may take any time for them.
    assert run(suite, tmp_path / "out", cluster, "--methods", "raiser", "out_of_memory") == 1
    assert run(suite, tmp_path / "late", cluster, "--methods", "sleeper", "--cell-minutes", "0.1") == 1
    rows = pd.concat([pd.read_parquet(tmp_path / name / "radii.parquet") for name in ("out", "late")])
    found = rows.groupby("method")["outcome"].unique()
    assert list(found["raiser"]) == ["error"] and list(found["sleeper"]) == ["timeout"]
    assert "certified" in found["out_of_memory"]
    log = tmp_path / "out" / "cells" / "circles" / "raiser" / "seed0" / "cell.log"
    assert "out of luck" in log.read_text() and "Traceback" in log.read_text()
    assert "0.1 minutes" in capsys.readouterr().err


def test_a_scheduler_that_does_not_answer_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bench.running.cluster.CONNECT_SECONDS", 1)
    arguments = ["--datasets", "circles", "--backend", "dask", "--scheduler"]
    for address in ("tcp://127.0.0.1:1", "nonsense://", "x y"):
        assert main([*arguments, address, "--out", str(tmp_path / "out")]) == 2
        said = capsys.readouterr().err
        assert "scheduler" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_workers_with_several_threads_are_refused(tmp_path, capsys):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as wide:
        assert run(Path("quick"), tmp_path / "out", wide, "--datasets", "circles") == 2
    assert "--nthreads 1" in capsys.readouterr().err


def test_nothing_is_left_running(cluster):
    time.sleep(1)
    from distributed import Client

    with Client(cluster.scheduler_address, set_as_default=False) as client:
        assert not any(client.processing().values())
