"""What run.json says about a run: its configuration, versions, hardware, code and outcomes.

Results are published, so nothing in it names the user's machine or folders: no host name, no absolute path.
"""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bench.basics.files import plain
from bench.contract import Outcome

PACKAGES = (
    "certbench",
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "matplotlib",
    "seaborn",
    "threadpoolctl",
    "safetensors",
    "auto_LiRPA",
    "torchattacks",
)


@dataclass(frozen=True)
class RunClock:
    """Knows when the run started."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def times(self) -> dict[str, Any]:
        """Return start and end as ISO 8601 in UTC, and the seconds between them."""
        ended = datetime.now(UTC)
        return {
            "started": self.started.isoformat(timespec="seconds"),
            "ended": ended.isoformat(timespec="seconds"),
            "seconds": round((ended - self.started).total_seconds(), 1),
        }


def run_record(
    configuration: Mapping[str, Any],
    methods: Mapping[str, Mapping[str, Any]],
    radii: pd.DataFrame,
    clock: RunClock,
) -> dict[str, Any]:
    """Return the content of run.json.

    configuration: the suite and the options; its ``title`` and ``reduced`` head the figures.
    methods: by method id, in the order of the legends, what to know of each (``title``, ``reference``, ...).
    """
    counts = radii["outcome"].value_counts()
    record = {
        "configuration": plain(configuration),
        "methods": plain(methods),
        "outcomes": {str(outcome): int(counts.get(outcome, 0)) for outcome in Outcome},
        "times": clock.times(),
        "versions": versions(),
        "hardware": hardware(),
        "code": code_commit(),
    }
    return _without_places(record)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that numbers may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Return processor, usable cores, memory in GiB, GPUs and operating system."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "cores": usable,
        "memory_gib": round(memory, 1),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def code_commit() -> dict[str, Any]:
    """Return the project's git commit, and whether files under version control differ from it; None outside git."""
    here = Path(__file__)
    try:
        # An installed copy may lie inside somebody else's repository: only a tracked file proves it is ours.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        changed = bool(_git(here.parent, "status", "--porcelain", "--untracked-files=no"))
        return {"commit": _git(here.parent, "rev-parse", "HEAD"), "changed": changed}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "changed": None}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _without_places(value: Any) -> Any:
    """Shorten absolute paths, wherever they are in the record, to their last part."""
    if isinstance(value, dict):
        return {name: _without_places(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_places(item) for item in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value
