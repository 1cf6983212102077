"""How actions are worded for a model, and what it means by its words.

An environment's own way of writing actions need not be one that every model can speak: a word-level tokenizer knows
no brackets without spaces, and a name such as "B09R7H66FC" tells a small model nothing. A template may therefore give
actions a wording of its own. What is said in that wording means the admissible action that is worded so; what is
worded like no admissible action is read by the rules for free-form actions, or else taken as it is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from string import Formatter
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator


def _regex(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


Regex = Annotated[str, AfterValidator(_regex)]


class Data(BaseModel):
    """A part of a template file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def placeholders(text: str) -> set[str]:
    """The names in braces."""
    return {field for _, field, _, _ in Formatter().parse(text) if field is not None}


def braced(names: Iterable[str]) -> str:
    """Names in braces, sorted, for messages."""
    return ", ".join(f"{{{name}}}" for name in sorted(names))


class Substitution(Data):
    """One substitution, as of :func:`re.sub`."""

    find: Regex
    put: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            re.sub(self.find, self.put, "")  # reads `put`, whether anything matches or not
        except (re.error, IndexError) as error:
            raise ValueError(f"put: {error}") from error
        return self


class Alias(Data):
    """A stand-in for names in observations, numbered in the order in which they appear."""

    find: Regex
    """The names, in an observation as the environment gives it."""
    show: str
    """What is shown instead, with a place for ``{n}``, counted from one in each observation."""
    action: str
    """The action that a stand-in means, with a place for ``{name}``; capitals do not matter."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for text, expected in ((self.show, "n"), (self.action, "name")):
            if placeholders(text) != {expected}:
                raise ValueError(f"'{text}' should have a place for {braced([expected])}, and for nothing else")
        return self


class ActionStyle(Data):
    """The wording of actions."""

    aliases: tuple[Alias, ...] = ()
    word: tuple[Substitution, ...] = ()
    """What is done to an action without an alias to word it."""
    free: tuple[Substitution, ...] = ()
    """What makes free-form actions of the words of a model, each matched as a whole; the first that fits."""


class ActionWords:
    """Words actions, and understands them. Pure: nothing is remembered but to save time.

    >>> style = ActionStyle(word=({"find": r"open\\((.+)\\)", "put": r"open \\1"},))
    >>> ActionWords(style).say("open(door)", "A door.")
    'open door'
    >>> ActionWords(style).understand("open door", "A door.", ["open(door)", "wait"])
    'open(door)'
    """

    def __init__(self, style: ActionStyle) -> None:
        self._aliases = [(re.compile(alias.find), alias) for alias in style.aliases]
        self._word = [(re.compile(rule.find), rule.put) for rule in style.word]
        self._free = [(re.compile(rule.find), rule.put) for rule in style.free]
        self._named = lru_cache(maxsize=1 << 10)(self._find_aliases)

    def hide_names(self, observation: str) -> str:
        """The observation with aliases in place of names."""
        for pattern, alias in self._aliases:
            shown = self._named(observation)

            def stand_in(match: re.Match[str], alias: Alias = alias, shown: Mapping[str, str] = shown) -> str:
                return shown[alias.action.format(name=match[0]).casefold()]

            observation = pattern.sub(stand_in, observation)
        return observation

    def say(self, action: str, observation: str) -> str:
        """The action in words, where it is played on ``observation``."""
        alias = self._named(observation).get(action.casefold()) if self._aliases else None
        if alias is not None:
            return alias
        for pattern, put in self._word:
            action = pattern.sub(put, action)
        return action

    def understand(self, said: str, observation: str, admissible: Iterable[str] | None) -> str:
        """The action that is meant. White space counts for nothing where an admissible action is named."""
        if not (self._aliases or self._word or self._free):
            return said
        key = _squeezed(said)
        for action in admissible or ():
            if _squeezed(self.say(action, observation)) == key:
                return action
        for pattern, put in self._free:
            if match := pattern.fullmatch(said):
                return match.expand(put)
        return said

    def _find_aliases(self, observation: str) -> dict[str, str]:
        """The alias of each action that has one, the action in lower case."""
        shown: dict[str, str] = {}
        for pattern, alias in self._aliases:
            names = dict.fromkeys(match[0] for match in pattern.finditer(observation))
            shown |= {
                alias.action.format(name=name).casefold(): alias.show.format(n=n) for n, name in enumerate(names, 1)
            }
        return shown


def _squeezed(text: str) -> str:
    return "".join(text.split())
