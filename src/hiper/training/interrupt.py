"""Stopping a run without losing work: the first Ctrl-C asks, the second insists."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from hiper.console import Display


class Stop:
    """While it is entered, SIGINT and SIGTERM set :attr:`asked`; a second one raises at once."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._previous: dict[signal.Signals, Any] = {}
        self.asked = False
        self.weights_whole = True
        """False while an update is under way: the weights are then those of no iteration."""

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
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

    @contextmanager
    def weights_changing(self) -> Iterator[None]:
        """Around an update."""
        self.weights_whole = False
        yield
        self.weights_whole = True
