"""A saved policy, ready to play: it brings the settings under which it reads prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hiper.config import Config, overridden, validate_config
from hiper.envs.base import TextEnv
from hiper.models.build import choose_autocast, choose_device, load_policy, load_tokenizer
from hiper.plan_execute.prompts import Template
from hiper.rollout.agent import Agent
from hiper.runs.policies import PolicyFolder
from hiper.training.build import make_agent, make_env, make_prompts

TO_PLAY = ("name", "seed", "env", "prompt", "model", "rollout", "evaluation", "training")
"""Sections that a policy is played under. Of how it was trained there is no need to know: recipes change."""


@dataclass(frozen=True)
class SavedPolicy:
    """A policy directory and the settings it plays under."""

    path: Path
    config: Config

    @classmethod
    def open(cls, path: Path, env: str | None = None, overrides: Sequence[str] = ()) -> SavedPolicy:
        """The policy meant by ``path``: a run (its newest checkpoint), a checkpoint, or a policy directory.

        Args:
            path: where it is.
            env: another environment than it was trained on; the options of that one are left behind.
            overrides: ``dotted.key=value`` settings in place of the saved ones.

        Raises:
            UserError: there is no policy, or a setting is wrong.
        """
        folder = PolicyFolder.find(path)
        tree = {key: value for key, value in folder.settings_tree().items() if key in TO_PLAY}
        if env is not None and env != tree.get("env", {}).get("name"):
            tree["env"] = {"name": env}
        if template := folder.template:
            tree["prompt"] = {**tree.get("prompt", {}), "template": str(template)}
        config = validate_config(tree, str(folder.settings_file))
        return cls(folder.path, validate_config(overridden(tree, overrides), "settings") if overrides else config)

    def env(self, split: str) -> TextEnv:
        """The environment of its settings over one split."""
        return make_env(self.config, split)

    def agent(self, temperature: float) -> Agent:
        """Load the weights.

        Raises:
            UserError: they are damaged, or do not fit their own config.
        """
        config = self.config
        if config.training.threads is not None:
            torch.set_num_threads(config.training.threads)
        device = choose_device(config.training.device)
        policy, tokenizer = load_policy(self.path, config.model), load_tokenizer(self.path)
        policy.to(device)  # type: ignore[arg-type]
        prompts = make_prompts(config, Template.load(config.prompt.template), tokenizer)
        return make_agent(policy, tokenizer, prompts, config, temperature, choose_autocast(config.model, device))
