"""A policy's weights on their way from whoever holds them to a sampler."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from hiper.config import ModelConfig
from hiper.models.build import choose_autocast, choose_device, load_policy


@dataclass(frozen=True, eq=False)
class PolicyWeights:
    """What a sampler loads: a causal language model on its device, and the number format to run it in."""

    model: PreTrainedModel
    autocast: torch.dtype | None = None
    """Number format of forward passes; None for that of the parameters."""
    shortcut: bool = True
    """Models that :mod:`hiper.models.qwen2` understands may be run by it, past each layer's ``forward``."""

    @classmethod
    def load(cls, path: str | Path, config: ModelConfig, device: str) -> PolicyWeights:
        """Load a saved or named policy for sampling alone.

        Args:
            path: a Hugging Face directory or name.
            config: number formats.
            device: as ``training.device`` names it.

        Raises:
            UserError: there is no such model, its files are damaged, or the device is not there.
        """
        place = choose_device(device)
        policy = load_policy(path, config)
        policy.to(place)  # type: ignore[arg-type]
        return cls(policy, choose_autocast(config, place))

    @property
    def positions(self) -> int | None:
        """The most tokens a prompt and a response may have together; None where the model names no limit."""
        limit: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return limit

    def sha256(self) -> str:
        """Name the weights: a hash over names and bytes of all parameters, tied ones once."""
        digest = hashlib.sha256()
        for name, parameter in sorted(self.model.named_parameters()):
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
