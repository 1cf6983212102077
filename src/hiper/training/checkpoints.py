"""Checkpoints, which hold everything that resuming a run needs. They are written completely or not at all."""

from __future__ import annotations

from pathlib import Path

from hiper.errors import UserError
from hiper.files import atomic_folder
from hiper.runs.folder import Run, checkpoint_policy
from hiper.training.build import Parts


def save_checkpoint(run: Run, parts: Parts, iteration: int) -> Path:
    """Save a checkpoint after ``iteration`` iterations, then delete all but the newest checkpoints.

    Returns:
        The folder of the checkpoint.

    Raises:
        UnwritableError: The checkpoint cannot be written. Older checkpoints are unchanged.
    """
    path = run.checkpoint(iteration)
    with atomic_folder(path) as folder:
        parts.save_policy(checkpoint_policy(folder))
        parts.learner.save(folder, iteration)
    run.prune(run.config.training.keep_checkpoints)
    return path


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
        older = [other for other in run.checkpoints if other.name < path.name]
        raise UserError(f"{error}; delete it to resume from {older[-1].name}" if older else str(error)) from error
