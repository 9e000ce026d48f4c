"""Whole numbers on the command line: anything else, or one outside the allowed range, is refused in one line."""

import argparse
import re
from collections.abc import Callable

# Fits every counter, table column and random generator that numbers from the command line end up in.
LARGEST = 2**31 - 1
# More processes or threads than this are a slip of the keyboard.
MOST_AT_A_TIME = 1024


def whole(least: int, most: int = LARGEST) -> Callable[[str], int]:
    """Return the ``type`` of a command-line option for whole numbers from ``least`` to ``most``."""

    def number(text: str) -> int:
        # Digits are counted first: int() of thousands of them raises an error of its own.
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text) or not least <= int(text) <= most:
            shown = text if len(text) <= 40 else f"{text[:37]}..."
            raise argparse.ArgumentTypeError(f"{shown!r}: give a whole number from {least:,} to {most:,}")
        return int(text)

    return number
