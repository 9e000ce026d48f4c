"""What every command does with what goes wrong: one line for people, and exit codes that agree.

0: done. 1: some of the work failed, or the system refused something (a full disk, say); what was finished is kept.
2: bad usage, nothing was started. 130 (Ctrl-C) and 143 (SIGTERM): stopped by a signal.
"""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from bench.basics.errors import UsageError, refused_by_system
from bench.basics.interrupts import Interrupted

DONE, FAILED, BAD_USAGE, CTRL_C = 0, 1, 2, 130
OWN = ("bench", "baselines", "fcnn")
Work = Callable[[argparse.Namespace], int]


class Main(Protocol):
    """A command: takes what stands behind its name (None: on the command line), returns the exit code.

    called: the name it was called by, where that is not ``python -m NAME``.
    """

    def __call__(self, arguments: Sequence[str] | None = None, called: str = "") -> int: ...


def command(
    name: str,
    parser: Callable[[], argparse.ArgumentParser],
    work: Work | str,
    kept: str = "Nothing is half-written",
) -> Main:
    """Return the ``main`` of a command: parse, run, say in one line what went wrong, return the exit code.

    name: as after ``python -m``. work: what takes the options and returns an exit code, or as ``module:function`` where
    it is: imported once the line has been read, since that takes seconds and --help should not. It raises UsageError
    before anything is started. kept: what a command that is cut leaves behind, said to whoever cut it.
    """

    def main(arguments: Sequence[str] | None = None, called: str = "") -> int:
        shown = called or name
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
        try:
            top = parser()
            top.prog = called or top.prog
            options = top.parse_args(arguments)
            return _found(work)(options)
        except UsageError as error:
            print(f"{shown}: {error}", file=sys.stderr)
            return BAD_USAGE
        except ModuleNotFoundError as error:
            print(f"{shown}: {_without(error)}", file=sys.stderr)
            return BAD_USAGE
        except BrokenPipeError:  # whoever read the output has seen enough, as head does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return DONE
        except OSError as error:
            print(
                f"{shown}: stopped, {refused_by_system(error)}. {kept}: mend that, then run the same command again.",
                file=sys.stderr,
            )
            return FAILED
        except (KeyboardInterrupt, Interrupted) as stopped:
            signal = str(stopped) or "Ctrl-C"
            print(
                f"\n{shown}: stopped by {signal}. {kept}: run the same command again to go on.",
                file=sys.stderr,
            )
            return getattr(stopped, "exit_code", CTRL_C)

    return main


def _without(error: ModuleNotFoundError) -> str:
    """Say how to get a package that this Python lacks; raise the error if the suite's own code is not whole."""
    package = str(error.name).partition(".")[0]
    if package in OWN:
        raise error
    return (
        f"{sys.executable} has no package {package!r}, which the suite needs: set up with './run_all.sh setup', then "
        "'source .venv/bin/activate'; or pip install the suite into this Python"
    )


def _found(work: Work | str) -> Work:
    """Return the function itself, imported if it is named only."""
    if not isinstance(work, str):
        return work
    module, _, function = work.partition(":")
    return getattr(importlib.import_module(module), function)
