"""From what the agent knows to the token ids it reads.

Templates are data (``templates/*.yaml``): the wording, the order of the parts, how observations are shortened and how
admissible actions are grouped. :class:`Template` fills one in; :class:`PromptBuilder` turns the result into ids that
fit the model, and says what it had to leave out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, Literal, Self

import yaml
from pydantic import ValidationError, model_validator

from hiper.envs.base import Decision
from hiper.envs.registry import templates_of
from hiper.errors import UserError
from hiper.plan_execute.actions import ActionStyle, ActionWords, Data, Regex, Substitution, braced, placeholders
from hiper.plan_execute.parse import Form
from hiper.plan_execute.tokenizer import text_encoder
from hiper.strict_yaml import parse_yaml

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]
"""One message of a chat: its role and its content."""

Overflow = Literal["drop_history", "shorten", "truncate_left", "error"]
"""What happens to a prompt that is too long: leave out the oldest turns, and refuse if that is not enough; leave them
out, and if that is not enough, cut tokens from the left; cut tokens from the left; refuse at once."""


@dataclass(frozen=True, slots=True)
class PromptContext:
    """All an agent knows before a turn."""

    goal: str
    history: Sequence[tuple[str, str]]
    """Earlier turns, oldest first: what was observed, then the action played on it."""
    observation: str
    subgoal: str | None
    """The subgoal in force, None before the first."""
    admissible: tuple[str, ...] | None
    """None where actions are free-form."""
    turn: int
    """Counted from zero."""


class PromptTooLongError(UserError):
    """A prompt does not fit the model under the policy chosen."""


# --- The data of a template -----------------------------------------------------------------------------------------


class Rewrite(Substitution):
    """A substitution under conditions."""

    repeat: bool = False
    """Apply until nothing changes any more."""
    when: Literal["always", "listed", "unlisted"] = "always"
    """Only beside a list of admissible actions, only without one, or always."""


class TextStyle(Data):
    """How a text of the environment is shown."""

    lowercase: bool = False
    one_line: bool = False
    """Runs of white space become one space."""
    rewrite: tuple[Rewrite, ...] = ()


class ActionGroup(Data):
    """Admissible actions shown as one: those that ``match`` and agree in all its named groups but ``item``."""

    match: Regex
    """Holds a named group ``item``, and others as needed."""
    show: str
    """Has a place for ``{items}``, and for the other named groups."""
    field: str = "actions"
    """The placeholder of ``parts`` it goes to."""
    range_from: int | None = None
    """Runs of at least so many consecutive numbers are shown as a range: "cabinet 1-6"."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        groups = set(re.compile(self.match).groupindex)
        if "item" not in groups:
            raise ValueError("match needs a named group (?P<item>...)")
        if unknown := placeholders(self.show) - (groups - {"item"} | {"items"}):
            raise ValueError(f"show has no value for {braced(unknown)}")
        return self


class AdmissibleStyle(Data):
    """How the admissible actions are listed."""

    hide: tuple[str, ...] = ()
    separator: str = "\n"
    groups: tuple[ActionGroup, ...] = ()
    """The first that matches takes an action; what none takes is listed as it is."""


class HistoryStyle(Data):
    """How earlier turns are shown."""

    turn: str = "{observation}\n{action}"
    """Has places for ``{observation}``, ``{action}`` and ``{turn}`` (counted from one)."""
    separator: str = "\n"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if unknown := placeholders(self.turn) - {"observation", "action", "turn"}:
            raise ValueError(f"history.turn has no value for {braced(unknown)}")
        return self


