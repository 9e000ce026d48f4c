"""The command of a single experiment: its line is read before anything that takes seconds is imported."""

from pathlib import Path

from bench.basics.commands import Main, command
from bench.basics.errors import Parser
from bench.experiments._options import KEPT, add_options


def single(name: str, description: str) -> Main:
    """Return the command of one experiment; its exit codes are bench.compare's."""
    called = f"bench.experiments.{name}"

    def parser() -> Parser:
        # Beside names this long, argparse's own usage would not fit 80 columns.
        usage = f"python -m {called} [option ...]"
        top = Parser(prog=f"python -m {called}", usage=usage, description=description.splitlines()[0])
        add_options(top, Path("out") / "experiments" / name)
        top.set_defaults(only=name)
        return top

    return command(called, parser, "bench.experiments.session:run_single", KEPT)
