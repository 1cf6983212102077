"""The interface of players: language models, experts and people. One loop, :mod:`.collector`, plays them all."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from hiper.envs.base import Decision, Observation, Start, TextEnv
from hiper.plan_execute.parse import InvalidKind, response_text
from hiper.plan_execute.render import PromptContext

Accepts = Callable[[str], bool]
"""A function that returns whether the environment would understand an action now."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """An episode to be played."""

    task_id: str
    seed: int
    """The seed of the environment. The episodes of a group share it."""
    sampling_seed: int
    """The seed of the player's choices. The sampling at a turn depends on it and on the turn's number."""


@dataclass(frozen=True, slots=True)
class Move:
    """A player's action in a turn, with the plan and the response behind it."""

    action: str
    """The action that is sent to the environment."""
    subgoal: str | None
    """The subgoal from this turn on. None: no subgoal was ever stated."""
    switch: bool
    """Whether the player decided SWITCH."""
    boundary: bool
    """Whether a segment begins at this turn."""
    text: str
    """The response that states the move."""
    invalid: str | None = None
    """The reason why the response is invalid (:class:`~hiper.plan_execute.parse.InvalidKind`). None: it is valid."""
    copy_differs: bool = False
    """Whether the player decided KEEP but stated a subgoal that differs from the previous one."""
    lapse: bool = False
    """Whether a demonstrator erred on purpose. Such a move is not imitated."""
    thinking: int = 0
    """The number of characters at the beginning of ``text`` that were set aside as thinking."""
    prompt_ids: tuple[int, ...] = ()
    """The tokens that a model read. Empty for other players."""
    prompt_cut: bool = False
    """Whether the prompt was too long and was shortened."""
    response_ids: tuple[int, ...] = ()
    """The tokens that a model sampled. Empty for other players."""
    logprobs: tuple[float, ...] = ()
    """The sampler's log-probability of each response token."""
    kinds: tuple[int, ...] = ()
    """The kind of each response token (:class:`~hiper.advantages.types.TokenKind`)."""
    low_index: int | None = None
    """The index of the response token where V_low is read. None: V_low is read before the first token."""
    version: int | None = None
    """The version of the weights that sampled the response. None: unknown."""

    @property
    def format_valid(self) -> bool:
        """Whether the response has the required form, even if the environment would refuse its action."""
        return self.invalid in (None, InvalidKind.INADMISSIBLE_ACTION)

    @classmethod
    def of(cls, decision: Decision, context: PromptContext, accepts: Accepts, *, lapse: bool = False) -> Move:
        """Make the move of a player that decides without a language model."""
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
    """A player of one episode.

    A turn has two halves, so many episodes can wait for answers at once. :meth:`ask` requests an answer, and
    :meth:`decide` receives it.
    """

    def begin(self, start: Start) -> None:
        """Read the task."""

    def ask(self, context: PromptContext) -> Future[Any]:
        """Request an answer. Players that need none return :func:`answered`."""

    def decide(self, context: PromptContext, accepts: Accepts, answer: Any) -> Move:
        """Choose a move, given the answer to :meth:`ask`.

        Args:
            context: The state before the turn.
            accepts: Whether the environment would understand an action.
            answer: The result of the future that :meth:`ask` returned.

        Raises:
            EOFError: The player quits.
        """

    def saw(self, action: str, observation: Observation) -> None:
        """Receive the outcome of a move: ``action`` was played, and ``observation`` came back."""


class Players(Protocol):
    """A source of players, one for each episode."""

    def seat(self, env: TextEnv, assignment: Assignment) -> Player:
        """Make the player of one episode in ``env``."""

    def run(self) -> None:
        """Work on the players' requests, if that needs the caller's thread (:meth:`Sampler.run`)."""


def answered() -> Future[Any]:
    """Return a future that already holds the result None."""
    future: Future[Any] = Future()
    future.set_result(None)
    return future
