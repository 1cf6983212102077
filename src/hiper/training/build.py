"""Everything a run is made of, built from its settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hiper import envs
from hiper.config import Config
from hiper.envs.base import TextEnv
from hiper.errors import NoSplitError, UserError
from hiper.imitation.demonstrations import DemonstrationTurn, demonstrate
from hiper.learner.learner import Learner
from hiper.models.build import (
    add_critic,
    choose_autocast,
    choose_device,
    load_policy,
    load_tokenizer,
    make_nano,
    stop_ids,
)
from hiper.plan_execute.parse import Form, response_text
from hiper.plan_execute.prompts import PromptBuilder, Template
from hiper.plan_execute.tokenizer import round_trip
from hiper.rollout.agent import Agent
from hiper.rollout.samplers.transformers import SamplingParams, TransformersSampler
from hiper.runs.policies import PolicyFolder
from hiper.seeding import derive_seed

LANGUAGE_TASKS = 400
"""Tasks played by the expert to learn the words of an environment's language."""


@dataclass(frozen=True)
class Assembly:
    """The parts of a run."""

    config: Config
    env: TextEnv
    """Over the training tasks."""
    held_out: dict[str, TextEnv]
    """By split."""
    tokenizer: PreTrainedTokenizerBase
    prompts: PromptBuilder
    learner: Learner

    def agent(self, temperature: float | None = None) -> Agent:
        """An agent on the current weights; by default at the training temperature."""
        return make_agent(
            self.learner.model.policy,
            self.tokenizer,
            self.prompts,
            self.config,
            self.config.rollout.temperature if temperature is None else temperature,
            self.learner.autocast,
        )


def assemble(config: Config, policy_path: Path | None = None) -> Assembly:
    """Build everything.

    Args:
        config: the settings.
        policy_path: a checkpoint's policy to continue from; None: as the settings say.

    Raises:
        UserError: data, a model or a setting is not usable.
    """
    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    device = choose_device(config.training.device)
    env = make_env(config, config.env.train_split)
    tasks = env.panel if config.env.train_tasks is None else env.panel.subset(config.env.train_tasks)
    held_out = {split: make_env(config, split) for split in config.evaluation.splits}
    own = None if policy_path is None else PolicyFolder(policy_path).template
    template = Template.load(config.prompt.template if own is None else own)
    check_form(config, template)
    policy, tokenizer = _policy(config, policy_path, env, template)
    env.panel = tasks  # a nano model knows the words of all of them
    check_room(config, policy)
    policy.to(device)  # type: ignore[arg-type]
    learner = Learner(
        add_critic(policy, config.model, config.advantages.critic).to(device),
        config.learner,
        pad_id=tokenizer.pad_token_id,
        temperature=config.rollout.temperature,
        autocast=choose_autocast(config.model, device),
    )
    return Assembly(config, env, held_out, tokenizer, make_prompts(config, template, tokenizer), learner)


def save_policy(path: Path, parts: Assembly) -> None:
    """The policy as an ordinary Hugging Face directory, with the settings and the template it needs to play."""
    parts.learner.model.policy.save_pretrained(path)
    parts.tokenizer.save_pretrained(path)
    PolicyFolder(path).write(parts.config, parts.prompts.template.to_yaml())


def settle_splits(config: Config) -> Config:
    """The settings with every split that the data hold named for certain, and none of the others.

    Raises:
        UserError: the data of an optional split are there, and not usable.
    """
    found = []
    for split in config.evaluation.splits_if_present:
        with suppress(NoSplitError):
            make_env(config, split)
            found.append(split)
    splits = tuple(dict.fromkeys([*config.evaluation.splits, *found]))
    evaluation = config.evaluation.model_copy(update={"splits": splits, "splits_if_present": ()})
    return config.model_copy(update={"evaluation": evaluation})


def make_env(config: Config, split: str) -> TextEnv:
    """The environment over one split."""
    return envs.make(config.env.name, split=split, **config.env.options)


