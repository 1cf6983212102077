"""The interface of environments: text in, text out, with terminated and truncated kept apart.

What comes out of an environment is checked by :func:`clean_start` and :func:`clean_step` before it is used.

One :class:`TextEnv` object plays one episode at a time. :meth:`TextEnv.spawn` gives further, independent
environments over the same tasks. Thousands of episodes can thus run side by side in one process.
"""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from traceback import extract_tb
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from hiper.envs.silence import timed_call
from hiper.errors import UserError

if TYPE_CHECKING:
    from hiper.envs.panels import Panel


BLANK = re.compile(r"<[^<>]+>")
"""A blank in a listed action, to be filled with the agent's own words, as in "search[<your query>]"."""


MOST_TURNS = 10_000
"""The largest number of turns of an episode."""
LARGEST = 1e15
"""The largest reward. Sums and squares of larger ones exceed the numbers of training."""


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
            UnusableError: :meth:`_step` returned no Step.
        """
        if self.__turns_left <= 0:
            raise RuntimeError("the episode is over or was never begun: call reset first")
        # The count is written back only if the episode goes on. A step that raises therefore ends the episode.
        turns_left, self.__turns_left = self.__turns_left - 1, 0
        step = self._step(action)
        if not isinstance(step, Step):
            raise UnusableError(f"_step must return a Step, not {shown(step)}")
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

    def for_people(self, observation: Observation) -> Observation:
        """Return the current observation in words for a person: its text, and each admissible action in order."""
        return observation

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


# What comes out of an environment


class UnusableError(ValueError):
    """A value from an environment cannot be trained on or stored."""


@contextmanager
def naming(env: TextEnv, task_id: str | None, doing: str) -> Iterator[None]:
    """Turn an error inside an environment into one that names the environment, the task and the place in its code.

    A call that does not return is told too; see :mod:`hiper.envs.silence`.

    Raises:
        UserError: The original error is its cause. A UserError passes as it is.
    """

    def where() -> str:
        name = getattr(env, "name", type(env).__name__)
        return f"environment '{name}'" if task_id is None else f"environment '{name}', task '{task_id}'"

    try:
        with timed_call(lambda: f"{where()}: {doing}"):
            yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        place = extract_tb(error.__traceback__)[-1]
        problem = f"{doing} raised {shown(error)} ({place.filename}, line {place.lineno})"
        raise UserError(f"{where()}: {error if isinstance(error, UnusableError) else problem}") from error


def shown(value: object) -> str:
    """Show a value of an environment's in a message: its type, and as much of it as fits."""
    try:
        text = " ".join((str(value) if isinstance(value, BaseException) else repr(value)).split())
    except Exception:
        text = "it cannot be shown"
    return f"{type(value).__name__}: {text[:100]}{'...' if len(text) > 100 else ''}"


def clean_start(start: Start) -> Start:
    """Return the beginning of an episode with plain values, as they can be stored.

    Raises:
        UnusableError: a value is of another type than its field. The message says which.
    """
    if not isinstance(start, Start):
        raise UnusableError(f"_reset must return a Start, not {shown(start)}")
    return Start(_text("the goal of a Start", start.goal), clean_observation(start.observation))


def clean_step(step: Step) -> Step:
    """Return the outcome of a turn with plain values, as they can be trained on and stored.

    Scalars of numpy and torch become numbers of Python.

    Raises:
        UnusableError: a value is of another type than its field, a number is NaN, infinite or too large, or the end of
            the episode contradicts its reason. The message says which.
    """
    if not isinstance(step, Step):
        raise UnusableError(f"step must return a Step, not {shown(step)}")
    info = step.info
    if not isinstance(info, Info):
        raise UnusableError(f"'info' of a Step must be an Info, not {shown(info)}")
    if not (info.end is None or info.end in list(EndReason)):
        raise UnusableError(f"'end' of an Info must be None or an EndReason, not {shown(info.end)}")
    if not isinstance(info.parts, Mapping):
        raise UnusableError(f"'parts' of an Info must be a mapping, not {shown(info.parts)}")
    cleaned = Step(
        observation=clean_observation(step.observation),
        reward=_number("a reward", step.reward),
        terminated=_truth("'terminated' of a Step", step.terminated),
        truncated=_truth("'truncated' of a Step", step.truncated),
        info=Info(
            won=_truth("'won' of an Info", info.won),
            end=None if info.end is None else EndReason(info.end),
            score=None if info.score is None else _number("'score' of an Info", info.score),
            parts={_text("a part's name", k): _number(f"part {shown(k)}", v) for k, v in info.parts.items()},
        ),
    )
    if (cleaned.terminated or cleaned.truncated) != (cleaned.info.end is not None):
        raise UnusableError(f"info.end must be given exactly at the last turn, it is {shown(info.end)}")
    return cleaned


def clean_observation(observation: Observation) -> Observation:
    """Return an observation with plain values.

    Raises:
        UnusableError: a value is of another type than its field.
    """
    if not isinstance(observation, Observation):
        raise UnusableError(f"an Observation is needed, not {shown(observation)}")
    text, listed = _text("an observation's text", observation.text), observation.admissible
    if listed is None:
        return Observation(text)
    if not isinstance(listed, tuple | list):
        raise UnusableError(f"admissible actions must be a tuple (or None: free-form), not {shown(listed)}")
    return Observation(text, tuple(_text("an admissible action", action) for action in listed))


def _text(what: str, value: object) -> str:
    if type(value) is str:
        return value
    if not isinstance(value, str):
        raise UnusableError(f"{what} must be a str, not {shown(value)}")
    return str.__str__(value)


def _scalar(value: Any) -> Any:
    """The Python number in a scalar of numpy or torch; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _number(what: str, value: object) -> float:
    number = _scalar(value)
    if not isinstance(number, int | float):
        raise UnusableError(f"{what} must be a number, not {shown(value)}")
    if not -LARGEST <= number <= LARGEST:  # NaN is on neither side
        raise UnusableError(f"{what} must be a finite number of at most {LARGEST:g}, it is {shown(value)}")
    return float(number)


def _truth(what: str, value: object) -> bool:
    truth = _scalar(value)
    if not isinstance(truth, int) or truth not in (0, 1):
        raise UnusableError(f"{what} must be True or False, not {shown(value)}")
    return bool(truth)
