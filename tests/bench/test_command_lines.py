"""Every command explains itself in 80 columns and answers bad usage with one line."""

import errno
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bench
from bench.basics.commands import command as made_command
from bench.basics.errors import Parser
from bench.basics.whole_numbers import whole
from bench.experiments._options import EXPERIMENTS

ROOT = Path(__file__).parents[2]


def modules() -> list[str]:
    """The modules that ``python -m`` can run: files with a main guard, and packages with a __main__."""
    found = []
    for module in pkgutil.iter_modules(bench.__path__, "bench."):
        if module.name == "bench.__main__":  # certbench, which calls the others
            continue
        path = ROOT / module.name.replace(".", "/")
        file = path / "__main__.py" if module.ispkg else path.with_suffix(".py")
        if file.exists() and 'if __name__ == "__main__"' in file.read_text(encoding="utf-8"):
            found.append(module.name)
    return found


COMMANDS = modules()
every_command = pytest.mark.parametrize("name", COMMANDS)


# What takes long to import.
HEAVY = {"joblib", "matplotlib", "numpy", "onnx", "pandas", "pyarrow", "scipy", "seaborn", "sklearn", "torch"}


def module_of(name: str) -> str:
    package = (ROOT / name.replace(".", "/")).is_dir()
    return f"{name}.__main__" if package else name


def command(name: str):
    return importlib.import_module(module_of(name)).main


def test_the_commands_are_found():
    assert {"bench.compare", "bench.certify", "bench.export", "bench.report", "bench.falsify"} <= set(
        COMMANDS
    )


@every_command
def test_help_fits_80_columns_and_names_the_command(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        command(name)(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert f"usage: python -m {name}" in told
    assert max(map(len, told.splitlines())) <= 80
    # Every option says what it is for.
    options = re.findall(r"^  (-[^\n]*(?:\n {10,}\S[^\n]*)*)", told, re.MULTILINE)
    for option in options:
        assert re.search(r"\s{2,}\S", option), f"{name}: {option} has no help"


def test_help_imports_nothing_heavy():
    code = f"""
import contextlib, importlib, sys
import bench.__main__
for name in {[module_of(name) for name in COMMANDS]}:
    with contextlib.suppress(SystemExit):
        importlib.import_module(name).main(["--help"])
bench.__main__.main(["completion", "bash"])
print("HEAVY", *sorted({HEAVY} & set(sys.modules)))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert told.stdout.count("usage: python -m") == len(COMMANDS)
    assert told.stdout.splitlines()[-1].split() == ["HEAVY"]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_work_that_a_door_names_is_there(name):
    door = Path(importlib.import_module(module_of(name)).__file__).read_text(encoding="utf-8")
    [(module, function)] = re.findall(r'"(bench\.[\w.]+):(\w+)"', door)
    assert callable(getattr(importlib.import_module(module), function))


@every_command
def test_an_unknown_option_is_one_line_and_exit_code_2(name, capsys):
    assert command(name)(["--no-such-option"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and name in told


# Options of whole numbers at which 0 means something; of all others 0 is refused, too.
FROM_ZERO = {"--bracket", "--library", "--limit", "--points", "--seed", "--seeds", "--split-seed"}


@every_command
def test_numbers_that_make_no_sense_are_refused_in_one_line(name, capsys):
    actions = importlib.import_module(module_of(name)).parser()._actions
    assert not [action.option_strings for action in actions if action.type is int]  # any number at all
    for action in actions:
        if getattr(action.type, "__module__", "") != whole.__module__:
            continue
        option = action.option_strings[-1]
        for value in ("-4", "3.5", "many", "", "1_0", "9" * 5000, str(2**31)):
            assert command(name)([option, value]) == 2
            told = capsys.readouterr().err
            assert told.count("\n") == 1 and f"argument {option}: " in told and "whole number from" in told
            assert len(told) < 200
        assert command(name)([option, "0", "--no-such-option"]) == 2
        zero = option in FROM_ZERO or (name, option) == ("bench.certify", "--inputs")
        assert ("whole number from" in capsys.readouterr().err) != zero, option


FULL = {
    "bench.certify": ("bench.certify.session.own_data", ["--model", "m.onnx", "--data", "d.npz"]),
    "bench.export": ("bench.export.session.write_questions", ["out"]),
    "bench.falsify": ("bench.commands.falsify.falsify", ["out"]),
    "bench.report": ("bench.report.page.write_report", ["out"]),
}


@pytest.mark.parametrize("name", FULL)
def test_a_full_disk_is_one_line_and_exit_code_1(name, capsys, monkeypatch):
    where, arguments = FULL[name]

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "out/radii.parquet")

    main = command(name)
    monkeypatch.setattr(where, full)
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{name}: ") and "No space left on device" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["bench.compare", "--list"],
        ["bench.certify", "--model", "net.onnx", "--data", "mine.npz"],
        ["bench.plots", "out/quick"],
        ["bench", "report", "out/quick"],
    ],
)
def test_a_python_without_the_packages_says_how_to_set_up(words, tmp_path):
    python = [sys.executable, "-S", "-m"]  # -S: nothing that is installed is found
    done = subprocess.run(
        [*python, *words], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, cwd=tmp_path
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "./run_all.sh setup" in line and sys.executable in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_single_experiment_answers_help_and_says_what_is_missing_without_the_packages(name, tmp_path):
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        python = [sys.executable, "-S", "-m", f"bench.experiments.{name}"]
        return subprocess.run(
            [*python, *words], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, cwd=tmp_path
        )

    told = run("--help")
    assert told.returncode == 0 and f"usage: python -m bench.experiments.{name}" in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 80
    refused = run("--seeds", "-4")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "'-4'" in refused.stderr
    done = run("--reduced")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith(f"bench.experiments.{name}: ")
    assert "./run_all.sh setup" in line and not list(tmp_path.iterdir())


def test_a_module_of_the_suite_that_is_missing_is_no_question_of_packages():
    def work(options):
        raise ModuleNotFoundError("No module named 'bench.lost'", name="bench.lost")

    with pytest.raises(ModuleNotFoundError, match="lost"):
        made_command("bench.some", Parser, work)([])
