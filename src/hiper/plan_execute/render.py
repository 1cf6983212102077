"""Filling in a template: from what the agent knows to the text of a prompt."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from hiper.config import ThinkingConfig
from hiper.envs.base import Decision
from hiper.errors import UserError, shortened
from hiper.plan_execute.actions import ActionWords, QuickPattern, placeholders
from hiper.plan_execute.parse import Form
from hiper.plan_execute.templates import AdmissibleStyle, TemplateData, TextStyle, own_template, read_template

Message = dict[str, str]
"""One message of a chat: its role and its content."""


@dataclass(frozen=True, slots=True)
class PromptContext:
    """All that an agent knows before a turn."""

    goal: str
    """The goal of the task."""
    history: Sequence[tuple[str, str]]
    """Earlier turns, oldest first. Each is an observation and the action that followed it."""
    observation: str
    """The newest observation."""
    subgoal: str | None
    """The current subgoal. None before the first."""
    admissible: tuple[str, ...] | None
    """The admissible actions. None if actions are free-form."""
    turn: int
    """The number of the turn, counted from zero."""
    plans: Sequence[tuple[int, str]] = ()
    """The subgoals so far, oldest first, each after the number of the turn at which it began."""


class Template:
    """A template that can be filled in. Equal contexts give equal prompts.

    Args:
        data: the content of the template.
        shows_plans: whether prompts show the subgoals so far.
    """

    def __init__(self, data: TemplateData, *, shows_plans: bool = False) -> None:
        self.data = data
        self.shows_plans = shows_plans
        """Whether prompts show the subgoals so far."""
        unseen = set() if shows_plans else {"plans"}
        canonical = json.dumps(data.model_dump(mode="json", exclude=unseen), sort_keys=True)
        self.content_hash = hashlib.sha256(canonical.encode()).hexdigest()
        """SHA-256 of the content. Comments and layout of the file do not change it."""
        self._goal = _text_renderer(data.goal)
        self._observation = _text_renderer(data.observation)
        self._list_actions = lru_cache(maxsize=1 << 12)(_ActionLister(data.admissible))
        self._words = ActionWords(data.actions)
        self._parts = tuple((part, frozenset(placeholders(part))) for part in self._ordered_parts())
        action_fields = {"actions", *(group.field for group in data.admissible.groups)}
        self._lists_actions = any(fields & action_fields for _, fields in self._parts)

    @classmethod
    def load(cls, source: str | Path) -> Template:
        """Load a shipped template by its name, or a YAML file by its path, see :func:`read_template`.

        Raises:
            UserError: there is no such template, or its content is wrong.
        """
        return cls(read_template(source))

    @classmethod
    def load_for(cls, env: str, source: str | Path) -> Template:
        """Load the template ``source`` to play the environment ``env`` with.

        Raises:
            UserError: see :meth:`load`. Or ``source`` is a general template, and the environment ships its own of that
                name. Then the caller must say which one is meant, as policies can read one of them alone.
        """
        if "/" not in str(source) and (own := own_template(env, str(source))) != str(source):
            raise UserError(
                f"prompt.template: '{source}' is the general template, and '{env}' has its own; name '{own}', "
                f"or a file that says `extends: {source}` if the general one is meant"
            )
        return cls.load(source)

    def to_yaml(self) -> str:
        """The whole content as the text of a file that :meth:`load` reads."""
        return yaml.safe_dump(self.data.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)

    def with_plans(self) -> Template:
        """Return the same template, showing the subgoals so far."""
        return Template(self.data, shows_plans=True)

    def _ordered_parts(self) -> Sequence[str]:
        parts = list(self.data.parts)
        if self.shows_plans:
            with_subgoal = (at for at, part in enumerate(parts) if "subgoal" in placeholders(part))
            parts.insert(next(with_subgoal, len(parts)), self.data.plans.part)
        return parts

    @property
    def label(self) -> str:
        """Name, version and the start of the hash, for result cards: ``terse-1-0a1b2c3d``."""
        return f"{self.data.name}-{self.data.version}-{self.content_hash[:8]}"

    @property
    def wording(self) -> list[str]:
        """Texts with all words that the template itself may add to a prompt. A word-level tokenizer must know them."""
        data = self.data
        formats = [
            *data.parts,
            *data.when_empty.values(),
            data.history.turn,
            *(group.show for group in data.admissible.groups),
            *((data.plans.part, data.plans.plan, data.plans.separator) if self.shows_plans else ()),
        ]
        return [
            *(" ".join(literal for literal, *_ in Formatter().parse(text)) for text in formats),
            *(re.sub(r"\\(\d|g<\w+>)", " ", rule.put) for rule in (*data.goal.rewrite, *data.observation.rewrite)),
            *(data.separator, data.history.separator, data.admissible.separator),
            *("-" for group in data.admissible.groups if group.range_from is not None),
            *(alias.show.format(n=1) for alias in data.actions.aliases),
        ]

    @property
    def form(self) -> Form:
        """What a response has to state."""
        return self.data.response

    def phrase(self, decision: Decision, context: PromptContext) -> Decision:
        """The decision with its action in the template's wording."""
        return replace(decision, action=self._words.say(decision.action, context.observation))

    def understand(self, said: str, context: PromptContext) -> str:
        """The environment's action for an action in the template's wording; the inverse of :meth:`phrase`."""
        return self._words.understand(said, context.observation, context.admissible)

    def render(self, context: PromptContext, thinking: ThinkingConfig | None = None) -> str | list[Message]:
        """The prompt: a text, or messages for a template of kind ``chat``.

        Args:
            context: what the agent knows.
            thinking: the marks of thinking, for the placeholders ``{think}`` and ``{end_think}``. None: they have
                nothing to show.
        """
        text = self._fill(context, thinking).encode(errors="replace").decode()  # scraped texts may hold lone surrogates
        if self.data.kind == "text":
            return text
        system = [] if self.data.system is None else [{"role": "system", "content": self.data.system}]
        return [*system, {"role": "user", "content": text}]

    def _fill(self, context: PromptContext, thinking: ThinkingConfig | None) -> str:
        listed = context.admissible is not None
        values: dict[str, str] = {
            "goal": self._goal(context.goal, listed),
            "history": self._render_history(context, listed),
            "observation": self._observation(self._words.hide_names(context.observation), listed),
            "subgoal": context.subgoal or "",
            "turn": str(context.turn + 1),
            "plans": self.list_plans(context.plans),
            **({} if thinking is None else {"think": thinking.open, "end_think": thinking.close}),
            **(self._list_actions(self.say_all(context)) if self._lists_actions and context.admissible else {}),
        }
        values |= {field: text for field, text in self.data.when_empty.items() if not values.get(field)}
        shown = (part.format_map(values) for part, fields in self._parts if all(map(values.get, fields)))
        return self.data.separator.join(shown)

    def list_plans(self, plans: Sequence[tuple[int, str]]) -> str:
        """Return the text that lists subgoals, each with the number of its first turn, counted from zero."""
        style = self.data.plans
        return style.separator.join(style.plan.format(turn=turn + 1, subgoal=subgoal) for turn, subgoal in plans)

    def say_all(self, context: PromptContext) -> tuple[str, ...]:
        """Return the admissible actions in the template's wording."""
        return tuple(self._words.say(action, context.observation) for action in context.admissible or ())

    def _render_history(self, context: PromptContext, listed: bool) -> str:
        style, when_empty = self.data.history, self.data.when_empty
        first = context.turn - len(context.history) + 1
        return style.separator.join(
            style.turn.format(
                observation=self._observation(self._words.hide_names(observation), listed)
                or when_empty.get("observation", ""),
                action=self._words.say(action, observation) or when_empty.get("action", ""),
                turn=turn,
            )
            for turn, (observation, action) in enumerate(context.history, first)
        )


