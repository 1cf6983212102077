"""Requests to stop, made by signals: SIGINT (Ctrl-C), SIGTERM (a shutdown) and SIGHUP (the terminal was closed)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self

from hiper.errors import UserError

Check = Callable[[], None]
"""A function that is called where no work is half done. It raises if a stop was requested."""
SECONDS_LATER = 0.05
"""Seconds after which a signal is sent again that came where an exception would only be printed."""


def go_on() -> None:
    """Do nothing: the safe point of whoever is not asked to stop."""


class StoppedError(KeyboardInterrupt):
    """A signal asked to stop.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code(error: KeyboardInterrupt) -> int:
    """The exit code after a stop, as shells count: 128 and the number of the signal, so 130 after Ctrl-C."""
    return 128 + (error.number if isinstance(error, StoppedError) else signal.SIGINT)


class Stop:
    """A request to stop, set by signals.

    Inside the context, SIGINT, SIGTERM and SIGHUP set :attr:`asked`, and the next :meth:`check` raises. SIGINT after
    any of them raises KeyboardInterrupt at once. A SIGHUP that is ignored, as under ``nohup``, stays ignored. Outside
    the main thread Python delivers no signals, so the context has no effect there.

    Args:
        note: shows a line, here that the work is stopping.
        any_process: returns whether a wish is that of any process, where several stop together.
    """

    def __init__(
        self, note: Callable[[str], None] = lambda line: None, any_process: Callable[[bool], bool] = bool
    ) -> None:
        self._note, self._any_process = note, any_process
        self._previous: dict[signal.Signals, Any] = {}
        self._number: int | None = None
        self._at_once = False
        self._raised: int | None = None
        """The signal that was raised where it came, in whatever code that was."""

    @property
    def asked(self) -> bool:
        """Whether a stop was requested."""
        return self._number is not None

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if main else ():
            if number is signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._on_signal)
        around = getattr(self._previous.get(signal.SIGTERM), "__self__", None)
        if isinstance(around, Stop):  # code that swallows exceptions may have kept its stop from coming
            self._number = self._number or around._number
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._raised is not None and isinstance(error, Exception) and not isinstance(error, UserError):
            # A library that was interrupted, while it was imported for example, raises an error of its own.
            raise StoppedError(self._raised) from error
        if self._number is not None and type(error) is KeyboardInterrupt:
            raise StoppedError(self._number) from error  # for the exit code: the second signal, or another process's

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again = self.asked
        self._number = self._number or number
        if self._at_once and _in_destructor(frame):
            threading.Timer(SECONDS_LATER, os.kill, (os.getpid(), number)).start()
            return
        if self._at_once:
            self._raised = self._number
            raise StoppedError(self._number)
        if again:
            # A closed terminal and a shutdown send SIGHUP and SIGTERM more than once. Only a person presses twice.
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        with suppress(OSError):  # the terminal may be gone
            self._note("stopping at the next safe point; press Ctrl-C again to stop at once")

    def check(self) -> None:
        """Mark a safe point in this process's share of some work, where no work is half done.

        Raises:
            StoppedError: A stop was requested.
        """
        if self._number is not None:
            raise StoppedError(self._number)

    def check_together(self) -> None:
        """Mark a safe point that all processes reach. If one of them was asked to stop, all do.

        Raises:
            StoppedError: A stop was requested.
        """
        if self._any_process(self.asked):
            raise StoppedError(self._number or signal.SIGINT)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Every place inside the block is a safe point: a signal raises at once.

        Raises:
            StoppedError: A stop was requested, before the block or inside it.
        """
        self.check()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False


def _in_destructor(frame: FrameType | None) -> bool:
    """Whether Python is inside ``__del__``, which no exception leaves."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False
