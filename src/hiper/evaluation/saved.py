"""A saved policy, ready to play: it brings the settings under which it reads prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hiper.config import Config, apply_overrides, validate_config
from hiper.envs.base import TextEnv
from hiper.episode import Episode
from hiper.models.build import use_threads
from hiper.models.weights import PolicyWeights
from hiper.plan_execute.render import Template
from hiper.plan_execute.tokenizer import load_tokenizer
from hiper.rollout.agent import Agent
from hiper.rollout.collector import collect
from hiper.rollout.environment import make_env
from hiper.rollout.players import Assignment
from hiper.rollout.setup import check_room, make_agent, make_prompts
from hiper.runs.policies import PolicyFolder

TO_PLAY = ("name", "seed", "env", "prompt", "model", "rollout", "sampler", "evaluation", "training")
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
        return cls(folder.path, validate_config(apply_overrides(tree, overrides), "settings") if overrides else config)

    def env(self, split: str) -> TextEnv:
        """The environment of its settings over one split."""
        return make_env(self.config, split)

    def load(self, temperature: float | None = None) -> LoadedPolicy:
        """Load the weights.

        Args:
            temperature: of the sampling; None: that of evaluations in training.

        Raises:
            UserError: they are damaged, or do not fit their own config.
        """
        config = self.config
        template = Template.load_for(config.env.name, config.prompt.template)
        use_threads(config.training.threads)
        weights = PolicyWeights.load(self.path, config.model, config.training.device)
        check_room(config, weights)
        tokenizer = load_tokenizer(self.path)
        agent = make_agent(config, make_prompts(config, template, tokenizer), tokenizer)
        agent.sampler.load(weights, 0)
        agent = agent.at(config.evaluation.temperature if temperature is None else temperature)
        return LoadedPolicy(self.path, config, agent, weights)


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy that is ready to play."""

    path: Path
    config: Config
    """The settings it plays under."""
    agent: Agent
    weights: PolicyWeights

    def env(self, split: str) -> TextEnv:
        """Make the environment of its settings over one split."""
        return make_env(self.config, split)

    def play(self, env: TextEnv, task_id: str, seed: int = 0) -> Episode:
        """Play one episode.

        Args:
            env: where; it is not touched itself.
            task_id: a task of its panel.
            seed: of the environment and of the sampling.
        """
        (episode,), _ = collect(env, [Assignment(task_id, seed, seed)], self.agent, slots=1)
        return episode
