"""Samplers: prompts as token ids in, responses as token ids and log-probabilities out."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from transformers import PreTrainedTokenizerBase

from hiper.rollout.samplers.base import Request, Sample, Sampler, SamplingParams, sample_all

__all__ = ["SAMPLERS", "Request", "Sample", "Sampler", "SamplingParams", "make_sampler", "sample_all"]

SAMPLERS = {"transformers": "hiper.rollout.samplers.transformers:TransformersSampler"}
"""By the ``sampler.type`` of the settings: where to import it from. It is called with the tokenizer and its options."""


def make_sampler(type_: str, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]) -> Sampler:
    """Build the sampler that ``sampler.type`` names: one of :data:`SAMPLERS`, or ``module:name``.

    Raises:
        UserError: there is no such sampler, or it has no such option.
    """
    module, _, name = SAMPLERS[type_].partition(":")
    sampler: Sampler = getattr(import_module(module), name)(tokenizer, **options)
    return sampler
