"""Demonstrations: an environment's expert at play, with lapses on purpose so that recovery is shown too.

A learner that has only seen flawless play does not know what to do after its first mistake. So at some turns
something else is played than the expert would: it strays, slips, or follows a subgoal that no longer fits. Such a
turn is nothing to imitate; the expert's decisions afterwards are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hiper.config import LAPSES, Lapse
from hiper.envs.base import BLANK, Decision, Expert, Info, Observation, TextEnv
from hiper.errors import UserError
from hiper.plan_execute.render import PromptContext


@dataclass(frozen=True, slots=True)
class DemonstrationTurn:
    """One turn: what the agent knew, and what was decided."""

    context: PromptContext
    """Its history reaches back to the first turn; a prompt shows a window of it."""
    decision: Decision
    """What was played."""
    target: bool
    """Whether it is to be imitated: it was the expert's decision, not a lapse."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A whole episode."""

    task_id: str
    seed: int
    turns: tuple[DemonstrationTurn, ...]
    info: Info
    """How it ended."""


@runtime_checkable
class Fallible(Protocol):
    """An expert that knows how one gets its environment wrong."""

    def slip(self, observation: Observation, rng: random.Random) -> Decision | None:
        """A mistake that a learner is likely to make now, or None. Nothing is remembered of it."""


def demonstrate(
    env: TextEnv,
    task_id: str,
    seed: int = 0,
    *,
    perturb: float = 0.0,
    expert: Expert | None = None,
    lapses: Sequence[Lapse] = LAPSES,
) -> Demonstration:
    """Let the expert play one episode, with a lapse in each turn with probability ``perturb``.

    A lapse is, with equal chances where it is possible: a random other admissible action under the right subgoal
    (straying); the expert's own idea of a likely mistake (see :class:`Fallible`); or the right action under a
    subgoal of earlier in the episode (a missed or a false switch).

    Equal arguments give equal episodes. ``switch`` of every decision is stated relative to the subgoal that was in
    force, which after a lapse need not be the one the expert believed in.

    Args:
        env: the environment; an episode that is running in it is lost.
        task_id: which task of its panel.
        seed: for the environment and for the lapses.
        perturb: probability of a lapse per turn.
        expert: who plays; default: the environment's own.
        lapses: the kinds that happen.

    Raises:
        UserError: the environment has no expert, or ``perturb`` is no probability.
    """
    if not 0.0 <= perturb <= 1.0:
        raise UserError(f"perturb is a probability, between 0 and 1; got {perturb}")
    expert = expert or env.expert()
    if expert is None:
        raise UserError(f"environment '{env.name}' has no expert, so it has no demonstrations")
    rng = random.Random(f"{task_id}/{seed}")
    start = env.reset(task_id, seed)
    expert.reset(start)

    observation = start.observation
    history: tuple[tuple[str, str], ...] = ()
    subgoals: list[str] = []
    turns: list[DemonstrationTurn] = []
    while True:
        subgoal = subgoals[-1] if subgoals else None
        context = PromptContext(start.goal, history, observation.text, subgoal, observation.admissible, len(turns))
        decision, target = expert.act(observation), True
        if rng.random() < perturb:
            lapse = _lapse(lapses, expert, decision, observation, subgoals, env.hidden_actions, rng)
            decision, target = lapse or decision, lapse is None
        decision = Decision(decision.subgoal != subgoal, decision.subgoal, decision.action)
        turns.append(DemonstrationTurn(context, decision, target))

        step = env.step(decision.action)
        expert.acted(decision.action, step.observation)
        history += ((observation.text, decision.action),)
        subgoals.append(decision.subgoal)
        observation = step.observation
        if step.terminated or step.truncated:
            return Demonstration(task_id, seed, tuple(turns), step.info)


def _lapse(
    lapses: Sequence[Lapse],
    expert: Expert,
    decision: Decision,
    observation: Observation,
    subgoals: Sequence[str],
    hidden: Collection[str],
    rng: random.Random,
) -> Decision | None:
    """Something else than ``decision``, of a kind drawn among those that are possible; None where none is."""

    def stray() -> Decision | None:
        listed = (a for a in observation.admissible or () if a not in hidden and not BLANK.search(a))
        others = [a for a in listed if a != decision.action]
        return Decision(False, decision.subgoal, rng.choice(others)) if others else None

    def slip() -> Decision | None:
        return expert.slip(observation, rng) if isinstance(expert, Fallible) else None

    def follow_stale_subgoal() -> Decision | None:
        stale = sorted(set(subgoals) - {decision.subgoal})
        return Decision(False, rng.choice(stale), decision.action) if stale else None

    by_name: dict[Lapse, Callable[[], Decision | None]] = {
        "stray": stray,
        "slip": slip,
        "stale-subgoal": follow_stale_subgoal,
    }
    kinds = [by_name[name] for name in lapses]
    rng.shuffle(kinds)
    return next((lapse for kind in kinds if (lapse := kind()) is not None), None)
