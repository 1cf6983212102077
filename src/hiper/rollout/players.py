"""Whoever plays an episode: a language model, an expert, a person. All play through one loop, :mod:`.collector`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from hiper.envs.base import Decision, Observation, Start, TextEnv
from hiper.plan_execute.parse import InvalidKind, response_text
from hiper.plan_execute.render import PromptContext

Accepts = Callable[[str], bool]
"""Whether the environment would understand an action now."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """An episode to be played."""

    task_id: str
    seed: int
    """Of the environment; episodes of a group have it in common."""
    sampling_seed: int
    """Of the player's choices: what is sampled at a turn depends on this and on the turn's number."""


@dataclass(frozen=True, slots=True)
class Move:
    """What a player does in a turn, and how it came to it."""

    action: str
    """What is sent to the environment."""
    subgoal: str | None
    """The subgoal followed from this turn on; None where none was ever stated."""
    switch: bool
    """SWITCH was said."""
    boundary: bool
    """A segment begins here."""
    text: str
    """The response that states the move."""
    invalid: str | None = None
    """Why the response is invalid (:class:`~hiper.plan_execute.parse.InvalidKind`)."""
    copy_differs: bool = False
    """KEEP was said, but the subgoal stated is not a copy of the previous one."""
    lapse: bool = False
    """A demonstrator's mistake on purpose, which is not to be imitated."""
    prompt_ids: tuple[int, ...] = ()
    """The tokens that a model read; empty for other players."""
    prompt_cut: bool = False
    """The prompt was longer than allowed and was shortened."""
    response_ids: tuple[int, ...] = ()
    """The tokens that a model sampled; those below belong to them."""
    logprobs: tuple[float, ...] = ()
    kinds: tuple[int, ...] = ()
    low_index: int | None = None
    version: int | None = None
    """The version of the weights that sampled them."""

    @classmethod
    def of(cls, decision: Decision, context: PromptContext, accepts: Accepts, *, lapse: bool = False) -> Move:
        """The move of a player who decides without a language model."""
        switch = decision.subgoal != (context.subgoal or "")
        return cls(
            action=decision.action,
            subgoal=decision.subgoal or None,
            switch=switch,
            boundary=switch,
            text=response_text(Decision(switch, decision.subgoal, decision.action)),
            invalid=None if accepts(decision.action) else InvalidKind.INADMISSIBLE_ACTION,
            lapse=lapse,
        )


class Player(Protocol):
    """Plays one episode.

    A turn has two halves, so that many episodes can wait for their answers at once: :meth:`ask` begins to decide, and
    :meth:`decide` is called with the answer.
    """

    def begin(self, start: Start) -> None:
        """Read the task."""

    def ask(self, context: PromptContext) -> Future[Any]:
        """Begin to decide; :func:`answered` for players who need nothing from elsewhere."""

    def decide(self, context: PromptContext, accepts: Accepts, answer: Any) -> Move:
        """Choose what to do, given what :meth:`ask` was answered.

        Raises:
            EOFError: the player leaves.
        """

    def saw(self, action: str, observation: Observation) -> None:
        """Learn what came of a move. ``action`` was played, and ``observation`` came back."""


class Players(Protocol):
    """Gives each episode its player."""

    def seat(self, env: TextEnv, assignment: Assignment) -> Player:
        """Make the player of one episode, which will be played in ``env``."""

    def run(self) -> None:
        """Work on what players asked for, where that needs the caller's thread (:meth:`Sampler.run`)."""


def answered() -> Future[Any]:
    """A future that is fulfilled already, with None."""
    future: Future[Any] = Future()
    future.set_result(None)
    return future
