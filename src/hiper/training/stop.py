"""Stopping at a safe point. The first Ctrl-C requests a stop; the second stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from hiper.display.console import Display


class Stop:
    """A request to stop, set by signals.

    Inside the context, SIGINT and SIGTERM set :attr:`asked`. A second signal raises KeyboardInterrupt at once. Outside
    the main thread Python delivers no signals, so the context has no effect there.

    Args:
        display: The display of the note that the run is stopping.
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
        self._display.note("stopping at the next safe point; press Ctrl-C again to stop at once")

    def check(self) -> None:
        """Mark a safe point, where no work is half done.

        Raises:
            KeyboardInterrupt: A stop was requested.
        """
        if self.asked:
            raise KeyboardInterrupt
