"""Samplers, which turn prompts of token ids into responses of token ids with log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from hiper.plugins import resolve
from hiper.rollout.samplers.base import (
    RemoteSampler,
    Request,
    Sample,
    Sampler,
    SamplingParams,
    Workplace,
    sample_all,
)
from hiper.validation import parse_model

__all__ = [
    "SAMPLERS",
    "RemoteSampler",
    "Request",
    "Sample",
    "Sampler",
    "SamplingParams",
    "Workplace",
    "make_sampler",
    "sample_all",
]

SAMPLERS = {
    "transformers": "hiper.rollout.samplers.transformers:TransformersSampler",
    "vllm": "hiper.rollout.samplers.vllm:VllmSampler",
}
"""The sampler classes by ``sampler.type``, as ``module:Class``.

A sampler's class has an attribute ``options``, a :class:`~hiper.validation.StrictModel` of its settings. Its
constructor takes the model's tokenizer and these options.
"""


def make_sampler(name: str, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]) -> Sampler:
    """Build a sampler.

    Args:
        name: A name in :data:`SAMPLERS`, or ``module:Class`` for a user's own class.
        tokenizer: The tokenizer of the model to sample from.
        options: The other keys of the section ``sampler``.

    Raises:
        UserError: The sampler is unknown, it has no such option, or an option's value is wrong.
    """
    needs = "a class with an attribute 'options'"
    made = resolve("sampler", name, SAMPLERS, fits=lambda found: hasattr(found, "options"), needs=needs)
    sampler: Sampler = made(tokenizer, parse_model(made.options, options, f"sampler '{name}'", "options"))
    return sampler
