"""The weights of a policy, as a learner or a saved policy gives them to a sampler."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hiper.config import ModelConfig
from hiper.errors import UserError
from hiper.models.build import choose_autocast, choose_device, empty_twin, load_policy, without_loading_bars
from hiper.models.lora import role_of
from hiper.models.parts import fill, is_sharded, named_tensors, whole, write_policy


@dataclass(frozen=True, eq=False)
class PolicyWeights:
    """A causal language model on its device, and the number format to run it in."""

    model: PreTrainedModel
    autocast: torch.dtype | None = None
    """The number format of forward passes. None: the format of the parameters."""
    shortcut: bool = True
    """Whether :mod:`hiper.models.llama` may run the models it supports without calling each layer's ``forward``."""

    @classmethod
    def load(cls, path: str | Path, config: ModelConfig, device: str) -> PolicyWeights:
        """Load a saved or named policy for sampling alone.

        Args:
            path: A Hugging Face directory or name.
            config: The number formats.
            device: The name of the device, as in ``training.device``.

        Raises:
            UserError: There is no such model, its files are damaged, or the device is missing.
        """
        place = choose_device(device)
        policy = load_policy(path, config)
        policy.to(place)  # type: ignore[arg-type]
        return cls(policy, choose_autocast(config, place))

    @property
    def sharded(self) -> bool:
        """Whether each process holds only a part of the weights. Then the model cannot be run outside the learner."""
        return is_sharded(self.model)

    def save(self, folder: Path, *, writing: bool = True) -> None:
        """Write the model into a folder as an ordinary Hugging Face directory, without a tokenizer.

        Args:
            folder: A folder that is there.
            writing: Whether this process writes. All processes of a sharded learner must call this together.
        """
        if self.sharded:
            write_policy(self.model, folder, writing=writing)
        elif writing:
            with without_loading_bars():
                self.model.save_pretrained(folder)

    def copied(self, into: PolicyWeights | None = None, *, on: torch.device | None = None) -> PolicyWeights:
        """Copy the policy, whole and in the number format of forward passes, into this process's memory.

        All processes of a sharded learner must call this together, or :meth:`hand_in`.

        Args:
            into: An earlier copy, which gets the weights. None: make one.
            on: The device of a new copy. None: the policy's.

        Raises:
            UserError: The weights are quantised.
        """
        if getattr(self.model, "is_quantized", False):
            raise UserError("sampler.copy_weights cannot copy a quantised model: set it to false")
        tensors = named_tensors(self.model)
        if into is None:
            like = next(self.model.parameters())
            own = torch.device(like.device_mesh.device_type) if isinstance(like, DTensor) else like.device
            twin = empty_twin(self.model, self.autocast)
            twin.to(on or own)  # type: ignore[arg-type]
            into = PolicyWeights(twin)
        for name, target in named_tensors(into.model).items():
            fill(target, whole(tensors[name].detach()))
        return into

    def hand_in(self) -> None:
        """Give this process's parts to the processes that copy the policy."""
        for tensor in named_tensors(self.model).values():
            whole(tensor.detach())

    @property
    def positions(self) -> int | None:
        """The most tokens of a prompt and its response together. None: the model states no limit."""
        limit: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return limit

    def sha256(self) -> str:
        """Return a hash over the names and bytes of the policy's parameters. Tied parameters count once.

        All processes of a sharded learner must call this together.
        """
        digest = hashlib.sha256()
        for name, parameter in sorted(self.model.named_parameters()):
            if role_of(name) not in (None, "policy"):
                continue
            digest.update(name.encode())
            digest.update(whole(parameter.detach()).cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class Loads(Protocol):
    """Anything that takes weights, such as a sampler."""

    def load(self, weights: PolicyWeights, version: int) -> None:
        """Use these weights from now on."""


def stop_ids(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that end a response: the tokenizer's and the model's own. Chat models have several."""
    generation = getattr(policy, "generation_config", None)
    named = getattr(generation, "eos_token_id", None)
    named = [named] if isinstance(named, int) else named or []
    return sorted({tokenizer.eos_token_id, *named})


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Put a model into evaluation mode, and back into its own mode at the end."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
