"""What an error or a stop leaves of a run, and how to resume it, in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hiper.display.console import Display
from hiper.errors import DivergedError, UnwritableError, UserError
from hiper.runs.folder import Run
from hiper.runs.policies import describe_progress


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
    except UserError as error:
        if not run.checkpoints:
            raise
        raise UserError(
            f"{error}\n{_kept(run)}; fix this ({run.settings_file} may be edited), then resume with: {resume}"
        ) from error


def _kept(run: Run) -> str:
    """Describe in words what a resumed run starts from."""
    return f"saved up to {run.checkpoints[-1].name}" if run.checkpoints else describe_progress(run.warm_start)
