"""Saved policies, which play under their own saved settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiper.config import Config, apply_overrides, given_keys, validate_config
from hiper.envs.base import TextEnv
from hiper.episode import Episode
from hiper.errors import UserError
from hiper.files import user_path
from hiper.models.build import use_threads
from hiper.models.weights import PolicyWeights
from hiper.plan_execute.render import Template
from hiper.plan_execute.templates import own_template
from hiper.plan_execute.tokenizer import load_tokenizer
from hiper.rollout.agent import Agent
from hiper.rollout.collector import collect
from hiper.rollout.environment import make_env
from hiper.rollout.players import Assignment
from hiper.rollout.samplers import Workplace
from hiper.rollout.setup import check_room, check_words, make_agent, make_prompts
from hiper.runs.policies import PolicyFolder, find_policy

TO_TRAIN = (
    *("advantages", "shaping", "warm_start", "learner", "alarms"),
    *("env.train_split", "env.train_tasks", "model.path", "model.nano", "model.critic", "model.gradient_checkpointing"),
    *("rollout.episodes", "rollout.group_size", "rollout.dynamic_sampling", "rollout.temperature"),
    *("evaluation.every", "evaluation.tasks", "evaluation.final_tasks", "evaluation.splits_if_present"),
    *("training.iterations", "training.checkpoint_every", "training.keep_checkpoints", "training.trackers"),
)
"""The settings and sections that matter in training alone."""
TO_PLAY = ("name", "seed", "env", "prompt", "model", "rollout", "sampler", "evaluation", "training")
"""The sections of the settings that playing needs. Training settings are ignored, because recipes change."""


@dataclass(frozen=True)
class SavedPolicy:
    """A model and the settings it plays under."""

    path: Path | str
    """The policy directory; of a plain model its directory or its name on the hub."""
    config: Config

    @classmethod
    def open(cls, given: str | Path, env: str | None = None, overrides: Sequence[str] = ()) -> SavedPolicy:
        """Find a policy and its settings, or a plain model, which plays under the defaults of all settings.

        Args:
            given: A run (its newest checkpoint), a checkpoint, a policy directory, or a plain model: a directory or a
                name on the hub.
            env: The name of the environment. None: that of the policy's training. The saved options of another
                environment do not apply.
            overrides: The ``dotted.key=value`` settings that replace saved ones, or the defaults.

        Raises:
            UserError: There is no policy or model, or a setting is wrong.
        """
        folder = find_policy(given, env)
        if folder is None:
            assert env is not None
            path: Path | str = user_path(given) if user_path(given).is_dir() else str(given)
            template = own_template(env, Config().prompt.template)
            tree: dict[str, Any] = {
                "name": Path(given).name,
                "env": {"name": env},
                "model": {"path": str(path)},
                "prompt": {"template": template},
            }
            source = "settings"
        else:
            path, source = folder.path, str(folder.settings_file)
            tree = {key: value for key, value in folder.settings_tree().items() if key in TO_PLAY}
            if env is not None and env != tree.get("env", {}).get("name"):
                tree["env"] = {"name": env}
            if own := folder.template:
                tree["prompt"] = {**tree.get("prompt", {}), "template": str(own)}
        config = validate_config(tree, source)
        if not overrides:
            return cls(path, config)
        config = validate_config(apply_overrides(tree, overrides), "settings")
        for key in given_keys(overrides):
            if any(key == name or key.startswith(f"{name}.") for name in TO_TRAIN):
                raise UserError(f"{key} has no effect here: a policy that is trained already only plays; leave it out")
        return cls(path, config)

    def env(self, split: str) -> TextEnv:
        """Make the environment of the settings over one split."""
        return make_env(self.config, split)

    def load(
        self,
        temperature: float | None = None,
        workplace: Workplace = Workplace(),  # noqa: B008 - it is frozen
    ) -> LoadedPolicy:
        """Load the weights and make an agent.

        Args:
            temperature: The sampling temperature. None: the temperature of evaluations during training.
            workplace: The workplace of a sampler outside this process.

        Raises:
            UserError: The weights are damaged or do not fit their own config.
        """
        config = self.config
        if isinstance(self.path, Path):
            PolicyFolder(self.path).check()
        template = Template.load_for(config.env.name, config.prompt.template)
        use_threads(config.training.threads)
        weights = PolicyWeights.load(self.path, config.model, config.training.device)
        check_room(config, weights)
        tokenizer = load_tokenizer(self.path)
        check_words(weights, tokenizer)
        agent = make_agent(config, make_prompts(config, template, tokenizer), tokenizer, workplace)
        agent.sampler.load(weights, 0)
        agent = agent.at(config.evaluation.temperature if temperature is None else temperature)
        return LoadedPolicy(self.path, config, agent, weights)


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy that is ready to play."""

    path: Path | str
    """The policy directory; of a plain model its directory or its name on the hub."""
    config: Config
    """The settings that the policy plays under."""
    agent: Agent
    """The agent, at the temperature given to :meth:`SavedPolicy.load`."""
    weights: PolicyWeights
    """The weights that the agent's sampler holds."""

    def env(self, split: str) -> TextEnv:
        """Make the environment of its settings over one split."""
        return make_env(self.config, split)

    def play(self, env: TextEnv, task_id: str, seed: int = 0) -> Episode:
        """Play one episode.

        Args:
            env: The environment. The episode runs in a spawn of it; ``env`` itself does not change.
            task_id: A task of the environment's panel.
            seed: The seed of the environment and of the sampling.
        """
        (episode,), _ = collect(env, [Assignment(task_id, seed, seed)], self.agent, slots=1)
        return episode

    def close(self) -> None:
        """Release the sampler, and an engine that it started."""
        self.agent.sampler.close()
