"""The learner's files in a checkpoint: everything that resuming needs beside the policy.

    heads.safetensors    the value heads
    critic.safetensors   the critic's own backbone, or its adapter
    trainer.pt           the optimizer, and the number of iterations done

The policy beside them is an ordinary Hugging Face directory.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from hiper.errors import UserError
from hiper.models.actor_critic import ActorCritic

DAMAGE = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    EOFError,
    SafetensorError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)
"""The exceptions of reading a damaged file, or of loading it into another architecture."""


def save_state(folder: Path, model: ActorCritic, optimizer: Optimizer, iteration: int) -> None:
    """Write critic and optimizer into ``folder``."""
    if model.heads.names:
        save_file(_tensors(model.heads), folder / "heads.safetensors")
    if model.backbone is not None:
        save_file(_tensors(model.backbone), folder / "critic.safetensors")
    elif model.adapters is not None and model.own_backbone:
        save_file(model.adapters.tensors("critic"), folder / "critic.safetensors")
    torch.save({"iteration": iteration, "optimizer": optimizer.state_dict()}, folder / "trainer.pt")


def load_state(folder: Path, model: ActorCritic, optimizer: Optimizer) -> int:
    """Restore critic and optimizer; return the number of iterations done.

    Raises:
        UserError: A file is damaged or of another architecture.
    """
    try:
        if model.heads.names:
            model.heads.load_state_dict(load_file(folder / "heads.safetensors"))
        if model.backbone is not None:
            model.backbone.load_state_dict(load_file(folder / "critic.safetensors"))
        elif model.adapters is not None and model.own_backbone:
            model.adapters.load("critic", load_file(folder / "critic.safetensors"))
        device = next(model.parameters()).device
        state = torch.load(folder / "trainer.pt", map_location=device, weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        return int(state["iteration"])
    except DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"checkpoint {folder} is damaged or of another architecture: {reason}") from error


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
