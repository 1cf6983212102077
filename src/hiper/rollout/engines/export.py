"""Weights as an engine reads them: the folder of a whole Hugging Face model."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hiper.files import writing
from hiper.models.build import without_loading_bars
from hiper.models.lora import role_of, save_adapter
from hiper.models.weights import PolicyWeights

HEAD_FILE = "model-head.safetensors"
"""The language head of a model with tied embeddings, written out as a tensor of its own."""
BODY_FILE = "model-body.safetensors"
"""The rest of it, if it lies in one file."""
INDEX_FILE = "model.safetensors.index.json"


def number_format(weights: PolicyWeights) -> torch.dtype:
    """Return the number format in which an engine should hold and compute: that of the learner's forward passes."""
    return weights.autocast or weights.model.dtype


def is_tied(weights: PolicyWeights) -> bool:
    """Return whether the language head is the embedding of the input."""
    head, embedding = weights.model.get_output_embeddings(), weights.model.get_input_embeddings()
    return head is not None and cast(nn.Linear, head).weight is cast(nn.Embedding, embedding).weight


def scrambled(tensor: Tensor) -> Tensor:
    """Return wrong but finite weights in the shape of ``tensor``: no row is where it was, and all signs differ."""
    return -tensor.roll(1, 0) if tensor.is_floating_point() and tensor.dim() else tensor


@torch.no_grad()
def write_model(
    weights: PolicyWeights,
    folder: Path,
    *,
    untie: bool,
    merged: bool = True,
    scramble: bool = False,
) -> None:
    """Write a policy as an ordinary Hugging Face model.

    Args:
        weights: The policy.
        folder: The new folder.
        untie: Whether tied embeddings are written twice, with a config that says they are not tied. vLLM's build for
            CPUs keeps a repacked copy of a tied head, which loading new weights leaves as it was.
        merged: Whether an adapter is added into the weights. Otherwise it is left out.
        scramble: Whether the weights are spoilt; see :func:`scrambled`.

    Raises:
        UnwritableError: The disk is full.
    """
    dtype = number_format(weights)
    tensors = dict(outgoing(weights, merged=merged, scramble=scramble))
    model: Any = weights.model
    with writing(folder), without_loading_bars(), _as_whole_model(model):
        model.save_pretrained(folder, state_dict=dict(tensors))
        config_file = folder / "config.json"
        config = json.loads(config_file.read_text(encoding="utf-8"))
        config["dtype"] = str(dtype).removeprefix("torch.")
        if untie and is_tied(weights):
            config["tie_word_embeddings"] = False
            if isinstance(inner := config.get("text_config"), dict):
                inner["tie_word_embeddings"] = False
            embedding = next(name for name, tensor in whole(weights) if tensor is _embedding(model))
            _write_head(folder, tensors[embedding])
        config_file.write_text(json.dumps(config, indent=1), encoding="utf-8")


def _embedding(model: Any) -> Tensor:
    return cast(Tensor, model.get_input_embeddings().weight)


def _write_head(folder: Path, head: Tensor) -> None:
    """Write the head into a file of its own, and name it in the index of the model's files."""
    name = "lm_head.weight"
    save_file({name: head.detach().cpu().contiguous().clone()}, folder / HEAD_FILE, {"format": "pt"})
    index = folder / INDEX_FILE
    if index.exists():
        tree = json.loads(index.read_text(encoding="utf-8"))
    else:  # a small model lies in one file, which readers take for the whole model because of its name
        (folder / "model.safetensors").rename(folder / BODY_FILE)
        with safe_open(folder / BODY_FILE, "pt") as file:
            tree = {"metadata": {}, "weight_map": dict.fromkeys(file.keys(), BODY_FILE)}
    tree["weight_map"][name] = HEAD_FILE
    index.write_text(json.dumps(tree), encoding="utf-8")


def outgoing(weights: PolicyWeights, *, merged: bool = True, scramble: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of :func:`whole` in the engine's number format, spoilt or not."""
    for name, tensor in whole(weights, merged=merged):
        sent = tensor.to(number_format(weights)) if tensor.is_floating_point() else tensor
        yield name, scrambled(sent) if scramble else sent


def write_adapter(weights: PolicyWeights, folder: Path) -> None:
    """Write the policy's adapter of LoRA, as PEFT does.

    Raises:
        UnwritableError: The disk is full.
    """
    with writing(folder):
        folder.mkdir(parents=True)
        save_adapter(weights.model, folder)


def whole(weights: PolicyWeights, *, merged: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of the policy by the names of its model, with its adapter added into its weights or not."""
    layers = {name: module for name, module in weights.model.named_modules() if hasattr(module, "get_delta_weight")}
    for name, tensor in weights.model.state_dict(keep_vars=True).items():
        if role_of(name) is not None:
            continue
        owner, _, leaf = name.rpartition(".base_layer.")
        if owner not in layers:
            yield name, tensor
            continue
        added: Any = layers[owner]
        adds = merged and leaf == "weight"
        yield f"{owner}.{leaf}", tensor + added.get_delta_weight("policy") if adds else tensor


@contextmanager
def _as_whole_model(model: Any) -> Iterator[None]:
    """Let transformers save a model with adapters as a model, not as the adapters alone."""
    adapted = getattr(model, "_hf_peft_config_loaded", False)
    if adapted:
        model._hf_peft_config_loaded = False
    try:
        yield
    finally:
        if adapted:
            model._hf_peft_config_loaded = True


def room_for(weights: PolicyWeights) -> int:
    """Return the bytes that the policy takes on disk."""
    return sum(p.numel() for p in weights.model.parameters()) * number_format(weights).itemsize


def place_for(weights: PolicyWeights, chosen: str | None) -> Path:
    """Return a folder for weights on their way: in memory if there is room, otherwise where temporary files lie.

    Args:
        weights: The weights.
        chosen: The folder that the settings name, if any.
    """
    if chosen is not None:
        return Path(chosen)
    memory = Path("/dev/shm")
    # Two of them may lie there at once: the last one stays until the next one was read.
    if memory.is_dir() and shutil.disk_usage(memory).free > 3 * room_for(weights):
        return memory
    return Path(tempfile.gettempdir())
