"""The tensors of a checkpoint: policy, critic and optimizer."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hiper.errors import UserError
from hiper.files import whole_folder
from hiper.learner.learner import Learner
from hiper.runs.folder import Run, checkpoint_policy
from hiper.training.build import Assembly, save_policy

DAMAGE = (OSError, RuntimeError, KeyError, ValueError, EOFError, SafetensorError, pickle.UnpicklingError)
"""Errors that reading a damaged checkpoint, or one of another architecture, may raise."""


def save_checkpoint(run: Run, iteration: int, parts: Assembly, keep: int) -> Path:
    """Save all that resuming needs, whole or not at all; then delete all but the newest ``keep`` checkpoints.

    Raises:
        UnwritableError: the disk refused.
    """
    path = run.checkpoint(iteration)
    learner, model = parts.learner, parts.learner.model
    with whole_folder(path) as folder:
        save_policy(checkpoint_policy(folder), parts)
        if model.heads.names:
            save_file(_named(model.heads), folder / "heads.safetensors")
        if model.backbone is not None:
            save_file(_named(model.backbone), folder / "critic.safetensors")
        torch.save({"iteration": iteration, "optimizer": learner.optimizer.state_dict()}, folder / "trainer.pt")
    run.prune(keep)
    return path


def load_checkpoint(run: Run, path: Path, learner: Learner) -> int:
    """Restore critic and optimizer, and return the number of iterations done. The policy is loaded with the model.

    Raises:
        UserError: the checkpoint is damaged or of another architecture.
    """
    try:
        if learner.model.heads.names:
            learner.model.heads.load_state_dict(load_file(path / "heads.safetensors"))
        if learner.model.backbone is not None:
            learner.model.backbone.load_state_dict(load_file(path / "critic.safetensors"))
        state = torch.load(path / "trainer.pt", map_location=learner.device, weights_only=True)
        learner.optimizer.load_state_dict(state["optimizer"])
    except DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        older = run.checkpoints[:-1]
        advice = f"; delete it to go on from {older[-1].name}" if older else ""
        raise UserError(f"checkpoint {path} is damaged or of another architecture: {reason}{advice}") from error
    return int(state["iteration"])


def _named(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
