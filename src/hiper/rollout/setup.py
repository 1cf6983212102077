"""Construction of an agent from settings: prompts, sampler, and a check that responses fit the model."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from hiper.config import Config
from hiper.errors import UserError
from hiper.models.weights import PolicyWeights
from hiper.plan_execute.prompts import PromptBuilder
from hiper.plan_execute.render import Template
from hiper.rollout.agent import Agent
from hiper.rollout.samplers import Sampler, SamplingParams, make_sampler


def make_prompts(config: Config, template: Template, tokenizer: PreTrainedTokenizerBase) -> PromptBuilder:
    """Make the prompt builder of the settings."""
    prompt = config.prompt
    return PromptBuilder(
        template,
        tokenizer,
        history_window=prompt.history_window,
        max_tokens=prompt.max_tokens,
        overflow=prompt.overflow,
    )


def make_agent(config: Config, prompts: PromptBuilder, tokenizer: PreTrainedTokenizerBase) -> Agent:
    """Make an agent at the training temperature. Its new sampler still needs weights.

    Raises:
        UserError: The settings name an unknown sampler.
    """
    sampler: Sampler = make_sampler(config.sampler.type, tokenizer, config.sampler.options)
    params = SamplingParams(config.rollout.temperature, config.rollout.max_response_tokens)
    return Agent(sampler, tokenizer, prompts, params, config.prompt.include_tags)


def check_room(config: Config, weights: PolicyWeights) -> None:
    """Check that the longest prompt and the longest response together fit the model.

    Raises:
        UserError: They do not fit.
    """
    prompt, response = config.prompt.max_tokens, config.rollout.max_response_tokens
    if weights.positions is not None and prompt + response > weights.positions:
        remedy = "" if config.model.path else ", or make the model with a larger model.nano.max_positions"
        raise UserError(
            f"prompt.max_tokens ({prompt}) plus rollout.max_response_tokens ({response}) is {prompt + response} "
            f"tokens, but the model has {weights.positions} positions; allow fewer tokens{remedy}"
        )