def _text_renderer(style: TextStyle) -> Callable[[str, bool], str]:
    """A function that shows a text in this style. It caches texts, since the history shows them again."""
    rules = {
        listed: [
            (QuickPattern(rule.find), rule.put, rule.repeat)
            for rule in style.rewrite
            if rule.when in ("always", "listed" if listed else "unlisted")
        ]
        for listed in (True, False)
    }

    @lru_cache(maxsize=1 << 14)
    def show(text: str, listed: bool) -> str:
        text = text.lower() if style.lowercase else text
        for pattern, put, repeat in rules[listed]:
            text = _until_same(pattern, put, text) if repeat else pattern.sub(put, text)
        return " ".join(text.split()) if style.one_line else text.strip()

    return show


def _until_same(pattern: QuickPattern, put: str, text: str) -> str:
    """Substitute again and again until the text no longer changes.

    Raises:
        UserError: It never does.
    """
    longest = _LONGER * len(text) + _LONGER
    for _ in range(_MOST_ROUNDS):
        before, text = text, pattern.sub(put, text)
        if text == before:
            return text
        if len(text) > longest:
            break
    raise UserError(
        f"a rewrite of the template, '{shortened(put)}' in place of '{shortened(pattern)}', never comes to an end: "
        "leave out its `repeat`"
    )


