"""Errors a user can mend: one line naming the value, what is allowed and how to fix it."""

import argparse
import difflib
from collections.abc import Iterable
from typing import NoReturn


class UsageError(ValueError):
    """Bad input from the user; commands print its one line and exit with code 2."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest of the choices, or an empty string."""
    close = difflib.get_close_matches(str(name), list(choices), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def refused_by_system(error: OSError) -> str:
    """Return in one line what the system refused, and for which file."""
    return f"{error.strerror}: {error.filename}" if error.filename else str(error)


def unknown(kind: str, name: str, choices: Iterable[str], hint: str = "") -> UsageError:
    """Build the error for a name that is not among the choices."""
    choices = list(choices)
    listed = ", ".join(choices) or "none"
    text = f"unknown {kind} {name!r}{nearest(name, choices)}: choose from {listed}"
    return UsageError(f"{text}; {hint}" if hint else text)


class Parser(argparse.ArgumentParser):
    """Command-line parser whose errors are UsageErrors: one line, no usage text in front of it."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see --help)")
