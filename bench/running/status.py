"""What a cell is at, in a few words, for the process that waits for it."""

import contextlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StatusFile:
    """A line that a cell's process keeps about what it is at; it can be lost without harm."""

    path: Path

    def __call__(self, line: str) -> None:
        """Replace the line."""
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(line, encoding="utf-8")

    def read(self) -> str:
        """Return the line, or "" where there is none."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return self.path.read_text(encoding="utf-8")
        return ""
