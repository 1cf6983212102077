"""Stopping at a safe point: the first Ctrl-C asks, the second one insists."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from hiper.display.console import Display


class Stop:
    """A wish to stop. While it is entered, SIGINT and SIGTERM set :attr:`asked`; a second one raises at once.

    Outside the main thread, where Python takes no signals, it does nothing.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._previous: dict[signal.Signals, Any] = {}
        self.asked = False

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        for number in (signal.SIGINT, signal.SIGTERM) if main else ():
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._display.note("stopping at the next safe point; once more to stop at once")

    def check(self) -> None:
        """A safe point: nothing is half done.

        Raises:
            KeyboardInterrupt: a stop was asked for.
        """
        if self.asked:
            raise KeyboardInterrupt
