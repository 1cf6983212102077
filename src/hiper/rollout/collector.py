"""Playing a list of episodes in a fixed number of slots: a finished episode's slot starts the next at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hiper.envs.base import Start, Step, TextEnv
from hiper.episode import Episode, Turn
from hiper.plan_execute.render import PromptContext
from hiper.rollout.agent import Agent, Reply
from hiper.seeding import derive_seed


@dataclass(frozen=True, slots=True)
class Assignment:
    """An episode to be played."""

    task_id: str
    seed: int
    """Of the environment; episodes of a group have it in common."""
    sampling_seed: int
    """Of the episode's turns: what is sampled at a turn depends on this and on the turn's number."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds spent, for the share of time that metrics show."""

    environment: float
    generation: float
    """In the sampler."""
    prompts: float
    """Writing prompts and reading responses."""

    def __add__(self, other: Timing) -> Timing:
        return Timing(
            self.environment + other.environment, self.generation + other.generation, self.prompts + other.prompts
        )


class Running:
    """An episode under way in one slot."""

    def __init__(self, env: TextEnv, index: int, assignment: Assignment) -> None:
        self.env = env
        self.index = index
        self.assignment = assignment
        self.start: Start = env.reset(assignment.task_id, assignment.seed)
        self.observation = self.start.observation
        self.subgoal: str | None = None
        self.turns: list[Turn] = []
        self.last: Step | None = None

    def context(self, window: int) -> PromptContext:
        """What the agent knows now."""
        recent = self.turns[-window:] if window else []
        return PromptContext(
            goal=self.start.goal,
            history=[(turn.observation, turn.action) for turn in recent],
            observation=self.observation.text,
            subgoal=self.subgoal,
            admissible=self.observation.admissible,
            turn=len(self.turns),
        )

    def accepts(self, action: str) -> bool:
        """Whether the environment would understand ``action`` now."""
        return self.env.accepts(action, self.observation)

    def play(self, reply: Reply) -> bool:
        """Play one turn; whether the episode is over."""
        parsed, before = reply.parsed, self.observation
        step = self.env.step(parsed.action)
        self.turns.append(
            Turn(
                observation=before.text,
                admissible=before.admissible,
                prompt_ids=tuple(reply.prompt.ids),
                response_ids=reply.sample.ids,
                logprobs=reply.sample.logprobs,
                kinds=reply.kinds,
                low_index=reply.low_index,
                text=reply.text,
                switch=parsed.decision is not None and parsed.decision.switch,
                boundary=parsed.boundary or not self.turns,
                subgoal=parsed.subgoal or "",
                action=parsed.action,
                invalid=parsed.invalid,
                copy_differs=parsed.copy_differs,
                reward=step.reward,
                prompt_cut=not reply.prompt.complete,
            )
        )
        self.subgoal = parsed.subgoal
        self.observation = step.observation
        self.last = step
        return step.terminated or step.truncated

    def episode(self) -> Episode:
        """The record of the finished episode."""
        if self.last is None or self.last.info.end is None:
            raise RuntimeError(f"episode of {self.assignment.task_id} is not over")
        info = self.last.info
        return Episode(
            task_id=self.assignment.task_id,
            task_type=self.env.panel[self.assignment.task_id].type,
            seed=self.assignment.seed,
            goal=self.start.goal,
            turns=tuple(self.turns),
            terminated=self.last.terminated,
            truncated=self.last.truncated,
            won=info.won,
            end=self.last.info.end,
            score=float(info.won) if info.score is None else info.score,
            parts=dict(info.parts),
        )


def collect(
    env: TextEnv,
    assignments: Sequence[Assignment],
    agent: Agent,
    *,
    slots: int,
    on_episode: Callable[[Episode], None] = lambda episode: None,
) -> tuple[list[Episode], Timing]:
    """Play every assignment once; episodes come back in the order of the assignments.

    An episode depends on its assignment and the weights, not on ``slots`` or on the episodes beside it, but for the
    rounding of sums in batches of another shape.

    Args:
        env: its spawns play; it is not touched itself.
        assignments: what to play.
        agent: who plays.
        slots: how many episodes run side by side.
        on_episode: called as episodes end, for progress.
    """
    began = time.perf_counter()
    in_env, sampled_before = 0.0, agent.seconds
    waiting = iter(enumerate(assignments))
    finished: dict[int, Episode] = {}
    running: list[Running] = []
    window = agent.prompts.history_window
    while True:
        mark = time.perf_counter()
        while len(running) < slots and (following := next(waiting, None)):
            running.append(Running(env.spawn(), *following))
        in_env += time.perf_counter() - mark
        if not running:
            break
        replies = agent.reply(
            [episode.context(window) for episode in running],
            [episode.accepts for episode in running],
            [derive_seed(episode.assignment.sampling_seed, len(episode.turns)) for episode in running],
        )
        mark = time.perf_counter()
        over = [episode.play(reply) for episode, reply in zip(running, replies, strict=True)]
        in_env += time.perf_counter() - mark
        for episode in (episode for episode, ended in zip(running, over, strict=True) if ended):
            finished[episode.index] = episode.episode()
            on_episode(finished[episode.index])
        running = [episode for episode, ended in zip(running, over, strict=True) if not ended]
    in_generation = agent.seconds - sampled_before
    timing = Timing(in_env, in_generation, time.perf_counter() - began - in_env - in_generation)
    return [finished[index] for index in range(len(assignments))], timing