class TemplateData(Data):
    """The content of a template file."""

    name: str
    version: int
    kind: Literal["text", "chat"]
    """Plain text, or one user message for the tokenizer's chat template."""
    response: Form = Form.PLAN_EXECUTE
    """What the prompt asks for: the three decisions, or an action alone."""
    system: str | None = None
    """A system message before it, for ``chat``."""
    parts: tuple[str, ...]
    """The prompt's parts in order. A part with a placeholder that has nothing to show is left out."""
    separator: str = "\n"
    """Between parts."""
    when_empty: Mapping[Literal["goal", "history", "observation", "subgoal", "actions", "action"], str] = {}
    """What is shown where there is nothing, so that the part stays."""
    goal: TextStyle = TextStyle()
    observation: TextStyle = TextStyle()
    history: HistoryStyle = HistoryStyle()
    admissible: AdmissibleStyle = AdmissibleStyle()
    actions: ActionStyle = ActionStyle()
    """How actions are worded, in lists, in the history and in responses."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        known = {"goal", "history", "observation", "subgoal", "actions", "turn"}
        known |= {group.field for group in self.admissible.groups}
        if unknown := set().union(*map(placeholders, self.parts)) - known:
            raise ValueError(f"parts: no value for {braced(unknown)}; there are {braced(known)}")
        if self.system is not None and self.kind != "chat":
            raise ValueError("system: only a template of kind chat has a system message")
        return self


# --- Filling it in --------------------------------------------------------------------------------------------------


class Template:
    """A template, ready to be filled in. Pure: equal contexts give equal prompts."""

    def __init__(self, data: TemplateData) -> None:
        self.data = data
        canonical = json.dumps(data.model_dump(mode="json"), sort_keys=True)
        self.content_hash = hashlib.sha256(canonical.encode()).hexdigest()
        """SHA-256 of the content, whatever the file's comments and layout."""
        self._goal = _text_shower(data.goal)
        self._observation = _text_shower(data.observation)
        self._actions = lru_cache(maxsize=1 << 12)(_ActionLister(data.admissible))
        self._words = ActionWords(data.actions)
        self._parts = tuple((part, frozenset(placeholders(part))) for part in data.parts)
        action_fields = {"actions", *(group.field for group in data.admissible.groups)}
        self._lists_actions = any(fields & action_fields for _, fields in self._parts)

    @classmethod
    def load(cls, source: str | Path) -> Template:
        """A shipped template by its name, or a YAML file by its path; ``extends`` names one to begin from.

        Raises:
            UserError: there is no such template, or its content is wrong.
        """
        try:
            return cls(TemplateData.model_validate(_read_tree(source)))
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
            raise UserError(f"template {source}: {problems}") from error

    def to_yaml(self) -> str:
        """The content, whole, as a file that :meth:`load` reads."""
        return yaml.safe_dump(self.data.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)

    @property
    def label(self) -> str:
        """Name, version and content in short, for result cards: ``terse-1-0a1b2c3d``."""
        return f"{self.data.name}-{self.data.version}-{self.content_hash[:8]}"

    @property
    def wording(self) -> list[str]:
        """All words the template itself may add to a prompt, for a tokenizer that has to know every word."""
        data = self.data
        formats = [
            *data.parts,
            *data.when_empty.values(),
            data.history.turn,
            *(group.show for group in data.admissible.groups),
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
        """The decision with its action as a model says it."""
        return replace(decision, action=self._words.say(decision.action, context.observation))

    def understand(self, said: str, context: PromptContext) -> str:
        """The environment's action that a model means by ``said``; the inverse of :meth:`phrase`."""
        return self._words.understand(said, context.observation, context.admissible)

    def render(self, context: PromptContext) -> str | list[Message]:
        """The prompt as text, or as messages for a template of kind ``chat``."""
        text = self._fill(context).encode(errors="replace").decode()  # scraped texts hold halves of characters
        if self.data.kind == "text":
            return text
        system = [] if self.data.system is None else [{"role": "system", "content": self.data.system}]
        return [*system, {"role": "user", "content": text}]

    def _fill(self, context: PromptContext) -> str:
        listed = context.admissible is not None
        values: dict[str, str] = {
            "goal": self._goal(context.goal, listed),
            "history": self._show_history(context, listed),
            "observation": self._observation(self._words.hide_names(context.observation), listed),
            "subgoal": context.subgoal or "",
            "turn": str(context.turn + 1),
            **(self._actions(self._say_all(context)) if self._lists_actions and context.admissible else {}),
        }
        values |= {field: text for field, text in self.data.when_empty.items() if not values.get(field)}
        shown = (part.format_map(values) for part, fields in self._parts if all(map(values.get, fields)))
        return self.data.separator.join(shown)

    def _say_all(self, context: PromptContext) -> tuple[str, ...]:
        return tuple(self._words.say(action, context.observation) for action in context.admissible or ())

    def _show_history(self, context: PromptContext, listed: bool) -> str:
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


def _read_tree(source: str | Path, extended: tuple[str, ...] = ()) -> Any:
    """A template's content, on top of that of the template it ``extends``: one that ships, or a file beside its own."""
    try:
        tree = parse_yaml(_read_source(source))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"template {source}: not valid YAML: {error}") from error
    if not isinstance(tree, dict) or "extends" not in tree:
        return tree
    base = str(tree.pop("extends"))
    if (beside := Path(source).parent / base).is_file():
        base = str(beside)
    if base in extended:
        raise UserError(f"template {source}: extends {base}, which extends it")
    below = _read_tree(base, (*extended, base))
    if not isinstance(below, dict):
        raise UserError(f"template {source}: extends {base}, which holds no mapping of keys to values")
    return below | tree


