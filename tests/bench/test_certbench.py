"""One command for all: what it hands over, its overview on one screen, completion for shells."""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench.__main__ import COMMANDS, SHELLS, main
from tests.bench.test_command_lines import COMMANDS as MODULES

ROOT = Path(__file__).parents[2]


def test_the_overview_is_one_screen_and_names_every_public_command(capsys):
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert len(told.splitlines()) <= 24 and max(map(len, told.splitlines())) <= 80
    # Two modules are for those who work on the suite, not for those who use it.
    public = {name.removeprefix("bench.") for name in MODULES} - {"speed", "published"}
    assert public == set(COMMANDS)
    assert all(name in told for name in COMMANDS)


def test_the_overview_comes_without_torch():
    code = "import sys, bench.__main__ as m; m.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT).returncode == 0


def test_a_command_gets_its_options_and_is_called_by_the_name_it_was_given(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["plots", "--help"])
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("usage: certbench plots ")
    assert main(["plots", "no-such-folder"]) == 2
    assert capsys.readouterr().err.startswith("certbench plots: ")


@pytest.mark.parametrize(
    "words", [["cmpare"], ["completion"], ["completion", "fish"], ["completion", "bash", "x"]]
)
def test_bad_usage_is_one_line_and_exit_code_2(words, capsys):
    assert main(words) == 2
    told = capsys.readouterr().err
    assert (
        told.startswith("certbench: ")
        and told.count("\n") == 1
        and (words[-1] in told or words == ["completion"])
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_commands_and_options(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "compare" in script and "norms" in script


def test_the_bash_script_completes(capsys):
    main(["completion", "bash"])
    script = capsys.readouterr().out
    typed = 'COMP_WORDS=(certbench comp); COMP_CWORD=1; _shtab_certbench; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{typed}"], capture_output=True, text=True, check=True)
    assert "compare" in done.stdout.split()


def test_the_entry_point_is_declared_and_the_version_is_told(capsys):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"certbench": "bench.__main__:main"}
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"certbench {importlib.metadata.version('certbench')}\n"
