"""Stopping a run without losing work, and saying how to resume it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from hiper.display.console import Display
from hiper.errors import DivergedError, UnwritableError, UserError
from hiper.imitation.warm_start import describe_progress
from hiper.runs.folder import Run


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


@contextmanager
def advising(run: Run, display: Display) -> Iterator[None]:
    """Say what is kept and how to resume, whatever ends a run early."""
    resume = f"hiper train --resume {run.path}"
    try:
        yield
    except DivergedError as error:
        # Resuming would only do the same again.
        kept = f" and model.path={run.warm_start} warm_start.tasks=0, which saves the warm start"
        anew = "begin a new run with a lower learner.lr" + (kept if run.warm_start.exists() else "")
        reason = f"{error}: {anew}"
        if run.begun:
            run.set_diverged(reason)
        raise UserError(reason) from error
    except UnwritableError as error:
        if not run.begun:
            raise
        raise UserError(f"{error}; {_kept(run)}. Make room, then continue with: {resume}") from error
    except KeyboardInterrupt:
        display.interrupted(_kept(run), resume)
        raise
    except UserError as error:
        if not run.checkpoints:
            raise
        raise UserError(
            f"{error}\n{_kept(run)}; once this is mended ({run.settings_file} may be edited): {resume}"
        ) from error


def _kept(run: Run) -> str:
    """What is there to resume from, in words."""
    return f"saved up to {run.checkpoints[-1].name}" if run.checkpoints else describe_progress(run.warm_start)