def _read_source(source: str | Path) -> str:
    """The text of a shipped template ("terse"), of one that an environment ships ("webshop/terse"), or of a file."""
    general = resources.files("hiper.plan_execute") / "templates"
    env, _, name = str(source).rpartition("/")
    folder = general if not env else templates_of(env)
    if folder is not None and (shipped := folder / f"{name}.yaml").is_file():
        return shipped.read_text(encoding="utf-8")
    try:
        return Path(source).read_text(encoding="utf-8")
    except OSError as error:
        offered = folder if folder is not None and folder.is_dir() else general
        names = ", ".join(sorted(file.name.removesuffix(".yaml") for file in offered.iterdir()))
        raise UserError(
            f"template {source}: neither a shipped template ({names}) nor a readable YAML file ({error.strerror})"
        ) from error


def _text_shower(style: TextStyle) -> Callable[[str, bool], str]:
    """A function that shows a text in this style; remembered, since a text is shown again as history."""
    rules = {
        listed: [
            (re.compile(rule.find), rule.put, rule.repeat)
            for rule in style.rewrite
            if rule.when in ("always", "listed" if listed else "unlisted")
        ]
        for listed in (True, False)
    }

    @lru_cache(maxsize=1 << 14)
    def show(text: str, listed: bool) -> str:
        text = text.lower() if style.lowercase else text
        for pattern, put, repeat in rules[listed]:
            text, changes = pattern.subn(put, text)
            while repeat and changes:
                before, text = text, pattern.sub(put, text)
                changes = text != before
        return " ".join(text.split()) if style.one_line else text.strip()

    return show


# --- Admissible actions ---------------------------------------------------------------------------------------------

_NUMBERED = re.compile(r"(?P<name>.+) (?P<number>\d+)")


class _ActionLister:
    """Lists admissible actions: grouped ones first in the groups' order, then the rest; by placeholder."""

    def __init__(self, style: AdmissibleStyle) -> None:
        self._style = style
        self._hidden = frozenset(style.hide)
        self._patterns = [re.compile(group.match) for group in style.groups]
        self._sort_in = lru_cache(maxsize=1 << 16)(self._find_group)

    def __call__(self, actions: tuple[str, ...]) -> Mapping[str, str]:
        grouped: dict[tuple[int, tuple[tuple[str, str], ...]], list[str]] = {}
        rest: list[str] = []
        for action in actions:
            if action in self._hidden:
                continue
            found = self._sort_in(action)
            if found is None:
                rest.append(action)
            else:
                index, item, others = found
                grouped.setdefault((index, others), []).append(item)
        lines: dict[str, list[str]] = {}
        for index, others in sorted(grouped, key=lambda key: key[0]):  # stable: actions keep the environment's order
            group = self._style.groups[index]
            items = _show_items(grouped[index, others], group.range_from)
            lines.setdefault(group.field, []).append(group.show.format(items=items, **dict(others)))
        lines.setdefault("actions", []).extend(rest)
        return {field: self._style.separator.join(shown) for field, shown in lines.items()}

    def _find_group(self, action: str) -> tuple[int, str, tuple[tuple[str, str], ...]] | None:
        for index, pattern in enumerate(self._patterns):
            if match := pattern.fullmatch(action):
                named: dict[str, Any] = match.groupdict()
                item = named.pop("item")
                return index, item, tuple(named.items())
        return None


