"""Demonstrations by an environment's expert, with deliberate lapses that show how to recover.

A learner that has only seen flawless play does not know what to do after its first mistake. So some turns are lapses:
the expert strays, slips, or follows a subgoal that no longer fits. A lapse is marked (:attr:`Turn.lapse`) and not
imitated. The expert's later decisions are imitated.

A demonstration is an :class:`~hiper.episode.Episode` like any other. It can be stored, reported and compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Protocol, runtime_checkable

from hiper.config import LAPSES, Lapse
from hiper.envs.base import BLANK, Decision, Expert, Observation, Start, TextEnv, UnusableError, naming, shown
from hiper.episode import Episode
from hiper.errors import UserError
from hiper.plan_execute.render import PromptContext
from hiper.rollout.collector import collect
from hiper.rollout.players import Accepts, Assignment, Move, answered


@runtime_checkable
class Fallible(Protocol):
    """An expert that knows the likely mistakes in its environment."""

    def slip(self, observation: Observation, rng: random.Random) -> Decision | None:
        """Return a mistake that a learner is likely to make now, or None. The expert's state does not change."""


def demonstrate(
    env: TextEnv,
    task_id: str,
    seed: int = 0,
    *,
    perturb: float = 0.0,
    expert: Expert | None = None,
    lapses: Sequence[Lapse] = LAPSES,
) -> Episode:
    """Let the expert play one episode, with a lapse in each turn with probability ``perturb``.

    The possible kinds of lapse are equally probable:

    - stray: a random other admissible action under the right subgoal;
    - slip: a likely mistake that the expert names (see :class:`Fallible`);
    - stale-subgoal: the right action under an earlier subgoal, which is a missed or a false switch.

    Equal arguments give equal episodes. ``switch`` of a turn is relative to the subgoal of the turn before. After a
    lapse, the expert may have followed another subgoal.

    Args:
        env: The environment. The episode runs in a spawn of it; ``env`` itself does not change.
        task_id: A task of the environment's panel.
        seed: The seed of the environment and of the lapses.
        perturb: The probability of a lapse in each turn.
        expert: The expert. None: the environment's own.
        lapses: The kinds of lapse that may happen.

    Raises:
        UserError: The environment has no expert, or ``perturb`` is not a probability.
    """
    players = Experts(perturb, lapses, expert)
    (episode,), _ = collect(env, [Assignment(task_id, seed, seed)], players, slots=1)
    return episode


def checked_decision(decision: object) -> Decision:
    """Return an expert's decision if it is one.

    Raises:
        UnusableError: It is something else, or its subgoal or action is no text.
    """
    if not isinstance(decision, Decision):
        raise UnusableError(f"the expert's act must return a Decision, not {shown(decision)}")
    for said in (decision.subgoal, decision.action):
        if not isinstance(said, str):
            raise UnusableError(f"subgoal and action of a Decision must be a str, not {shown(said)}")
    return decision


class Experts:
    """A source of players that gives each episode the environment's expert; see :func:`demonstrate`."""

    def __init__(self, perturb: float = 0.0, lapses: Sequence[Lapse] = LAPSES, expert: Expert | None = None) -> None:
        if not 0.0 <= perturb <= 1.0:
            raise UserError(f"perturb is a probability, between 0 and 1; got {perturb}")
        self._perturb, self._lapses, self._expert = perturb, lapses, expert

    def seat(self, env: TextEnv, assignment: Assignment) -> ExpertPlayer:
        """Make the player of one episode.

        Raises:
            UserError: The environment has no expert.
        """
        naming_expert = partial(naming, env, assignment.task_id, "the expert")
        with naming_expert():
            expert = self._expert or env.expert()
        if expert is None:
            raise UserError(f"environment '{env.name}' has no expert, so it has no demonstrations")
        rng = random.Random(f"{assignment.task_id}/{assignment.sampling_seed}")
        return ExpertPlayer(expert, rng, self._perturb, self._lapses, env.hidden_actions, naming_expert)

    def run(self) -> None:
        """Do nothing, because experts answer at once."""


class ExpertPlayer:
    """An expert as the player of one episode.

    Args:
        expert: The expert that decides.
        rng: The generator of lapses.
        perturb: The probability of a lapse in each turn.
        lapses: The kinds of lapse that may happen.
        hidden: The actions that agents are not shown. Straying never chooses them.
        naming_expert: A context that names the environment and the task in errors of the expert.
    """

    def __init__(
        self,
        expert: Expert,
        rng: random.Random,
        perturb: float,
        lapses: Sequence[Lapse],
        hidden: Collection[str],
        naming_expert: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._expert, self._rng, self._perturb, self._naming = expert, rng, perturb, naming_expert
        self._lapses, self._hidden = lapses, hidden
        self._subgoals: list[str] = []

    def begin(self, start: Start) -> None:
        """Show the task to the expert."""
        with self._naming():
            self._expert.reset(start)

    def ask(self, context: PromptContext) -> Future[Any]:
        """Return a fulfilled future, because an expert waits for nothing."""
        return answered()

    def decide(self, context: PromptContext, accepts: Accepts, answer: Any) -> Move:
        """Return the expert's decision, or sometimes a lapse."""
        observation = Observation(context.observation, context.admissible)
        lapse = None
        with self._naming():
            decision = checked_decision(self._expert.act(observation))
            if self._rng.random() < self._perturb:
                lapse = self._lapse(decision, observation)
        decision = lapse or decision
        self._subgoals.append(decision.subgoal)
        return Move.of(decision, context, accepts, lapse=lapse is not None)

    def saw(self, action: str, observation: Observation) -> None:
        """Tell the expert the outcome."""
        with self._naming():
            self._expert.acted(action, observation)

    def _lapse(self, decision: Decision, observation: Observation) -> Decision | None:
        """Return a lapse in place of ``decision``, of a random possible kind; None if no kind is possible."""

        def stray() -> Decision | None:
            listed = (a for a in observation.admissible or () if a not in self._hidden and not BLANK.search(a))
            others = [a for a in listed if a != decision.action]
            return Decision(False, decision.subgoal, self._rng.choice(others)) if others else None

        def slip() -> Decision | None:
            return self._expert.slip(observation, self._rng) if isinstance(self._expert, Fallible) else None

        def follow_stale_subgoal() -> Decision | None:
            stale = sorted(set(self._subgoals) - {decision.subgoal})
            return Decision(False, self._rng.choice(stale), decision.action) if stale else None

        by_name: dict[Lapse, Callable[[], Decision | None]] = {
            "stray": stray,
            "slip": slip,
            "stale-subgoal": follow_stale_subgoal,
        }
        kinds = [by_name[name] for name in self._lapses]
        self._rng.shuffle(kinds)
        return next((lapse for kind in kinds if (lapse := kind()) is not None), None)
