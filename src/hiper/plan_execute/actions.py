"""The wording of actions for a model, and the way back from its words to the environment's actions.

Not every model can write actions as the environment does. A word-level tokenizer cannot write brackets without spaces,
and a name such as "B09R7H66FC" tells a small model nothing. So a template may give actions a wording of its own.

An action in that wording means the admissible action with the same wording. If there is none, the rules for free-form
actions apply. If no rule fits, the action is taken as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from string import Formatter
from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from hiper.validation import StrictModel


def _check_regex(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


Regex = Annotated[str, AfterValidator(_check_regex)]
"""A regular expression of Python's :mod:`re`."""


def placeholders(text: str) -> set[str]:
    """The names in braces in a text."""
    return {field for _, field, _, _ in Formatter().parse(text) if field is not None}


def braced(names: Iterable[str]) -> str:
    """The names with braces around them, sorted, for messages."""
    return ", ".join(f"{{{name}}}" for name in sorted(names))


class Substitution(StrictModel):
    """One substitution, as :func:`re.sub` makes it."""

    find: Regex
    """What to replace."""
    put: str = ""
    """What to put in its place. It may refer to groups of ``find``."""

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        try:
            re.sub(self.find, self.put, "")  # checks `put` even if nothing matches
        except (re.error, IndexError) as error:
            raise ValueError(f"put: {error}") from error
        return self


class Alias(StrictModel):
    """A substitute for names in observations. Names are numbered in the order in which they appear."""

    find: Regex
    """A regular expression for the names in the environment's observation."""
    show: str
    """What is shown instead, with a place for ``{n}``, which is counted from one in each observation."""
    action: str
    """The action that the alias means, with a place for ``{name}``. Upper and lower case are equal."""

    @model_validator(mode="after")
    def _check_placeholders(self) -> Self:
        for text, expected in ((self.show, "n"), (self.action, "name")):
            if placeholders(text) != {expected}:
                raise ValueError(f"'{text}' should have a place for {braced([expected])}, and for nothing else")
        return self


class ActionStyle(StrictModel):
    """The wording of actions."""

    aliases: tuple[Alias, ...] = ()
    """Substitutes for names."""
    word: tuple[Substitution, ...] = ()
    """Substitutions that word an action without an alias."""
    free: tuple[Substitution, ...] = ()
    """Rules that turn a model's words into a free-form action. The first rule that matches all of them applies."""


class ActionWords:
    """Words actions and understands them. It has no state except caches.

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
        self._aliases_in = lru_cache(maxsize=1 << 10)(self._find_aliases)

    def hide_names(self, observation: str) -> str:
        """Replace names in an observation by their aliases."""
        for pattern, alias in self._aliases:
            shown = self._aliases_in(observation)

            def alias_of(match: re.Match[str], alias: Alias = alias, shown: Mapping[str, str] = shown) -> str:
                return shown[alias.action.format(name=match[0]).casefold()]

            observation = pattern.sub(alias_of, observation)
        return observation

    def say(self, action: str, observation: str) -> str:
        """The wording of an action on ``observation``."""
        alias = self._aliases_in(observation).get(action.casefold()) if self._aliases else None
        if alias is not None:
            return alias
        for pattern, put in self._word:
            action = pattern.sub(put, action)
        return action

    def understand(self, said: str, observation: str, admissible: Iterable[str] | None) -> str:
        """The action that ``said`` means on ``observation``. White space does not matter for admissible actions."""
        if not (self._aliases or self._word or self._free):
            return said
        key = _without_spaces(said)
        for action in admissible or ():
            if _without_spaces(self.say(action, observation)) == key:
                return action
        for pattern, put in self._free:
            if match := pattern.fullmatch(said):
                return match.expand(put)
        return said

    def _find_aliases(self, observation: str) -> dict[str, str]:
        """The alias of each action that has one, by the action in lower case."""
        shown: dict[str, str] = {}
        for pattern, alias in self._aliases:
            names = dict.fromkeys(match[0] for match in pattern.finditer(observation))
            shown |= {
                alias.action.format(name=name).casefold(): alias.show.format(n=n) for n, name in enumerate(names, 1)
            }
        return shown


def _without_spaces(text: str) -> str:
    return "".join(text.split())
