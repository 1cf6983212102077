"""What an environment is: text in, text out, with terminated and truncated kept apart.

One :class:`TextEnv` object plays one episode at a time. :meth:`TextEnv.spawn` gives further, independent
environments over the same tasks, so that thousands of episodes can run side by side in one process.
"""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

if TYPE_CHECKING:
    from hiper.envs.panels import Panel


BLANK = re.compile(r"<[^<>]+>")
"""In a listed action: words of the agent's own, as in "search[<your query>]"."""


class EndReason(StrEnum):
    """Why an episode ended."""

    WON = "won"
    LOST = "lost"  # the environment ended without success
    TURN_LIMIT = "turn_limit"  # time ran out: a truncation, not a failure


@dataclass(frozen=True, slots=True)
class Observation:
    """What the agent sees before a turn."""

    text: str
    admissible: tuple[str, ...] | None = None
    """Every action that would be understood now, in the environment's own order; None where actions are free-form.

    A :data:`BLANK` in one stands for words of the agent's own.
    """


@dataclass(frozen=True, slots=True)
class Info:
    """What the agent does not see: outcome and bookkeeping."""

    won: bool = False
    end: EndReason | None = None
    score: float | None = None
    """Graded outcome in [0, 1] where the environment has one (WebShop), else None."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """What the score is made of, by name; empty where it has no parts, or none yet."""


_OUTCOMES = {end: Info(won=end is EndReason.WON, end=end) for end in (None, *EndReason)}


@dataclass(frozen=True, slots=True)
class Start:
    """What :meth:`TextEnv.reset` returns."""

    goal: str
    """The task in words, as the agent is told it."""
    observation: Observation


@dataclass(frozen=True, slots=True)
class Step:
    """What :meth:`TextEnv.step` returns."""

    observation: Observation
    reward: float
    terminated: bool
    """The environment ended: there is no future value."""
    truncated: bool
    """Time ran out: the episode stops here, but its future is not worth zero by definition."""
    info: Info

    @classmethod
    def sparse(cls, observation: Observation, end: EndReason | None, reward: float = 1.0) -> Step:
        """What follows from how the episode has ended (None: it goes on): ``reward`` for success, else nothing."""
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
    """True: the subgoal is replaced (SWITCH). False: the previous one is followed on (KEEP)."""
    subgoal: str
    """The subgoal followed from now on; a copy of the previous one when kept."""
    action: str


class Expert(Protocol):
    """A scripted player that sees what an agent sees, and nothing more."""

    def reset(self, start: Start) -> None:
        """Forget the last episode and read the new task."""

    def act(self, observation: Observation) -> Decision:
        """Decide on the next turn.

        It must cope with a world that did not follow its last decision: demonstrations replace some of its
        actions by others to show recovery, telling it so through :meth:`acted`.
        """

    def acted(self, action: str, observation: Observation) -> None:
        """``action`` (its own or another) was played and ``observation`` came back."""


class TextEnv(ABC):
    """An environment over a panel of tasks. Subclass it, set the attributes, write two methods.

    State of the running episode must be assigned afresh in :meth:`reset` (not mutated in place), because the
    default :meth:`spawn` is a shallow copy. :func:`hiper.envs.check_env` tests this and the rest of the contract.
    """

    name: ClassVar[str]
    """Registry name, stamped into results."""
    version: ClassVar[str]
    """Changes whenever the same actions could give other observations or rewards; stamped into results."""
    panel: Panel
    """The tasks this environment can play."""
    max_turns: int
    """After this many turns an unfinished episode is truncated."""
    options: Mapping[str, Any] = MappingProxyType({})
    """What :func:`hiper.envs.make` was asked for besides the name; stamped into results."""

    @property
    def official(self) -> bool | None:
        """Whether :attr:`panel` is exactly the official one of its name; None where there is no such panel."""
        return None

    @abstractmethod
    def reset(self, task_id: str, seed: int = 0) -> Start:
        """Begin an episode of the task ``task_id`` (an id of :attr:`panel`).

        Raises:
            UserError: the id is not in the panel.
        """

    @abstractmethod
    def step(self, action: str) -> Step:
        """Play one turn. Any string is allowed: one the environment does not understand costs a turn.

        Raises:
            RuntimeError: the episode is over or was never begun.
        """

    def accepts(self, action: str, observation: Observation) -> bool:
        """Whether ``action`` is one the environment would understand after ``observation``, its blanks filled in."""
        listed = observation.admissible
        if listed is None:
            return True
        if action in listed:
            return BLANK.search(action) is None
        return any(_form(form).fullmatch(action) for form in listed if BLANK.search(form))

    def spawn(self) -> Self:
        """A further, independent environment over the same tasks, sharing all that is read-only."""
        return copy.copy(self)

    def expert(self) -> Expert | None:
        """A rule-based player without privileged information, or None where there is none."""
        return None


@lru_cache(1 << 10)
def _form(listed: str) -> re.Pattern[str]:
    """A listed action with any words in its blanks."""
    return re.compile(".+".join(map(re.escape, BLANK.split(listed))))
