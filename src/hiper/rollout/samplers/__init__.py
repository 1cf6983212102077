"""Samplers: prompts as token ids in, responses as token ids and log-probabilities out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from hiper.plugins import resolve
from hiper.rollout.samplers.base import Request, Sample, Sampler, SamplingParams, sample_all
from hiper.validation import parse_model

__all__ = ["SAMPLERS", "Request", "Sample", "Sampler", "SamplingParams", "make_sampler", "sample_all"]

SAMPLERS = {"transformers": "hiper.rollout.samplers.transformers:TransformersSampler"}
"""Sampler classes by ``sampler.type``, as the place to import them from.

A sampler's class has an attribute ``options``, a :class:`~hiper.validation.StrictModel` of its settings. It is called
with the model's tokenizer and with these options.
"""


def make_sampler(name: str, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]) -> Sampler:
    """Build a sampler.

    Args:
        name: one of :data:`SAMPLERS`, or ``module:Class`` for one of the user's own.
        tokenizer: of the model that will be sampled.
        options: the other keys of the section ``sampler``.

    Raises:
        UserError: there is no such sampler, it has no such option, or an option's value is wrong.
    """
    needs = "a class with an attribute 'options'"
    made = resolve("sampler", name, SAMPLERS, fits=lambda found: hasattr(found, "options"), needs=needs)
    sampler: Sampler = made(tokenizer, parse_model(made.options, options, f"sampler '{name}'", "options"))
    return sampler