def make_prompts(config: Config, template: Template, tokenizer: PreTrainedTokenizerBase) -> PromptBuilder:
    """The prompt builder of the settings."""
    prompt = config.prompt
    return PromptBuilder(
        template,
        tokenizer,
        history_window=prompt.history_window,
        max_tokens=prompt.max_tokens,
        overflow=prompt.overflow,
    )


def make_agent(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: PromptBuilder,
    config: Config,
    temperature: float,
    autocast: torch.dtype | None,
) -> Agent:
    """An agent that samples from ``policy`` in this process.

    Raises:
        UserError: see :func:`check_room`.
    """
    check_room(config, policy)
    rollout = config.rollout
    sampler = TransformersSampler(
        policy,
        eos_id=stop_ids(policy, tokenizer),
        pad_id=tokenizer.pad_token_id,
        max_batch_tokens=rollout.batch_tokens,
        autocast=autocast,
    )
    params = SamplingParams(temperature, rollout.max_response_tokens)
    return Agent(sampler, tokenizer, prompts, params, config.prompt.include_tags)


def check_form(config: Config, template: Template) -> None:
    """Make sure that what is credited and paid for is asked for.

    Raises:
        UserError: credit or rewards are for plans, and the template asks for none.
    """
    if template.form is Form.PLAN_EXECUTE:
        return
    name = template.data.name
    if config.advantages.critic == "decisions":
        raise UserError(
            f"advantages.type '{config.advantages.type}' credits switches and subgoals, and template '{name}' asks for "
            "actions alone; choose another type, such as turn-gae, or a template with plans"
        )
    if config.shaping.keep_penalty:
        raise UserError(f"template '{name}' asks for no plans, so none is kept: set shaping.keep_penalty to 0")


def check_room(config: Config, policy: PreTrainedModel) -> None:
    """Make sure that the longest prompt and response together fit the model.

    Raises:
        UserError: they do not.
    """
    limit = getattr(policy.config.get_text_config(), "max_position_embeddings", None)
    prompt, response = config.prompt.max_tokens, config.rollout.max_response_tokens
    if limit is not None and prompt + response > limit:
        remedy = "" if config.model.path else ", or make the model with a larger model.nano.max_positions"
        raise UserError(
            f"prompt.max_tokens ({prompt}) and rollout.max_response_tokens ({response}) come to {prompt + response} "
            f"tokens, and the model has {limit} positions; allow fewer tokens{remedy}"
        )


def _policy(
    config: Config, path: Path | None, env: TextEnv, template: Template
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    source = path or config.model.path
    if source is not None:
        return load_policy(source, config.model), load_tokenizer(source)
    turns = list(language(env))
    texts = (text for turn in turns for text in _read_and_said(template, turn))
    policy, tokenizer = make_nano(config.model, texts, derive_seed(config.seed, "model"), template.wording)
    if unsaid := sorted({turn.decision.action for turn in turns if not _can_say(template, tokenizer, turn)}):
        raise UserError(
            f"a nano model cannot say {len(unsaid)} actions of '{env.name}', such as {unsaid[0]!r}: it knows words "
            "with single spaces between them; use a template that words actions so, or name a model with a tokenizer "
            "of its own in model.path"
        )
    return policy, tokenizer


def _read_and_said(template: Template, turn: DemonstrationTurn) -> tuple[str, str]:
    said = response_text(template.phrase(turn.decision, turn.context), template.form)
    return str(template.render(turn.context)), said


def _can_say(template: Template, tokenizer: PreTrainedTokenizerBase, turn: DemonstrationTurn) -> bool:
    """Whether an action means itself once it has been said, or another that differs in white space alone."""
    action, listed = turn.decision.action, turn.context.admissible or ()
    said = round_trip(tokenizer, template.phrase(turn.decision, turn.context).action)
    understood = template.understand(said, turn.context)
    alike = "".join(understood.split()) == "".join(action.split())
    return understood == action or (alike and (understood in listed or action not in listed))


def language(env: TextEnv) -> Iterator[DemonstrationTurn]:
    """What is read and said in an environment: the expert at play on a sample of tasks."""
    for task in env.panel.subset(min(LANGUAGE_TASKS, len(env.panel))):
        yield from demonstrate(env, task.id, perturb=0.2).turns
