"""Checkpoints, which hold everything that resuming a run needs, and advice on how to resume after an error or a stop.

Checkpoints are written completely or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hiper.display.console import Display
from hiper.episode import Episode, read_episodes, write_episodes
from hiper.errors import (
    OUT_OF_MEMORY,
    DivergedError,
    LostProcessError,
    UnwritableError,
    UserError,
    first_line,
    is_out_of_memory,
)
from hiper.files import check_sealed
from hiper.runs.folder import Run, checkpoint_policy
from hiper.runs.policies import describe_progress
from hiper.training.build import Parts

AHEAD = "ahead.jsonl.gz"
"""The file of the episodes that were sampled for the next iteration before the checkpoint's update."""


def save_checkpoint(run: Run, parts: Parts, iteration: int, ahead: Sequence[Episode] | None = None) -> Path:
    """Save a checkpoint after ``iteration`` iterations, then delete all but the newest checkpoints.

    Every process calls it. The first one writes, or all of them where the weights are sharded.

    Args:
        run: The run.
        parts: Its parts.
        iteration: The number of iterations done.
        ahead: The episodes of the next iteration, if they were sampled under older weights.

    Returns:
        The folder of the checkpoint.

    Raises:
        UnwritableError: The checkpoint cannot be written. Older checkpoints are unchanged.
    """

    def write(folder: Path) -> None:
        parts.save_policy(checkpoint_policy(folder))
        parts.learner.save(folder, iteration)
        if ahead is not None and parts.processes.first:
            write_episodes(folder / AHEAD, ahead)

    parts.store(run.checkpoint(iteration), write)
    if parts.processes.first:
        run.prune(run.config.training.keep_checkpoints)
    return run.checkpoint(iteration)


def check_checkpoint(run: Run, path: Path) -> None:
    """Check that the files of a checkpoint are as they were written. Checkpoints of older versions say nothing of it.

    Raises:
        UserError: A file is missing or was changed. The message names it, and an older checkpoint, if any.
    """
    try:
        check_sealed(path)
    except UserError as error:
        raise _offering_older(run, path, UserError(f"checkpoint {error}")) from error


def load_checkpoint(run: Run, path: Path, parts: Parts) -> int:
    """Restore critic and optimizer from a checkpoint. ``parts`` were built from the checkpoint's policy.

    Returns:
        The number of iterations done.

    Raises:
        UserError: The checkpoint is damaged or of another architecture. The message names an older one, if any.
    """
    try:
        return parts.learner.load(path)
    except UserError as error:
        raise _offering_older(run, path, error) from error


def _offering_older(run: Run, path: Path, error: UserError) -> UserError:
    older = [other for other in run.checkpoints if other.name < path.name]
    return UserError(f"{error}; delete it to resume from {older[-1].name}") if older else error


def stored_ahead(run: Run, iteration: int) -> list[Episode] | None:
    """Return the episodes that a checkpoint holds for the next iteration. None: it holds none, or there is none.

    Raises:
        UserError: The file is damaged.
    """
    file = run.checkpoint(iteration) / AHEAD
    return list(read_episodes(file)) if file.exists() else None


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
        # The exit code tells a launcher which process is at fault.
        kind = LostProcessError if isinstance(error, LostProcessError) else UserError
        raise kind(
            f"{error}\n{_kept(run)}; fix this ({run.settings_file} may be edited), then resume with: {resume}"
        ) from error


def _kept(run: Run) -> str:
    """Describe in words what a resumed run starts from."""
    return f"saved up to {run.checkpoints[-1].name}" if run.checkpoints else describe_progress(run.warm_start)
