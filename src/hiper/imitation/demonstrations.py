"""Demonstrations: an environment's expert at play, with lapses on purpose so that recovery is shown too.

A learner that has only seen flawless play does not know what to do after its first mistake. So at some turns
something else is played than the expert would: it strays, slips, or follows a subgoal that no longer fits. Such a
turn is not imitated (:attr:`Turn.lapse`); the expert's decisions afterwards are.

A demonstration is an :class:`~hiper.episode.Episode` like any other. It can be stored, reported and compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, runtime_checkable

from hiper.config import LAPSES, Lapse
from hiper.envs.base import BLANK, Decision, Expert, Observation, Start, TextEnv
from hiper.episode import Episode
from hiper.errors import UserError
from hiper.plan_execute.render import PromptContext
from hiper.rollout.collector import collect
from hiper.rollout.players import Accepts, Assignment, Move, answered


@runtime_checkable
class Fallible(Protocol):
    """An expert that knows how one gets its environment wrong."""

    def slip(self, observation: Observation, rng: random.Random) -> Decision | None:
        """Return a mistake that a learner is likely to make now, or None. Nothing is remembered of it."""


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

    A lapse is, with equal chances where it is possible: a random other admissible action under the right subgoal
    (straying); the expert's own idea of a likely mistake (see :class:`Fallible`); or the right action under a
    subgoal of earlier in the episode (a missed or a false switch).

    Equal arguments give equal episodes. ``switch`` of every turn is stated relative to the subgoal that was in force.
    After a lapse that need not be the one the expert believed in.

    Args:
        env: the environment; it is not touched itself.
        task_id: which task of its panel.
        seed: for the environment and for the lapses.
        perturb: probability of a lapse per turn.
        expert: who plays; None: the environment's own.
        lapses: the kinds that happen.

    Raises:
        UserError: the environment has no expert, or ``perturb`` is no probability.
    """
    players = Experts(perturb, lapses, expert)
    (episode,), _ = collect(env, [Assignment(task_id, seed, seed)], players, slots=1)
    return episode


class Experts:
    """Gives each episode the environment's expert as its player; see :func:`demonstrate`."""

    def __init__(self, perturb: float = 0.0, lapses: Sequence[Lapse] = LAPSES, expert: Expert | None = None) -> None:
        if not 0.0 <= perturb <= 1.0:
            raise UserError(f"perturb is a probability, between 0 and 1; got {perturb}")
        self._perturb, self._lapses, self._expert = perturb, lapses, expert

    def seat(self, env: TextEnv, assignment: Assignment) -> ExpertPlayer:
        """Make the player of one episode.

        Raises:
            UserError: the environment has no expert.
        """
        expert = self._expert or env.expert()
        if expert is None:
            raise UserError(f"environment '{env.name}' has no expert, so it has no demonstrations")
        rng = random.Random(f"{assignment.task_id}/{assignment.sampling_seed}")
        return ExpertPlayer(expert, rng, self._perturb, self._lapses, env.hidden_actions)

    def run(self) -> None:
        """Do nothing: experts answer at once."""


class ExpertPlayer:
    """An expert at one episode.

    Args:
        expert: who decides.
        rng: draws lapses.
        perturb: probability of a lapse per turn.
        lapses: the kinds that happen.
        hidden: actions that agents are not shown; straying leaves them out.
    """

    def __init__(
        self, expert: Expert, rng: random.Random, perturb: float, lapses: Sequence[Lapse], hidden: Collection[str]
    ) -> None:
        self._expert, self._rng, self._perturb = expert, rng, perturb
        self._lapses, self._hidden = lapses, hidden
        self._subgoals: list[str] = []

    def begin(self, start: Start) -> None:
        """Read the task."""
        self._expert.reset(start)

    def ask(self, context: PromptContext) -> Future[Any]:
        """Need nothing from elsewhere."""
        return answered()

    def decide(self, context: PromptContext, accepts: Accepts, answer: Any) -> Move:
        """Ask the expert, and now and then do something else."""
        observation = Observation(context.observation, context.admissible)
        decision, lapse = self._expert.act(observation), None
        if self._rng.random() < self._perturb:
            lapse = self._lapse(decision, observation)
        decision = lapse or decision
        self._subgoals.append(decision.subgoal)
        return Move.of(decision, context, accepts, lapse=lapse is not None)

    def saw(self, action: str, observation: Observation) -> None:
        """Tell the expert."""
        self._expert.acted(action, observation)

    def _lapse(self, decision: Decision, observation: Observation) -> Decision | None:
        """Something else than ``decision``, of a kind drawn among those that are possible; None where none is."""

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
