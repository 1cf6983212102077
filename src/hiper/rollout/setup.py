"""Construction of an agent from settings: prompts, sampler, and a check that responses fit the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from hiper.config import Config
from hiper.errors import UserError
from hiper.models.weights import PolicyWeights
from hiper.plan_execute.prompts import PromptBuilder
from hiper.plan_execute.render import Template
from hiper.plan_execute.tokenizer import begins_texts
from hiper.rollout.agent import Agent
from hiper.rollout.samplers import RemoteSampler, Sampler, SamplingParams, Workplace, make_sampler


def make_prompts(
    config: Config, template: Template, tokenizer: PreTrainedTokenizerBase, *, critic: bool = False
) -> PromptBuilder:
    """Make the prompt builder of the settings: that of the policy, or that of its critic."""
    prompt = config.prompt
    if prompt.plan_memory == "both" or (critic and prompt.plan_memory == "critic"):
        template = template.with_plans()
    return PromptBuilder(
        template,
        tokenizer,
        history_window=prompt.history_window,
        max_tokens=prompt.max_tokens,
        overflow=prompt.overflow,
        plan_tokens=prompt.plan_memory_tokens,
        chat_template_args=prompt.chat_template_args,
        thinking=prompt.thinking,
    )


def make_agent(
    config: Config,
    prompts: PromptBuilder,
    tokenizer: PreTrainedTokenizerBase,
    workplace: Workplace = Workplace(),  # noqa: B008 - it is frozen
) -> Agent:
    """Make an agent at the training temperature. Its new sampler still needs weights.

    Args:
        config: The settings.
        prompts: The builder of prompts.
        tokenizer: The tokenizer of the model.
        workplace: The workplace of a sampler outside this process, without the sizes that the settings tell.

    Raises:
        UserError: The settings name an unknown sampler, it needs an engine that is not there, or ``rollout.ahead``
            needs another one.
    """
    sampler: Sampler = make_sampler(config.sampler.type, tokenizer, config.sampler.options)
    chooses = config.sampler.choose == "admissible"
    if isinstance(sampler, RemoteSampler):
        tokens = config.prompt.max_tokens + config.rollout.max_response_tokens
        sampler.settle(replace(workplace, tokens=tokens, slots=config.rollout.slots, patterns=chooses))
    elif config.rollout.ahead:
        raise UserError(
            f"rollout.ahead needs a sampler with weights of its own, and sampler.type '{config.sampler.type}' samples "
            "from the model in training: set sampler.type=vllm, or rollout.ahead=0"
        )
    params = SamplingParams(config.rollout.temperature, config.rollout.max_response_tokens)
    return Agent(sampler, tokenizer, prompts, params, config.prompt.include_tags, chooses=chooses)


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


def check_words(weights: PolicyWeights, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the model has an embedding for every token it will read.

    Special tokens of no use here may lie beyond, such as the place of an image in text models.

    Raises:
        UserError: It has too few.
    """
    embeddings: Any = weights.model.get_input_embeddings()
    rows = len(embeddings.weight)
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    special -= {tokenizer.eos_token_id, tokenizer.pad_token_id, *begins_texts(tokenizer)}
    beyond = {token: word for word, token in tokenizer.get_vocab().items() if token >= rows and token not in special}
    if beyond:
        first = min(beyond)
        raise UserError(
            f"the tokenizer {tokenizer.name_or_path!r} does not fit the model: {len(beyond)} of its tokens, such as "
            f"{beyond[first][:40]!r} ({first}), have no embedding among the model's {rows}; use the model's own "
            "tokenizer, or resize the model's embeddings (resize_token_embeddings)"
        )
