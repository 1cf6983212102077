"""What playing needs, built from settings: environment, prompts, sampler, agent."""

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
    """Make an agent with a sampler of its own, into which weights are still to be loaded. It has the training
    temperature; see :meth:`Agent.at`.

    Raises:
        UserError: the settings name no sampler that there is.
    """
    sampler: Sampler = make_sampler(config.sampler.type, tokenizer, config.sampler.options)
    params = SamplingParams(config.rollout.temperature, config.rollout.max_response_tokens)
    return Agent(sampler, tokenizer, prompts, params, config.prompt.include_tags)


def check_room(config: Config, weights: PolicyWeights) -> None:
    """Make sure that the longest prompt and response together fit the model.

    Raises:
        UserError: they do not.
    """
    prompt, response = config.prompt.max_tokens, config.rollout.max_response_tokens
    if weights.positions is not None and prompt + response > weights.positions:
        remedy = "" if config.model.path else ", or make the model with a larger model.nano.max_positions"
        raise UserError(
            f"prompt.max_tokens ({prompt}) and rollout.max_response_tokens ({response}) come to {prompt + response} "
            f"tokens, and the model has {weights.positions} positions; allow fewer tokens{remedy}"
        )