def _show_items(items: Iterable[str], range_from: int | None) -> str:
    """``["fork 3", "fork 1", "knife 1"]`` -> ``"fork 1 3 knife 1"``: numbers in order behind their common name."""
    numbers: dict[str, list[int]] = {}
    for item in items:
        match = _NUMBERED.fullmatch(item)
        name, number = (match["name"], [int(match["number"])]) if match else (item, [])
        numbers.setdefault(name, []).extend(number)
    return " ".join(" ".join([name, *_show_numbers(sorted(ns), range_from)]) for name, ns in numbers.items())


def _show_numbers(numbers: list[int], range_from: int | None) -> list[str]:
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


# --- Token ids ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads, and what had to be left out for it to fit."""

    ids: list[int]
    dropped_turns: int = 0
    """Turns of the history window left out."""
    cut_tokens: int = 0
    """Tokens cut from the left."""

    @property
    def complete(self) -> bool:
        """Whether nothing was left out."""
        return not self.dropped_turns and not self.cut_tokens


class PromptBuilder:
    """Builds prompts for one model.

    Args:
        template: what a prompt looks like.
        tokenizer: the model's.
        history_window: how many of the last turns are shown.
        max_tokens: the most tokens a prompt may have; None: no limit.
        overflow: what to do with a longer one, see :data:`Overflow`.

    Raises:
        UserError: the template needs a chat template and the tokenizer has none.
    """

    def __init__(
        self,
        template: Template,
        tokenizer: PreTrainedTokenizerBase,
        *,
        history_window: int = 2,
        max_tokens: int | None = None,
        overflow: Overflow = "drop_history",
    ) -> None:
        if template.data.kind == "chat" and not tokenizer.chat_template:
            raise UserError(
                f"template {template.data.name}: is for chat models, but the tokenizer {tokenizer.name_or_path!r} has "
                "no chat template; use one of kind text, such as terse"
            )
        self.template = template
        self.tokenizer = tokenizer
        self._ids = text_encoder(tokenizer)
        self.history_window = history_window
        self._max_tokens = max_tokens
        self._overflow = overflow

    def build(self, context: PromptContext) -> Prompt:
        """The prompt for a turn.

        Raises:
            PromptTooLongError: it does not fit, and the policy allows no further cut.
        """
        history = context.history[max(0, len(context.history) - self.history_window) :]
        prompt = Prompt(self._encode(replace(context, history=history)))
        if self._overflow in ("drop_history", "shorten"):
            for dropped in range(1, len(history) + 1):
                if self._fits(prompt):
                    break
                prompt = Prompt(self._encode(replace(context, history=history[dropped:])), dropped_turns=dropped)
        if self._fits(prompt):
            return prompt
        assert self._max_tokens is not None
        if self._overflow in ("truncate_left", "shorten"):
            cut = len(prompt.ids) - self._max_tokens
            return replace(prompt, ids=prompt.ids[cut:], cut_tokens=cut)
        raise PromptTooLongError(
            f"turn {context.turn + 1} of {context.goal!r}: the prompt has {len(prompt.ids)} tokens"
            f"{' without any history' if prompt.dropped_turns else ''}, {self._max_tokens} are allowed; allow more "
            "(prompt.max_tokens), use a terser template (prompt.template), or shorten (prompt.overflow: shorten)"
        )

    def _fits(self, prompt: Prompt) -> bool:
        return self._max_tokens is None or len(prompt.ids) <= self._max_tokens

    def _encode(self, context: PromptContext) -> list[int]:
        rendered = self.template.render(context)
        if not isinstance(rendered, str):
            rendered = str(self.tokenizer.apply_chat_template(rendered, tokenize=False, add_generation_prompt=True))
        return self._ids(rendered)
