"""Fixtures shared by all tests."""

import os
from collections import Counter
from pathlib import Path

# Before anything reads it, also for the processes that tests start: each worker has one core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

# Timings against limits are no tests: they fail on a busy machine.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that take minutes first, then those with the most tests, so that no worker ends on a long one."""
    files = Counter(item.path for item in items)
    early = {item.path for item in items if item.get_closest_marker("minutes")}
    items.sort(key=lambda item: (item.path not in early, -files[item.path], item.path))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors are slower on several threads, and one thread makes results repeat bit for bit."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Folder with reference numbers that were computed independently of the suite."""
    return Path(__file__).parent / "vectors"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with real data sets; the test is skipped where BENCH_DATA_DIR names none."""
    folder = os.environ.get("BENCH_DATA_DIR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set BENCH_DATA_DIR to a folder with mnist_38.npz to run this test")
    return Path(folder)
