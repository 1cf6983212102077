"""Checkpoints, which hold everything that resuming a run needs. They are written completely or not at all."""

from __future__ import annotations

from pathlib import Path

from hiper.errors import UserError
from hiper.files import atomic_folder, check_sealed, seal
from hiper.runs.folder import Run, checkpoint_policy
from hiper.training.build import Parts


def save_checkpoint(run: Run, parts: Parts, iteration: int) -> Path:
    """Save a checkpoint after ``iteration`` iterations, then delete all but the newest checkpoints.

    Every process calls it. The first one writes.

    Returns:
        The folder of the checkpoint.

    Raises:
        UnwritableError: The checkpoint cannot be written. Older checkpoints are unchanged.
    """
    path = run.checkpoint(iteration)
    if not parts.processes.first:
        return path
    with atomic_folder(path) as folder:
        parts.save_policy(checkpoint_policy(folder))
        parts.learner.save(folder, iteration)
        seal(folder)
    run.prune(run.config.training.keep_checkpoints)
    return path


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
