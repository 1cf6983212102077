"""Evaluation of an agent on a panel, and the result card that makes the number reproducible."""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

from hiper import __version__
from hiper.envs.base import TextEnv
from hiper.envs.panels import Panel
from hiper.episode import Episode
from hiper.outcomes import Outcome, summarize
from hiper.processes import ALONE, Processes
from hiper.rollout.agent import Agent
from hiper.rollout.collector import collect
from hiper.rollout.players import Assignment
from hiper.runs.cards import Card, CardEnvironment, CardPanel, CardSampling
from hiper.seeding import derive_seed


@dataclass(frozen=True)
class Evaluation:
    """The results of playing a panel once."""

    panel: Panel
    """The tasks that were played."""
    episodes: list[Episode]
    """One episode for each task, in the order of the panel."""
    outcomes: dict[str, Outcome]
    """The outcome of each task type, and of all tasks under "all"."""
    seconds: float
    """The wall time of playing."""

    @property
    def overall(self) -> Outcome:
        """The outcome over all task types."""
        return self.outcomes["all"]


def evaluate(
    env: TextEnv,
    agent: Agent,
    *,
    tasks: int | None = None,
    slots: int,
    seed: int,
    on_turn: Callable[[int], None] = lambda turns: None,
    on_episode: Callable[[Episode], None] = lambda episode: None,
    processes: Processes = ALONE,
) -> Evaluation:
    """Play every task of the environment's panel once.

    Args:
        env: The environment with the panel.
        agent: The agent that plays.
        tasks: The size of a fixed subset of tasks. None, or more than the panel has: all tasks.
        slots: The number of episodes that run at once.
        seed: The seed of sampling and of the environment.
        on_turn: A function called after each turn of any episode, with the number of turns this episode has had.
        on_episode: A function called with each finished episode.
        processes: The processes that play together; see :func:`collect`.
    """
    began = time.perf_counter()
    panel = panel_of(env, tasks)
    assignments = [
        Assignment(task.id, derive_seed(seed, task.id), derive_seed(seed, "sampling", task.id)) for task in panel
    ]
    episodes, _ = collect(
        env, assignments, agent, slots=slots, on_turn=on_turn, on_episode=on_episode, processes=processes
    )
    return Evaluation(panel, episodes, summarize(episodes), time.perf_counter() - began)


def panel_of(env: TextEnv, tasks: int | None) -> Panel:
    """Return the panel of an environment, or the fixed subset of ``tasks`` tasks if it has more."""
    return env.panel if tasks is None or tasks >= len(env.panel) else env.panel.subset(tasks)


def result_card(
    evaluation: Evaluation,
    env: TextEnv,
    agent: Agent,
    *,
    checkpoint: str,
    weights_sha256: str,
    seed: int,
    command: str,
) -> Card:
    """Make the card of an evaluation.

    Args:
        evaluation: The results of the evaluation.
        env: The environment.
        agent: The agent that played.
        checkpoint: The origin of the weights, in words.
        weights_sha256: The hash of the weights.
        seed: The seed of the evaluation.
        command: The command line.
    """
    panel = evaluation.panel
    return Card(
        hiper=__version__,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command,
        checkpoint=checkpoint,
        weights_sha256=weights_sha256,
        environment=CardEnvironment(
            name=env.name,
            version=env.version,
            max_turns=env.max_turns,
            options={name: value for name, value in env.options.items() if name != "split"},
        ),
        panel=CardPanel(
            name=panel.name,
            tasks=len(panel),
            sha256=panel.hash,
            official=env.official if panel.hash == env.panel.hash else None,
        ),
        template=agent.prompts.label,
        history_window=agent.prompts.history_window,
        prompt=agent.prompts.settings,
        sampling=CardSampling(
            agent.params.temperature, agent.params.max_tokens, "admissible" if agent.chooses else "anything"
        ),
        seed=seed,
        seconds=round(evaluation.seconds, 1),
        machine=f"{platform.machine()}, Python {platform.python_version()}",
        outcomes=evaluation.outcomes,
    )
