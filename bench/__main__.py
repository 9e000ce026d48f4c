"""certbench: every command of the suite under one name. ``certbench compare`` is ``python -m bench.compare``."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType

from bench.basics.commands import BAD_USAGE, DONE
from bench.basics.errors import UsageError, unknown

# In the order in which a newcomer needs them.
COMMANDS = {
    "compare": "train, certify and compare methods: tables, figures, a report",
    "tune": "give every method the same time to find its settings",
    "certify": "certify a trained network of your own",
    "falsify": "attack a run's certificates inside their radii",
    "report": "write the page about a run again",
    "plots": "draw a run's figures again",
    "claim": "FCNN's radii over the best competitor's",
    "diff": "which curves moved between two runs",
    "queries": "robust at these radii, or not: branch and bound",
    "export": "networks as ONNX, questions as VNN-LIB, answers back",
    "experiments": "the paper's other tables and figures",
    "publish": "copy a run's tables and figures to results/",
}
SHELLS = ("bash", "zsh", "tcsh")


def main(arguments: Sequence[str] | None = None) -> int:
    """Hand the arguments over to the command they name; return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return DONE
    name, *rest = words
    try:
        if name == "--version":
            print(f"certbench {version('certbench')}")
        elif name == "completion":
            print(completion(*rest))
        elif name in COMMANDS:
            return _module(name).main(rest, f"certbench {name}")
        else:
            raise unknown("command", name, [*COMMANDS, "completion"])
    except UsageError as error:
        print(f"certbench: {error}", file=sys.stderr)
        return BAD_USAGE
    return DONE


def overview() -> str:
    """Every command in one line each."""
    lines = ["usage: certbench COMMAND [OPTION ...]", ""]
    lines += [f"  {name:12} {meaning}" for name, meaning in COMMANDS.items()]
    lines += ['  completion   for your shell: eval "$(certbench completion bash)"', ""]
    lines += ["A command's options: certbench COMMAND --help. A first look: certbench compare"]
    return "\n".join(lines)


def completion(shell: str = "", *more: str) -> str:
    """Return the script with which a shell completes commands and options; raise UsageError for another shell."""
    if shell not in SHELLS or more:
        raise unknown("shell", " ".join([shell, *more]), SHELLS)
    import shtab  # a Python that lacks what the suite needs can still say so

    top = argparse.ArgumentParser(prog="certbench")
    commands = top.add_subparsers()
    for name, meaning in COMMANDS.items():
        commands.add_parser(name, parents=[_module(name).parser()], add_help=False, help=meaning)
    return shtab.complete(top, shell)


def _module(name: str) -> ModuleType:
    """Import a command's code only when it is wanted: that takes seconds."""
    module = importlib.import_module(f"bench.{name}")
    return importlib.import_module(f"bench.{name}.__main__") if hasattr(module, "__path__") else module


if __name__ == "__main__":
    sys.exit(main())
