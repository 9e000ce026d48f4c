"""A newcomer's path: every command that README.md and docs/ print, in a copy of the project, by copy and paste.

A smaller suite stands in for the quick one and the environment is the present one, so that minutes suffice. A command
that cannot be run here is named with the reason; a new one in the documents is run, or must be added with its reason.
Commands of other programs stand in blocks of another kind (sh).
"""

import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

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
NOT_RUN = {
    "./run_all.sh": "it installs, then runs the quick suite, which is run here by hand",
    "pip install": "it needs a network; test_plugin.py installs the outside package",
    "dask ": "it waits for other machines",
    "--backend dask": "it needs other machines; test_cluster.py runs a cluster on this one",
    "bench.speed": "it measures for minutes",
    "separability_data": "it needs the CIFAR-10 images",
    "verify_with_marabou.py": "test_examples.py runs it, where Marabou can be installed",
}
# What a reader puts for the names that the documents leave open.
NAMES = {r"--data-dir DIR": "--data-dir .", r"\bOUT\b": "out/quick", r"\bNAME\b": "digits_38"}


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


def briefly(command: str) -> str:
    """A search for seconds, of methods that are judged in seconds: what it finds is another test's matter."""
    shorter = re.sub(r"--(tune|minutes) \d+", r"--\1 0.05", command)
    return shorter if shorter == command or "--methods" in command else f"{shorter} --methods fcnn crown"


def run(clone: Path, command: str) -> tuple[str, float]:
    """Run a printed command in the copy; return what it says and its seconds."""
    environment = {**os.environ, "PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1"}
    environment.pop("BENCH_DATA_DIR", None)
    command = briefly(command)
    for name, meant in NAMES.items():
        command = re.sub(name, meant, command)
    words = command.split()
    start = time.perf_counter()
    found = subprocess.run(
        [sys.executable, *words[1:]], cwd=clone, env=environment, capture_output=True, text=True, timeout=280
    )
    assert found.returncode == 0, f"{command}\n{found.stdout}\n{found.stderr}"
    return found.stdout, time.perf_counter() - start


def follow(clone: Path, document: str) -> dict[str, float | str]:
    """Run the commands of a document; return the seconds of each, or why it was not run."""
    found: dict[str, float | str] = {}
    for command in commands(document):
        reason = next((why for word, why in NOT_RUN.items() if word in command), None)
        assert reason or command.startswith("python "), f"{document}: {command}"
        if "--import" in command:
            write_answers(clone)
        found[f"{document}: {command}"] = reason or run(clone, command)[1]
    return found


def write_answers(clone: Path) -> None:
    """Write another verifier's answers.csv to the questions that were exported: it never came to an end."""
    questions = pd.read_csv(clone / "out" / "quick" / "vnnlib" / "instances.csv", header=None)[1]
    pd.DataFrame({"vnnlib": questions, "result": "timeout"}).to_csv(clone / "answers.csv", index=False)


def write_mnist(clone: Path) -> None:
    """Write small digits, enlarged, as the mnist_38.npz that the documents' data folder has."""
    digits = load_digits()
    chosen = np.isin(digits.target, [3, 8])
    x = np.kron(digits.images[chosen] * 15, np.ones((1, 3, 3))).astype(np.uint8)
    x, y = np.pad(x, ((0, 0), (2, 2), (2, 2))), digits.target[chosen]
    np.savez(clone / "mnist_38.npz", x_train=x[:300], y_train=y[:300], x_test=x[300:], y_test=y[300:])


def write_network(clone: Path) -> None:
    """Train a classifier of the data set ``mine`` with scikit-learn and write it as net.onnx."""
    with np.load(clone / "mine.npz") as data, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = data["x_train"].astype(np.float32)
        classifier = MLPClassifier((4,), max_iter=200, random_state=0).fit(x, data["y_train"])
    onnx.save(to_onnx(classifier, x[:1]), clone / "net.onnx")


@pytest.mark.minutes
@pytest.mark.slow
def test_the_printed_commands_work_in_their_order(clone, capsys):
    assert commands("README.md")[:2] == ["./run_all.sh", "./run_all.sh test"]
    # What ./run_all.sh does once everything is installed.
    said, seconds = run(clone, "python -m bench.compare --suite quick")
    assert "digits_38, l2" in said
    out = clone / "out" / "quick"
    assert (out / "report.html").stat().st_size > 1_000_000
    for name in ("one", "two"):
        shutil.copytree(out, clone / "out" / name)
    for block in blocks("docs/adding-a-data-set.md", "python"):
        (clone / "make_data.py").write_text(block)
        run(clone, "python make_data.py")
    write_network(clone)
    write_mnist(clone)
    (clone / "bench" / "methods" / "logistic.py").write_text(blocks("README.md", "python")[0])

    found = {"the quick suite's stand-in": seconds}
    documents = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
    for document in documents:
        found |= follow(clone, document)
    with capsys.disabled():
        print("\nThe newcomer's path, in seconds (a small suite in the place of the quick one):")
        for command, time_or_reason in found.items():
            shown = time_or_reason if isinstance(time_or_reason, str) else f"{time_or_reason:.1f}"
            print(f"  {command}: {shown}")
        print(f"  together: {sum(each for each in found.values() if not isinstance(each, str)):.0f}")

    assert "logistic " in run(clone, "python -m bench.compare --list")[0]
    assert (clone / "out" / "logistic" / "falsify.csv").exists()
    assert pd.read_csv(out / "falsify.csv")["broken"].sum() == 0
    for made in ("vnnlib/instances.csv", "claim.md", "queries.csv", "figures"):
        assert (out / made).exists()
    published = pd.read_parquet(clone / "results" / "quick" / "radii.parquet")
    assert set(published["method"]) == {"fcnn", "crown", "alpha_beta_crown"}
    assert len(pd.read_csv(clone / "out" / "certify" / "net" / "falsify.csv")) > 0
    for block in blocks("docs/reading-results.md", "python"):
        (clone / "read.py").write_text(block)
        assert "closed_form" in run(clone, "python read.py")[0]
