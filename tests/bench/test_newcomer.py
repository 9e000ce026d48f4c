"""A newcomer's path: a first run, own data and an own method, by the printed commands, in a copy of the project.

A smaller suite stands in for the quick one and the environment is the present one, so that minutes suffice; everything
else is copied from the documents.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_IN = """
title = "Stand-in"
datasets = ["digits_38"]
test_inputs = 24

[[methods]]
method = "fcnn"
[methods.settings]
train = { epochs = 3 }

[[methods]]
method = "crown"
[methods.settings]
hidden = [12]
train = { epochs = 3 }

[[methods]]
method = "alpha_beta_crown"
[methods.settings]
hidden = [8]
max_domains = 4
train = { epochs = 3 }
"""
SKIPPED = ("pip install", "source ", "./run_all.sh")


def blocks(document: str, kind: str) -> list[str]:
    """The fenced blocks of one kind in a document."""
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)


def commands(document: str) -> list[str]:
    """The commands of a document's bash blocks, without comments."""
    lines = [
        line.split("  #")[0].strip() for block in blocks(document, "bash") for line in block.splitlines()
    ]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the project's files, with the small suite in the place of the quick one."""
    folder = tmp_path_factory.mktemp("newcomer") / "project"
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    (folder / "bench" / "suites" / "quick.toml").write_text(STAND_IN)
    return folder


def run(clone: Path, command: str, expected: int = 0) -> str:
    """Run a printed command in the copy; return what it says."""
    environment = {**os.environ, "PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1"}
    environment.pop("BENCH_DATA_DIR", None)
    words = command.replace("--data-dir DIR", "--data-dir .").split()
    found = subprocess.run(
        [sys.executable, *words[1:]], cwd=clone, env=environment, capture_output=True, text=True, timeout=280
    )
    assert found.returncode == expected, f"{command}\n{found.stdout}\n{found.stderr}"
    return found.stdout


@pytest.mark.slow
def test_the_printed_commands_work_in_their_order(clone):
    ran = []

    def try_all(document: str) -> None:
        for command in commands(document):
            if (
                command.startswith(SKIPPED) or "nearest" in command
            ):  # test_plugin.py installs and runs that one
                continue
            assert command.startswith("python "), f"{document}: {command}"
            run(clone, command)
            ran.append(command)

    assert commands("README.md")[:2] == ["./run_all.sh", "./run_all.sh test"]
    # What ./run_all.sh does once everything is installed.
    assert "digits_38, l2" in run(clone, "python -m bench.compare --suite quick")
    assert (clone / "out" / "quick" / "report.html").stat().st_size > 1_000_000

    for block in blocks("docs/adding-a-data-set.md", "python"):
        (clone / "make_data.py").write_text(block)
        run(clone, "python make_data.py")
    try_all("docs/adding-a-data-set.md")
    run(clone, "python -m bench.export out/mine --methods crown --data-dir .")

    (clone / "bench" / "methods" / "linear.py").write_text(blocks("README.md", "python")[0])
    assert "linear " in run(clone, "python -m bench.compare --list")
    try_all("docs/adding-a-method.md")
    assert len(ran) >= 3