_MOST_ROUNDS = 10_000
"""The largest number of times that a rewrite is repeated."""
_LONGER = 100
"""A rewrite that makes a text longer than this times its length has no end."""
_NUMBERED = re.compile(r"(?P<name>.+) (?P<number>\d+)")


class _ActionLister:
    """Lists admissible actions by placeholder: first the groups in their order, then all other actions."""

    def __init__(self, style: AdmissibleStyle) -> None:
        self._style = style
        self._hidden = frozenset(style.hide)
        self._patterns = [QuickPattern(group.match) for group in style.groups]
        self._find_group = lru_cache(maxsize=1 << 16)(self._match_group)

    def __call__(self, actions: tuple[str, ...]) -> Mapping[str, str]:
        grouped: dict[tuple[int, tuple[tuple[str, str], ...]], list[str]] = {}
        rest: list[str] = []
        for action in actions:
            if action in self._hidden:
                continue
            found = self._find_group(action)
            if found is None:
                rest.append(action)
            else:
                index, item, others = found
                grouped.setdefault((index, others), []).append(item)
        lines: dict[str, list[str]] = {}
        for index, others in sorted(grouped, key=lambda key: key[0]):  # stable: actions keep the environment's order
            group = self._style.groups[index]
            items = _join_items(grouped[index, others], group.range_from)
            lines.setdefault(group.field, []).append(group.show.format(items=items, **dict(others)))
        lines.setdefault("actions", []).extend(rest)
        return {field: self._style.separator.join(shown) for field, shown in lines.items()}

    def _match_group(self, action: str) -> tuple[int, str, tuple[tuple[str, str], ...]] | None:
        """The index of an action's group, its item, and its other named groups."""
        for index, pattern in enumerate(self._patterns):
            if match := pattern.fullmatch(action):
                named: dict[str, Any] = match.groupdict()
                item = named.pop("item")
                return index, item, tuple(named.items())
        return None


def _join_items(items: Iterable[str], range_from: int | None) -> str:
    """``["fork 3", "fork 1", "knife 1"]`` -> ``"fork 1 3 knife 1"``: each name once, its numbers sorted behind it."""
    numbers: dict[str, list[int]] = {}
    for item in items:
        match = _NUMBERED.fullmatch(item)
        name, number = (match["name"], [int(match["number"])]) if match else (item, [])
        numbers.setdefault(name, []).extend(number)
    return " ".join(" ".join([name, *_join_numbers(sorted(ns), range_from)]) for name, ns in numbers.items())


def _join_numbers(numbers: list[int], range_from: int | None) -> list[str]:
    """The numbers as texts, with runs of at least ``range_from`` numbers as one range."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown: list[str] = []
    for run in runs:
        if range_from is not None and len(run) >= range_from:
            shown.append(f"{run[0]}-{run[-1]}")
        else:
            shown.extend(map(str, run))
    return shown
