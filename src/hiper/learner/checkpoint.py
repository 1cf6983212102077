"""The learner's files in a checkpoint: everything that resuming needs beside the policy.

    heads.safetensors    the value heads
    critic.safetensors   the critic's own backbone, or its adapter
    trainer.pt           the optimizer, and the number of iterations done

A sharded learner writes all of it into the folder ``parts``, in the format of torch.distributed.checkpoint. Each
process writes what it holds. Both kinds of files are read by both kinds of learners, under any number of processes. The
policy beside them is an ordinary Hugging Face directory.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from hiper.errors import UserError
from hiper.learner.optimizers import parameters_of, set_state
from hiper.models.actor_critic import ActorCritic
from hiper.models.parts import fill_all, is_part, is_sharded

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


PARTS = "parts"
"""The folder of a sharded learner's files."""

State = dict[str, Tensor]


def save_state(folder: Path, model: ActorCritic, optimizer: Optimizer, iteration: int) -> None:
    """Write critic and optimizer into ``folder``. All processes of a sharded learner call this together."""
    if is_sharded(model):
        state = {**_critic(model), **_moments(optimizer), "iteration": torch.tensor(iteration)}
        try:
            save(state, storage_writer=FileSystemWriter(folder / PARTS))
        except CheckpointException as error:  # every process raises it, with the errors of all
            raise next(iter(error.failures.values()))[0] from error
        return
    for part in ("heads", "critic"):
        if tensors := _part(_critic(model), part):
            save_file(tensors, folder / f"{part}.safetensors")
    with (folder / "trainer.pt").open("wb") as file:  # given a path, torch hides why it cannot write
        torch.save({"iteration": iteration, "optimizer": optimizer.state_dict()}, file)


def load_state(folder: Path, model: ActorCritic, optimizer: Optimizer) -> int:
    """Restore critic and optimizer; return the number of iterations done.

    Raises:
        UserError: A file is damaged or of another architecture.
    """
    try:
        read = _read_parts if (folder / PARTS).is_dir() else _read_files
        state, iteration = read(folder, model, optimizer)
        set_state(optimizer, state)
        return iteration
    except (*DAMAGE, CheckpointException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"checkpoint {folder} is damaged or of another architecture: {reason}") from error


def _read_files(folder: Path, model: ActorCritic, optimizer: Optimizer) -> tuple[dict[int, State], int]:
    """Restore the critic; return the optimizer's state by parameter, and the number of iterations done."""
    for part in ("heads", "critic"):
        if own := _part(_critic(model), part):
            fill_all(own, load_file(folder / f"{part}.safetensors"), f"{part}.safetensors holds other tensors")
    kept = torch.load(folder / "trainer.pt", map_location="cpu", weights_only=True)
    return kept["optimizer"]["state"], int(kept["iteration"])


def _read_parts(folder: Path, model: ActorCritic, optimizer: Optimizer) -> tuple[dict[int, State], int]:
    """Do what :func:`_read_files` does, from the files of a sharded learner."""
    reader = FileSystemReader(folder / PARTS)
    stored: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    parameters = parameters_of(optimizer)
    state: dict[int, State] = {}
    for name in stored:
        if name.startswith(MOMENTS):
            index, kind = name.removeprefix(MOMENTS).split(".")
            scalar = stored[name].size == torch.Size()
            if int(index) < len(parameters):
                empty = torch.zeros(()) if scalar else torch.zeros_like(parameters[int(index)])
                state.setdefault(int(index), {})[kind] = empty
    done = torch.tensor(0)
    wanted = {**_critic(model), **_named(state), "iteration": done}
    if stored.keys() != wanted.keys() or any(stored[name].size != wanted[name].shape for name in wanted):
        raise ValueError(f"{PARTS} holds other tensors")
    load(wanted, storage_reader=reader, no_dist=not is_sharded(model))
    return state, int(done)


def _critic(model: ActorCritic) -> State:
    """Return the tensors of the value heads and of the critic's own backbone or adapter, as they are in the model."""
    state = {f"heads.{name}": tensor for name, tensor in model.heads.state_dict().items()}
    if model.backbone is not None:
        state |= {f"critic.{name}": tensor for name, tensor in model.backbone.state_dict().items()}
    elif model.adapters is not None and model.own_backbone:
        state |= {f"critic.{name}": tensor for name, tensor in model.adapters.tensors("critic").items()}
    return {name: tensor if is_part(tensor) else tensor.contiguous() for name, tensor in state.items()}


def _part(state: State, part: str) -> State:
    return {name.removeprefix(f"{part}."): t for name, t in state.items() if name.startswith(f"{part}.")}


MOMENTS = "optimizer."


def _moments(optimizer: Optimizer) -> State:
    """Return the tensors of the optimizer by the number of their parameter."""
    return _named(optimizer.state_dict()["state"])


def _named(state: Mapping[int, State]) -> State:
    return {f"{MOMENTS}{index}.{kind}": tensor for index, kinds in state.items() for kind, tensor in kinds.items()}
