"""Tensors of which each process holds a part (DTensors), and models made of them, read and written as if whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

FILE_BYTES = 4 << 30
"""The most bytes of weights in one file, unless a single tensor is larger."""


def is_part(tensor: Tensor) -> bool:
    """Return whether this process may hold only a part of a tensor."""
    return isinstance(tensor, DTensor)


def is_sharded(model: torch.nn.Module) -> bool:
    """Return whether this process may hold only parts of a model's parameters."""
    return any(map(is_part, model.parameters()))


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with all its parts. All processes that hold parts must call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of a whole tensor, cut and placed as ``like`` is. No process sends anything."""
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def fill(target: Tensor, source: Tensor) -> None:
    """Set a tensor, of which this process may hold a part, to a whole one or to one cut alike."""
    part = part_of(source, target)
    if isinstance(target, DTensor) and isinstance(part, DTensor):
        target.to_local().copy_(part.to_local())  # the parts may rest on another device
    else:
        target.copy_(part)


def fill_all(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor], what: str) -> None:
    """Set tensors by name; see :func:`fill`.

    Args:
        targets: The tensors to set.
        sources: Tensors of the same names and shapes.
        what: What the sources are, for the error.

    Raises:
        ValueError: Names or shapes differ.
    """
    if targets.keys() != sources.keys() or any(targets[name].shape != sources[name].shape for name in targets):
        raise ValueError(what)
    for name, target in targets.items():
        fill(target, sources[name])


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Gather tensors one by one into the CPU's memory. All processes that hold parts call this together.

    Args:
        tensors: Tensors by name.
        keep: Whether this process keeps them. Otherwise it only hands in its parts, and the result is empty.
    """
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if keep:
            kept[name] = full.cpu().contiguous()
    return kept


def named_tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return the tensors that a model's files hold. Tied parameters are listed once."""
    named: dict[str, Tensor] = {}
    listed: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in listed:
            named[name] = tensor
            listed.add(id(tensor))
    return named


def each_whole(model: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Give the tensors of :func:`named_tensors` whole, one by one. All processes that hold parts iterate together."""
    for name, tensor in named_tensors(model).items():
        yield name, whole(tensor.detach())


def write_policy(model: PreTrainedModel, folder: Path, *, writing: bool) -> None:
    """Write a sharded model as an ordinary Hugging Face folder. All processes that hold parts call this together.

    Tensors are gathered one by one. The process that writes collects them in the CPU's memory until a file is full.

    Args:
        model: A causal language model.
        folder: A folder that is there.
        writing: Whether this process writes.
    """
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in named_tensors(model).items()}
    files = _files(sizes)
    last_of = {names[-1]: file for file, names in files.items()}
    held: dict[str, Tensor] = {}
    for name, tensor in each_whole(model):
        if writing:
            held[name] = tensor.cpu().contiguous()
        if writing and name in last_of:
            save_file(held, folder / last_of[name], metadata={"format": "pt"})
            held = {}
    if not writing:
        return
    if len(files) > 1:
        index = {
            "metadata": {"total_size": sum(sizes.values())},
            "weight_map": {name: file for file, names in files.items() for name in names},
        }
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    model.config.architectures = [type(model).__name__]
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)


def _files(sizes: Mapping[str, int]) -> dict[str, list[str]]:
    """Divide tensors into files in their order; return their names by file."""
    groups: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not groups or size > room:
            groups.append([])
            room = FILE_BYTES
        groups[-1].append(name)
        room -= size
    if len(groups) == 1:
        return {SAFE_WEIGHTS_NAME: groups[0]}
    return {f"model-{n:05}-of-{len(groups):05}.safetensors": names for n, names in enumerate(groups, 1)}
