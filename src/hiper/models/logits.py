"""The one way from logits to log-probabilities, for sampling and for learning alike."""

from __future__ import annotations

import torch
from torch import Tensor


def scaled_logprobs(logits: Tensor, temperature: float) -> Tensor:
    """Log-probabilities in float32 of the distribution sampled from; temperature 0 leaves the logits as they are."""
    return torch.log_softmax(logits.float() / (temperature or 1.0), dim=-1)
