"""Devices are shared out, one cell each; which there are is pretended, so that no GPU is needed."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from misbehaving import write_plugin

from bench import methods as registry
from bench.basics.errors import UsageError
from bench.data.request import DataRequest
from bench.kept.store import Store
from bench.running.cells import Failure
from bench.running.chosen import chosen_devices, chosen_resources, chosen_suite
from bench.running.options import parser
from bench.running.processes import CellLimits, run_in_processes
from bench.running.runner import Resources, plan_jobs
from bench.suites.suite import load_suite


def pretend(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)


def resources(*words: str) -> Resources:
    options = parser().parse_args(["--datasets", "circles", *words])
    return chosen_resources(options, chosen_suite(options))


@pytest.mark.parametrize(
    ("gpus", "name", "devices"),
    [
        (0, "auto", ("cpu",)),
        (0, "cpu", ("cpu",)),
        (1, "auto", ("cuda:0",)),
        (1, "cuda", ("cuda:0",)),
        (1, "cpu", ("cpu",)),
        (2, "auto", ("cuda:0", "cuda:1")),
        (2, "cuda", ("cuda:0", "cuda:1")),
        (2, "cuda:1", ("cuda:1",)),
        (2, "cpu", ("cpu",)),
    ],
)
def test_a_name_stands_for_the_devices_that_are_there(gpus, name, devices, monkeypatch):
    pretend(monkeypatch, gpus)
    assert chosen_devices(name) == devices


@pytest.mark.parametrize(
    ("gpus", "name", "allowed"),
    [
        (0, "cuda", "auto, cpu"),
        (0, "cuda:0", "auto, cpu"),
        (1, "cuda:1", "auto, cpu, cuda, cuda:0"),
        (2, "cuda:2", "auto, cpu, cuda, cuda:0, cuda:1"),
        (2, "cuda:-1", "auto, cpu, cuda, cuda:0, cuda:1"),
        (2, "gpu", "auto, cpu, cuda, cuda:0, cuda:1"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_those_that_are(gpus, name, allowed, monkeypatch):
    pretend(monkeypatch, gpus)
    with pytest.raises(UsageError) as caught:
        chosen_devices(name)
    assert str(caught.value).endswith(f"choose from {allowed}") and repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("gpus", "words", "slots"),
    [
        (2, [], ("cuda:0", "cuda:1")),
        (2, ["--jobs", "1"], ("cuda:0",)),
        (2, ["--jobs", "5"], ("cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0")),
        (2, ["--device", "cuda:1"], ("cuda:1",)),
        (2, ["--device", "cuda:1", "--jobs", "2"], ("cuda:1", "cuda:1")),
        (2, ["--device", "cpu", "--jobs", "3"], ("cpu", "cpu", "cpu")),
        (1, [], ("cuda:0",)),
        (0, ["--jobs", "2"], ("cpu", "cpu")),
    ],
)
def test_each_device_takes_one_cell_unless_more_are_asked_for(gpus, words, slots, monkeypatch):
    pretend(monkeypatch, gpus)
    chosen = resources(*words)
    assert chosen.devices == slots and chosen.kind == slots[0].partition(":")[0]


def test_without_a_gpu_there_is_a_slot_for_each_core_that_a_cell_uses(monkeypatch):
    pretend(monkeypatch, 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert resources().devices == ("cpu",) * 8
    assert resources("--threads", "3").devices == ("cpu",) * 2
    assert resources("--threads", "16").devices == ("cpu",)


def most_at_a_time(lines: Sequence[str]) -> dict[str, int]:
    """How many cells used each device at once, at most; and all devices together, under ``all``."""
    using: dict[str, int] = {}
    most: dict[str, int] = {}
    for line in lines:
        device, what = line.split()
        for name in (device, "all"):
            using[name] = using.get(name, 0) + (1 if what == "begins" else -1)
            most[name] = max(most.get(name, 0), using[name])
    return most


@pytest.mark.slow
def test_two_devices_take_one_cell_each_also_after_a_crash(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(write_plugin(tmp_path / "plugin"))
    registry.registered_methods.cache_clear()
    tally = tmp_path / "tally"
    file = tmp_path / "suite.toml"
    file.write_text(
        'datasets = ["circles"]\nnorms = ["l2"]\nseeds = [0, 1, 2]\n[[methods]]\nmethod = "crasher"\n'
        f'[[methods]]\nmethod = "holder"\nsettings.tally = "{tally}"\n'
    )
    suite, requests = load_suite(str(file)), {"circles": DataRequest("circles")}
    # PyTorch takes numbers after "cpu", too: different devices that every machine has.
    slots = Resources(("cpu:0", "cpu:1"))
    jobs = plan_jobs(suite, Store(tmp_path / "out"), requests, slots)
    lost = [isinstance(result, Failure) for _, result in run_in_processes(jobs, slots.devices, CellLimits())]
    registry.registered_methods.cache_clear()
    lines = Path(tally).read_text().splitlines()
    assert sum(lost) == 3 and len(lost) == 6 and len(lines) == 6
    assert most_at_a_time(lines) == {"cpu:0": 1, "cpu:1": 1, "all": 2}


def test_every_job_has_the_threads_that_were_asked_for(tmp_path):
    file = tmp_path / "suite.toml"
    file.write_text(
        'datasets = ["circles"]\nnorms = ["l2"]\nseeds = [0, 1]\n[[methods]]\nmethod = "linear"\n'
    )
    suite, requests = load_suite(str(file)), {"circles": DataRequest("circles")}
    jobs = plan_jobs(suite, Store(tmp_path / "out"), requests, Resources(threads=3))
    assert [job.threads for job in jobs] == [3, 3]
