"""The interface of environments: text in, text out, with terminated and truncated kept apart.

One :class:`TextEnv` object plays one episode at a time. :meth:`TextEnv.spawn` gives further, independent
environments over the same tasks. Thousands of episodes can thus run side by side in one process.
"""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

if TYPE_CHECKING:
    from hiper.envs.panels import Panel


BLANK = re.compile(r"<[^<>]+>")
"""A blank in a listed action, to be filled with the agent's own words, as in "search[<your query>]"."""


MOST_TURNS = 10_000
"""The largest number of turns that an environment that ships gives an episode."""


class EndReason(StrEnum):
    """Why an episode ended."""

    WON = "won"
    LOST = "lost"  # the environment ended without success
    TURN_LIMIT = "turn_limit"  # time ran out: a truncation, not a failure


@dataclass(frozen=True, slots=True)
class Observation:
    """The agent's view before a turn."""

    text: str
    admissible: tuple[str, ...] | None = None
    """Every action that would be understood now, in the environment's own order. None: actions are free-form.

    A :data:`BLANK` in an action stands for the agent's own words.
    """


@dataclass(frozen=True, slots=True)
class Info:
    """Outcome and bookkeeping, which the agent does not see."""

    won: bool = False
    end: EndReason | None = None
    score: float | None = None
    """Graded outcome in [0, 1] where the environment has one (WebShop), else None."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """The parts of the score, by name. Empty where there are none, or none yet."""


_OUTCOMES = {end: Info(won=end is EndReason.WON, end=end) for end in (None, *EndReason)}


@dataclass(frozen=True, slots=True)
class Start:
    """The beginning of an episode, returned by :meth:`TextEnv.reset`."""

    goal: str
    """The task in words, as the agent is told it."""
    observation: Observation


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of one turn, returned by :meth:`TextEnv.step`."""

    observation: Observation
    reward: float
    terminated: bool
    """The environment ended: there is no future value."""
    truncated: bool
    """Time ran out: the episode stops here, but its future is not worth zero by definition. The base class says so."""
    info: Info

    @classmethod
    def sparse(cls, observation: Observation, end: EndReason | None, reward: float = 1.0) -> Step:
        """Build a step that pays ``reward`` for success and nothing else.

        Args:
            observation: what the agent sees next.
            end: how the episode has ended; None: it goes on.
            reward: the reward of success.
        """
        return cls(
            observation=observation,
            reward=reward if end is EndReason.WON else 0.0,
            terminated=end is EndReason.WON or end is EndReason.LOST,
            truncated=end is EndReason.TURN_LIMIT,
            info=_OUTCOMES[end],
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """One turn's three decisions, in the order they are made."""

    switch: bool
    """True: the subgoal is replaced (SWITCH). False: the previous subgoal is kept (KEEP)."""
    subgoal: str
    """The subgoal followed from now on; a copy of the previous one when kept."""
    action: str


class Expert(Protocol):
    """A scripted player that sees what an agent sees, and nothing more."""

    def reset(self, start: Start) -> None:
        """Forget the last episode and read the new task."""

    def act(self, observation: Observation) -> Decision:
        """Decide on the next turn.

        The world need not have followed the last decision. Demonstrations replace some actions by others, to show
        how to recover. They report every action through :meth:`acted`.
        """

    def acted(self, action: str, observation: Observation) -> None:
        """Learn that ``action`` (its own or another) was played and that ``observation`` came back."""


class TextEnv(ABC):
    """An environment over a panel of tasks. Subclass it, set the attributes, write :meth:`_reset` and :meth:`_step`.

    The base class counts turns, truncates episodes at :attr:`max_turns` and refuses steps after the end. A subclass
    says only what the world does. :func:`hiper.envs.check_env` checks that it keeps the contract.

    The default :meth:`spawn` is a shallow copy. So :meth:`_reset` must assign the state of an episode afresh and not
    change it in place.

    An environment that holds a process, a connection or a file overrides :meth:`close`::

        with make("webshop") as env:
            env.reset(task_id)
    """

    name: ClassVar[str]
    """Registry name, stamped into results."""
    version: ClassVar[str]
    """Changes whenever the same actions could give other observations or rewards; stamped into results."""
    panel: Panel
    """The tasks this environment can play."""
    max_turns: int
    """The length, in turns, at which an unfinished episode is truncated."""
    options: Mapping[str, Any] = MappingProxyType({})
    """The options given to :func:`hiper.envs.make`, without the name; stamped into results."""
    concurrent: bool = False
    """Whether spawned environments may step side by side in threads. True pays off for slow or remote ones."""
    hidden_actions: tuple[str, ...] = ()
    """Listed actions that agents are not shown: templates name them in ``admissible.hide``. Demonstrations do not stray
    to them."""

    __turns_left: int = 0  # a mangled name: subclasses count turns of their own under names like this

    @property
    def official(self) -> bool | None:
        """Whether :attr:`panel` is exactly the official one of its name; None where there is no such panel."""
        return None

    def reset(self, task_id: str, seed: int = 0) -> Start:
        """Begin an episode of the task ``task_id`` (an id of :attr:`panel`). An episode that is running is dropped.

        Raises:
            UserError: the id is not in the panel. No episode is running then.
        """
        self.__turns_left = 0
        start = self._reset(task_id, seed)
        self.__turns_left = self.max_turns
        return start

    def step(self, action: str) -> Step:
        """Play one turn. Any string is allowed. An action that the environment does not understand costs a turn.

        Raises:
            RuntimeError: the episode is over, or :meth:`reset` was not called.
        """
        if self.__turns_left <= 0:
            raise RuntimeError("the episode is over or was never begun: call reset first")
        # The count is written back only if the episode goes on. A step that raises therefore ends the episode.
        turns_left, self.__turns_left = self.__turns_left - 1, 0
        step = self._step(action)
        if step.terminated or step.truncated:
            return step
        if turns_left == 0:
            return replace(step, truncated=True, info=replace(step.info, end=EndReason.TURN_LIMIT))
        self.__turns_left = turns_left
        return step

    @abstractmethod
    def _reset(self, task_id: str, seed: int) -> Start:
        """Set up an episode of the task ``task_id`` and return its beginning.

        Look the task up with ``self.panel[task_id]``, which raises :class:`~hiper.errors.UserError` for unknown ids.
        Equal ids and seeds must give equal episodes for equal actions.
        """

    @abstractmethod
    def _step(self, action: str) -> Step:
        """Play one turn of a running episode. Leave turns alone: the base class counts and truncates.

        Return a step that is terminated when the task is won or lost; :meth:`Step.sparse` builds one.
        """

    def accepts(self, action: str, observation: Observation) -> bool:
        """Whether the environment would understand ``action`` after ``observation``. Blanks must be filled in."""
        listed = observation.admissible
        if listed is None:
            return True
        if action in listed:
            return BLANK.search(action) is None
        return any(_form(form).fullmatch(action) for form in listed if BLANK.search(form))

    def spawn(self) -> Self:
        """Return a further, independent environment over the same tasks. It shares all that is read-only."""
        return copy.copy(self)

    def expert(self) -> Expert | None:
        """Return a rule-based player without privileged information, or None where there is none."""
        return None

    def close(self) -> None:  # noqa: B027 (most environments hold nothing)
        """Release what this environment holds, such as processes or connections. Others spawned from it stay open.

        Closing twice does no harm. The default does nothing.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@lru_cache(1 << 10)
def _form(listed: str) -> re.Pattern[str]:
    """A listed action with any words in its blanks."""
    return re.compile(".+".join(map(re.escape, BLANK.split(listed))))
