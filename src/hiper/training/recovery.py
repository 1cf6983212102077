"""Stopping a run without losing work, and saying how to resume it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self

from hiper.display.console import Display
from hiper.errors import (
    OUT_OF_MEMORY,
    DivergedError,
    UnwritableError,
    UserError,
    first_line,
    is_out_of_memory,
)
from hiper.processes import ALONE, Processes
from hiper.runs.folder import Run
from hiper.runs.policies import describe_progress


class Stop:
    """A request to stop, set by signals.

    Inside the context, SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal was closed) set :attr:`asked`. SIGINT after
    any of them raises KeyboardInterrupt at once. A SIGHUP that is ignored, as under ``nohup``, stays ignored. Outside
    the main thread Python delivers no signals, so the context has no effect there.

    Args:
        display: The display of the note that the run is stopping.
        processes: The processes that stop together.
    """

    def __init__(self, display: Display, processes: Processes = ALONE) -> None:
        self._display, self._processes = display, processes
        self._previous: dict[signal.Signals, Any] = {}
        self.asked = False

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if main else ():
            if number is signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            # A closed terminal and a shutdown send SIGHUP and SIGTERM more than once. Only a person presses twice.
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.asked = True
        with suppress(OSError):  # the terminal may be gone
            self._display.note("stopping at the next safe point; press Ctrl-C again to stop at once")

    def check(self) -> None:
        """Mark a safe point in this process's share of some work, where no work is half done.

        Raises:
            KeyboardInterrupt: A stop was requested.
        """
        if self.asked:
            raise KeyboardInterrupt

    def check_together(self) -> None:
        """Mark a safe point that all processes reach. If one of them was asked to stop, all do.

        Raises:
            KeyboardInterrupt: A stop was requested.
        """
        self.asked = self._processes.any(self.asked)
        self.check()


@contextmanager
def advising(run: Run, display: Display) -> Iterator[None]:
    """Add to every error that ends a run what is saved and how to resume.

    Raises:
        UserError: The run diverged, the disk is full, or a setting must change.
    """
    resume = f"hiper train --resume {run.path}"
    try:
        yield
    except DivergedError as error:
        # Resuming would only diverge again.
        kept = f" and model.path={run.warm_start} warm_start.tasks=0, which saves the warm start"
        anew = "begin a new run with a lower learner.lr" + (kept if run.warm_start.exists() else "")
        reason = f"{error}: {anew}"
        if run.begun:
            run.set_diverged(reason)
        raise UserError(reason) from error
    except UnwritableError as error:
        if not run.begun:
            raise
        raise UserError(f"{error}; {_kept(run)}. Free some space, then resume with: {resume}") from error
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be gone
            display.interrupted(_kept(run), resume)
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        where = f"in {run.settings_file}, then resume with: {resume}" if run.checkpoints else "and begin again"
        raise UserError(
            f"out of memory ({first_line(error)}): {OUT_OF_MEMORY}\n{_kept(run)}; change it {where}"
        ) from error
    except UserError as error:
        if not run.checkpoints:
            raise
        raise UserError(
            f"{error}\n{_kept(run)}; fix this ({run.settings_file} may be edited), then resume with: {resume}"
        ) from error


def _kept(run: Run) -> str:
    """Describe in words what a resumed run starts from."""
    return f"saved up to {run.checkpoints[-1].name}" if run.checkpoints else describe_progress(run.warm_start)
