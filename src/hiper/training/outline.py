"""What a run would build and do, said without weights in memory and without a file on disk."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hiper.config import Config
from hiper.display.console import Display
from hiper.envs.base import TextEnv
from hiper.files import user_path
from hiper.imitation.language import check_sayable, language, texts
from hiper.models.build import build_nano_tokenizer, choose_autocast, choose_device, outline, outline_policy
from hiper.models.nano import nano_config
from hiper.models.weights import PolicyWeights
from hiper.plan_execute.render import Template
from hiper.plan_execute.tokenizer import load_tokenizer
from hiper.rollout.environment import open_splits
from hiper.rollout.setup import check_room, check_words, make_agent, make_prompts
from hiper.runs.policies import PolicyFolder, shipped_warm_start
from hiper.runs.trackers import find_trackers
from hiper.training.build import check_form
from hiper.training.estimate.devices import gigabytes, this_machine
from hiper.training.estimate.memory import estimate
from hiper.training.estimate.models import has_bfloat16, shape_of
from hiper.training.estimate.sizes import Sizes, formats_of


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
    turns = list(language(env, config.model.nano.vocabulary_tasks))
    words = (text for said in turns for text in texts(template, said))
    tokenizer = build_nano_tokenizer(config.model.nano, words, template.wording)
    check_sayable(env, template, tokenizer, turns)
    return outline(nano_config(config.model.nano, tokenizer), config.model), tokenizer


def _model_lines(config: Config, policy: PreTrainedModel, device: torch.device) -> list[str]:
    """Say how large policy and critic are, and what training them takes."""
    shape = shape_of(policy, config.learner.lora)
    critic = Sizes(config, shape, device.type, 1, formats_of(config, shape, device.type)).trained[1]
    found = estimate(config, shape, "cpu" if device.type == "cpu" else "cuda", native=has_bfloat16(device))
    there = this_machine(config.training.device).memory
    added = "" if config.learner.lora is None else f", adapters {shape.adapter:,} more"
    added += f", critic {critic:,} more" if critic else ", no critic"
    here = ""
    if there is not None and found.certain > there:
        here = f"; it cannot be trained here, with {gigabytes(there)} free"
    return [
        f"policy: {config.model.path or 'a new nano model'}, {shape.parameters:,} parameters{added}, on {device}",
        f"memory: {gigabytes(found.peak)} at most, in {found.peak_phase}; {gigabytes(found.certain)} without "
        f"activations and cache{here}; `hiper check` shows every part",
    ]
