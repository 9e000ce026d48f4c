"""Ctrl-C and SIGTERM end a run where that is safe: never in the middle of storing a cell."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The run was told to stop by a signal; like KeyboardInterrupt it is no Exception."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM, as shells report it."""
        return 128 + self.number


@dataclass
class Interrupts:
    """Context manager that raises Interrupted on SIGINT and SIGTERM, once; inside ``held`` only at its end.

    Signals reach the main thread only; in any other thread, entering does nothing.
    """

    _previous: dict[int, Any] = field(default_factory=dict, init=False, repr=False)
    _holding: bool = field(default=False, init=False)
    _arrived: int | None = field(default=None, init=False)

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the block end before a signal that arrives meanwhile is raised."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._arrived is not None:
            raise Interrupted(self._arrived)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        first = self._arrived is None
        self._arrived = self._arrived or number
        # A second signal finds the run already ending; raising again would cut that short.
        if first and not self._holding:
            raise Interrupted(number)
