"""Every command explains itself in 80 columns and answers bad usage with one line."""

import errno
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import bench

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


def command(name: str):
    package = (ROOT / name.replace(".", "/")).is_dir()
    return importlib.import_module(f"{name}.__main__" if package else name).main


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


@every_command
def test_an_unknown_option_is_one_line_and_exit_code_2(name, capsys):
    assert command(name)(["--no-such-option"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and name in told


FULL = {
    "bench.certify": ("bench.certify.__main__.own_data", ["--model", "m.onnx", "--data", "d.npz"]),
    "bench.export": ("bench.export.__main__.write_questions", ["out"]),
    "bench.falsify": ("bench.falsify.falsify", ["out"]),
    "bench.report": ("bench.report.__main__.write_report", ["out"]),
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
