"""The wording of actions for a model, and the way back from its words to the environment's actions.

Not every model can write actions as the environment does. A word-level tokenizer cannot write brackets without spaces,
and a name such as "B09R7H66FC" tells a small model nothing. So a template may give actions a wording of its own.

An action in that wording means the admissible action with the same wording. If there is none, the rules for free-form
actions apply. If no rule fits, the action is taken as it is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from string import Formatter
from typing import Annotated, Any, Self

import regex
from pydantic import AfterValidator, model_validator

from hiper.errors import UserError, shortened
from hiper.validation import StrictModel


def _check_regex(pattern: str) -> str:
    try:
        re.compile(pattern)
        if _is_risky(pattern):
            regex.compile(pattern)
    except (re.error, regex.error) as error:
        raise ValueError(f"not a regular expression: {error}") from error
    except (OverflowError, RecursionError) as error:
        raise ValueError("not a regular expression: its numbers are too large, or its brackets too deep") from error
    return pattern


Regex = Annotated[str, AfterValidator(_check_regex)]
"""A regular expression of Python's :mod:`re`."""


_ONE_REPEAT, _MANY_REPEATS = 8_000, 1_500
"""A pattern with one open repeat, or with several, looks at a longer text than this piece by piece."""
_ONE_PIECE, _MANY_PIECE = 500, 125
"""The matches that are found in a longer text: all that have at most so many characters, and some longer ones."""
_SECONDS = 1.0
"""The longest time that a risky pattern may take for a text, in seconds of the processor."""
_MOST_OPTIONAL = 8
"""A pattern with more optional parts than this is risky."""


class QuickPattern:
    """A regular expression that takes milliseconds even on texts of 100,000 characters.

    Matching takes a time of higher order in the length of a text if a pattern has open repeats such as ``.*``. So texts
    that are longer than those of environments that ship are matched piece by piece. A pattern whose repeats lie inside
    one another may take an exponential time. Such a risky pattern is matched by the library regex, which has a limit of
    time.

    Args:
        pattern: the regular expression.
    """

    def __init__(self, pattern: str) -> None:
        # White space before a match is cheap to find from behind, and dear to find from the front.
        self._strips = bool(re.match(r"\\s\*\w(?![*?{+])", pattern)) and "|" not in pattern
        library: Any = regex if _is_risky(pattern) else re
        self._limit = {"timeout": _SECONDS} if library is regex else {}
        self._whole: Any = library.compile(pattern)
        self._pattern: Any = library.compile(pattern[len(r"\s*") :] if self._strips else pattern)
        self._ends = "$" in pattern or "\\Z" in pattern
        repeats = _open_repeats(self._pattern.pattern)
        self._longest, self._piece = {0: (None, 0), 1: (_ONE_REPEAT, _ONE_PIECE)}.get(
            repeats, (_MANY_REPEATS, _MANY_PIECE)
        )

    def __str__(self) -> str:
        return str(self._whole.pattern)

    def finditer(self, text: str) -> Iterator[re.Match[str]]:
        """The matches in a text that do not overlap, from left to right.

        Raises:
            UserError: The pattern is risky, and takes too long on this text.
        """
        with self._in_time(text):
            if self._fits(text):
                yield from self._pattern.finditer(text, **self._limit)
                return
            at, began, limit = 0, time.process_time(), self._limit
            while at < len(text):
                after = at + self._piece
                if self._limit:
                    limit = {"timeout": max(1e-3, began + _SECONDS - time.process_time())}
                for match in self._pattern.finditer(text, at, after + self._piece, **limit):
                    if match.start() >= after:
                        break
                    if self._ends and match.end() == after + self._piece < len(text):
                        continue  # the end of a piece is no end of the text
                    yield match
                    at = match.end()
                at = max(at, after)

    def sub(self, put: str | Callable[[re.Match[str]], str], text: str) -> str:
        """The text with ``put`` in place of every match, as :func:`re.sub` makes it.

        Raises:
            UserError: See :meth:`finditer`.
        """
        if not self._strips and self._fits(text):
            with self._in_time(text):
                return str(self._pattern.sub(put, text, **self._limit))
        parts, at = [], 0
        fill = _filler(put) if isinstance(put, str) else put
        for match in self.finditer(text):
            before = text[at : match.start()]
            parts.append(before.rstrip() if self._strips else before)
            parts.append(fill(match))
            at = match.end()
        return "".join([*parts, text[at:]])

    def fullmatch(self, text: str) -> re.Match[str] | None:
        """The match of the whole text. A pattern with several open repeats matches no text that is very long.

        Raises:
            UserError: See :meth:`finditer`.
        """
        if self._piece == _MANY_PIECE and not self._fits(text):
            return None
        with self._in_time(text):
            match: re.Match[str] | None = self._whole.fullmatch(text, **self._limit)
            return match

    def _fits(self, text: str) -> bool:
        return self._longest is None or len(text) <= self._longest

    @contextmanager
    def _in_time(self, text: str) -> Iterator[None]:
        """Name the pattern if the library gives up."""
        try:
            yield
        except TimeoutError:
            raise UserError(
                f"the template's regular expression '{shortened(self)}' takes more than {_SECONDS:g} s "
                f"for a text of {len(text):,} characters: write it without repeats inside repeats, as in (a+)+"
            ) from None


def _filler(put: str) -> Callable[[re.Match[str]], str]:
    """What :meth:`re.Match.expand` does with ``put``, quickly if all its references are single digits."""
    literals, groups = re.split(r"\\[1-9]", put), [int(n) for n in re.findall(r"\\([1-9])", put)]
    if "\\" in "".join(literals) or any(literal[:1].isdigit() for literal in literals[1:]):
        return lambda match: match.expand(put)
    first, *rest = literals
    return lambda match: first + "".join((match[n] or "") + text for n, text in zip(groups, rest, strict=True))


def _open_repeats(pattern: str) -> int:
    """The number of repeats without an end, apart from ``.*`` at the end of the pattern."""
    return len(re.findall(r"[*+](?![*+])|\{\d*,\}", _bare(pattern).removesuffix(".*")))


def _is_risky(pattern: str) -> bool:
    """Whether a pattern may take a time of a high order: it repeats a group, or has many repeats or optional parts."""
    bare = _bare(pattern)
    optional = len(re.findall(r"\?|\{\d*,\d*\}", bare.replace("(?", "(")))
    return bool(re.search(r"\)[*+{]", bare)) or _open_repeats(pattern) > 2 or optional > _MOST_OPTIONAL


def _bare(pattern: str) -> str:
    """A pattern with one letter in the place of every escape and every set of characters."""
    return re.sub(r"\[\^?\]?[^\]]*\]", "x", re.sub(r"\\.", "x", pattern, flags=re.DOTALL))


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
        self._aliases = [(QuickPattern(alias.find), alias) for alias in style.aliases]
        self._word = [(QuickPattern(rule.find), rule.put) for rule in style.word]
        self._free = [(QuickPattern(rule.find), rule.put) for rule in style.free]
        self._aliases_in = lru_cache(maxsize=1 << 10)(self._find_aliases)

    def hide_names(self, observation: str) -> str:
        """Replace names in an observation by their aliases."""
        for pattern, alias in self._aliases:
            shown = self._aliases_in(observation)

            def alias_of(match: re.Match[str], alias: Alias = alias, shown: Mapping[str, str] = shown) -> str:
                return shown.get(alias.action.format(name=match[0]).casefold(), match[0])

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
