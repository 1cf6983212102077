"""What a run would build and do, said without weights in memory and without a file on disk."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hiper.config import Config
from hiper.display.console import Display
from hiper.envs.base import TextEnv
from hiper.files import user_path
from hiper.imitation.language import check_sayable, language, texts
from hiper.models.build import add_critic, choose_autocast, choose_device, outline, outline_policy
from hiper.models.nano import nano_config
from hiper.models.weights import PolicyWeights
from hiper.plan_execute.render import Template
from hiper.plan_execute.tokenizer import build_word_tokenizer, load_tokenizer
from hiper.rollout.environment import open_splits
from hiper.rollout.setup import check_room, check_words, make_agent, make_prompts
from hiper.runs.policies import PolicyFolder, shipped_warm_start
from hiper.runs.trackers import find_trackers
from hiper.training.build import check_form


def outline_of(config: Config, display: Display) -> list[str]:
    """Check the settings as a run does when it is built, and return lines that say what it would build and do.

    Args:
        config: The settings, with their splits resolved.
        display: The display of progress.

    Raises:
        UserError: The data, a model or a setting cannot be used.
    """
    find_trackers(config)
    env, *held_out = open_splits(config, (config.env.train_split, *config.evaluation.splits), display)
    template = Template.load_for(config.env.name, config.prompt.template)
    check_form(config, template)
    with display.bar("outlining the model"):
        policy, tokenizer = _policy(config, env, template)
        weights = PolicyWeights(policy)
        check_room(config, weights)
        check_words(weights, tokenizer)
        make_agent(config, make_prompts(config, template, tokenizer), tokenizer).sampler.close()
    device = choose_device(config.training.device)
    choose_autocast(config.model, device)
    limit = "" if weights.positions is None else f"; the model has {weights.positions:,} positions"
    panel = env.panel if config.env.train_tasks is None else env.panel.subset(config.env.train_tasks)
    panels = [("train", panel), *zip(config.evaluation.splits, (other.panel for other in held_out), strict=True)]
    rollout = config.rollout
    turns = rollout.episodes * env.max_turns
    return [
        *_model_lines(config, policy, device),
        f"tokens: prompts of at most {config.prompt.max_tokens:,}, responses of at most "
        f"{rollout.max_response_tokens:,}{limit}",
        f"environment: {env.name} version {env.version}, at most {env.max_turns:,} turns",
        *(f"tasks, {split}: {len(panel):,} of {panel.name}, sha256 {panel.hash[:12]}" for split, panel in panels),
        f"warm start: {_warm_start(config, len(panel))}",
        f"training: {config.training.iterations:,} iterations of {rollout.episodes:,} episodes with at most {turns:,} "
        f"turns; credit by {config.advantages.type}",
    ]


def _warm_start(config: Config, tasks: int) -> str:
    """Say what the policy is warm-started by."""
    demonstrated = min(config.warm_start.tasks, tasks)
    if not demonstrated:
        return "none"
    shipped = "" if shipped_warm_start(config) is None else "; `hiper train` begins from one that ships with hiper"
    return f"demonstrations of {demonstrated:,} tasks{shipped}"


def _policy(config: Config, env: TextEnv, template: Template) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if config.model.path is not None:
        PolicyFolder(user_path(config.model.path)).check()
        return outline_policy(config.model.path, config.model), load_tokenizer(config.model.path)
    turns = list(language(env))
    words = (text for said in turns for text in texts(template, said))
    tokenizer = build_word_tokenizer(words, template.wording)
    check_sayable(env, template, tokenizer, turns)
    return outline(nano_config(config.model.nano, tokenizer), config.model), tokenizer


def _model_lines(config: Config, policy: PreTrainedModel, device: torch.device) -> list[str]:
    """Say how large policy and critic are, and what training them takes without activations."""
    whole = list(policy.parameters())
    with torch.device("meta"):
        both = add_critic(policy, config.model, config.advantages.critic, config.learner.lora)
    of_policy, of_critic = both.policy_parameters(), both.critic_parameters()
    count, critic = (sum(parameter.numel() for parameter in part) for part in (whole, of_critic))
    # A trained parameter has a weight, a gradient and two moments of AdamW. The reference policy, a copy of what is
    # trained, has weights alone, and so has the base of adapters.
    size = 4 * sum(parameter.nbytes for parameter in (*of_policy, *of_critic))
    size += sum(parameter.nbytes for parameter in of_policy) * bool(config.learner.kl_coef)
    size += sum(parameter.nbytes for parameter in whole) * (config.learner.lora is not None)
    shown = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
    added = "" if config.learner.lora is None else f", adapters {sum(p.numel() for p in of_policy):,} more"
    added += f", critic {critic:,} more" if critic else ", no critic"
    return [
        f"policy: {config.model.path or 'a new nano model'}, {count:,} parameters{added}, on {device}",
        f"memory: {shown} for weights, gradients and optimizer, without activations",
    ]
