"""Saying what a run that ended early kept, and how to resume it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hiper.display.console import Display
from hiper.errors import DivergedError, UnwritableError, UserError
from hiper.imitation.warm_start import describe_progress
from hiper.runs.folder import Run


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
