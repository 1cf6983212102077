"""Prompt templates as data: what a template file may say, and how it is read.

A template file (``templates/*.yaml``) holds the wording of a prompt, the order of its parts, how observations are
shortened, and how admissible actions are grouped. :mod:`hiper.plan_execute.render` fills templates in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from hiper.envs.registry import templates_of
from hiper.errors import UserError, shortened
from hiper.files import user_path
from hiper.plan_execute.actions import ActionStyle, Regex, Substitution, braced, placeholders
from hiper.plan_execute.parse import Form
from hiper.strict_yaml import find_yaml, read_mapping, shipped_files
from hiper.validation import StrictModel, parse_model


class Rewrite(Substitution):
    """A substitution that may depend on the list of admissible actions."""

    repeat: bool = False
    """If true, apply the substitution until the text no longer changes."""
    when: Literal["always", "listed", "unlisted"] = "always"
    """When to apply it: always, only if admissible actions are listed, or only if they are not."""


class TextStyle(StrictModel):
    """How a text of the environment is shown."""

    lowercase: bool = False
    """If true, show the text in lower case."""
    one_line: bool = False
    """If true, show each run of white space as one space."""
    rewrite: tuple[Rewrite, ...] = ()
    """Substitutions, applied in order."""


class ActionGroup(StrictModel):
    """Admissible actions that are shown as one.

    They match ``match`` and agree in all its named groups except ``item``.
    """

    match: Regex
    """A regular expression for whole actions. It has a named group ``item``, and may have others."""
    show: str
    """The text that is shown, with a place for ``{items}`` and for the other named groups."""
    field: str = "actions"
    """The placeholder of ``parts`` at which the text is shown."""
    range_from: int | None = None
    """Show at least this many consecutive numbers as a range, for example "cabinet 1-6". None: show no ranges."""

    @model_validator(mode="after")
    def _check_placeholders(self) -> Self:
        groups = set(re.compile(self.match).groupindex)
        if "item" not in groups:
            raise ValueError("match needs a named group (?P<item>...)")
        if unknown := placeholders(self.show) - (groups - {"item"} | {"items"}):
            raise ValueError(f"show has no value for {braced(unknown)}")
        return self


class AdmissibleStyle(StrictModel):
    """How admissible actions are listed."""

    hide: tuple[str, ...] = ()
    """Actions that are not shown."""
    separator: str = "\n"
    """The text between actions."""
    groups: tuple[ActionGroup, ...] = ()
    """An action goes to the first group that matches. Without a match, it is listed as it is."""


class HistoryStyle(StrictModel):
    """How earlier turns are shown."""

    turn: str = "{observation}\n{action}"
    """One turn, with places for ``{observation}``, ``{action}`` and ``{turn}``, which is counted from one."""
    separator: str = "\n"
    """The text between turns."""

    @model_validator(mode="after")
    def _check_placeholders(self) -> Self:
        if unknown := placeholders(self.turn) - {"observation", "action", "turn"}:
            raise ValueError(f"history.turn has no value for {braced(unknown)}")
        return self


class PlansStyle(StrictModel):
    """How the subgoals so far are shown, with ``prompt.plan_memory``."""

    part: str = "plans {plans} ."
    """The part of the prompt, with a place for ``{plans}``. It stands before the part with the current subgoal."""
    plan: str = "{turn} {subgoal}"
    """One subgoal, with places for ``{subgoal}`` and for ``{turn}``, the turn at which it began, counted from one."""
    separator: str = " , "
    """The text between subgoals."""

    @model_validator(mode="after")
    def _check_placeholders(self) -> Self:
        for name, text, known in (("part", self.part, {"plans"}), ("plan", self.plan, {"turn", "subgoal"})):
            if unknown := placeholders(text) - known:
                raise ValueError(f"plans.{name} has no value for {braced(unknown)}")
        return self


class TemplateData(StrictModel):
    """The content of a template file."""

    name: str
    """The name of the template, for result cards."""
    version: int
    """The version of the template, for result cards."""
    kind: Literal["text", "chat"]
    """``text``: the prompt is plain text. ``chat``: it is a user message for the tokenizer's chat template."""
    response: Form = Form.PLAN_EXECUTE
    """What the prompt asks for: all three decisions, or an action alone."""
    system: str | None = None
    """A system message before the user message of a ``chat`` template. None: there is none."""
    parts: tuple[str, ...]
    """The parts of the prompt in order. A part is left out if one of its placeholders has nothing to show."""
    separator: str = "\n"
    """The text between parts."""
    when_empty: Mapping[Literal["goal", "history", "observation", "subgoal", "actions", "action"], str] = {}
    """Texts for placeholders that have nothing to show, so that their parts stay."""
    goal: TextStyle = TextStyle()
    """How the goal is shown."""
    observation: TextStyle = TextStyle()
    """How observations are shown."""
    history: HistoryStyle = HistoryStyle()
    """How earlier turns are shown."""
    plans: PlansStyle = PlansStyle()
    """How the subgoals so far are shown, with ``prompt.plan_memory``."""
    admissible: AdmissibleStyle = AdmissibleStyle()
    """How admissible actions are listed."""
    actions: ActionStyle = ActionStyle()
    """How actions are worded: in lists, in the history and in responses."""

    @model_validator(mode="after")
    def _check_placeholders(self) -> Self:
        known = {"goal", "history", "observation", "subgoal", "actions", "turn", "think", "end_think"}
        known |= {group.field for group in self.admissible.groups}
        if unknown := set().union(*map(placeholders, self.parts)) - known:
            raise ValueError(f"parts: no value for {braced(unknown)}; there are {braced(known)}")
        if self.system is not None and self.kind != "chat":
            raise ValueError("system: only a template of kind chat has a system message")
        return self


def read_template(source: str | Path) -> TemplateData:
    """Read a shipped template by its name, or a YAML file by its path.

    The name is "terse", or "webshop/terse" for a template that an environment ships. The key ``extends`` names another
    template, whose keys hold where the file has none of its own: a shipped one, or a file beside the file.

    Raises:
        UserError: there is no such template, or its content is wrong.
    """
    return parse_model(TemplateData, _read_extended(source), f"template {source}", "file")


def own_template(env: str, name: str) -> str:
    """Return the name of an environment's own version of a general template, or ``name`` if it has none."""
    folder = templates_of(env)
    return f"{env}/{name}" if folder is not None and (folder / f"{name}.yaml").is_file() else name


def _read_extended(source: str | Path, extended: tuple[str, ...] = ()) -> dict[str, Any]:
    """The keys of a template, with those of the template it extends. ``extended`` names the templates above it."""
    tree = read_mapping(find_yaml(source, _shipped_templates(source), "template"))
    if "extends" not in tree:
        return tree
    base = tree.pop("extends")
    if not isinstance(base, str) or not base:
        raise UserError(f"template {source}: `extends` should name a template (given: {shortened(repr(base))})")
    with suppress(UserError):
        if (beside := user_path(Path(source).parent / base)).is_file():
            base = str(beside)
    if base in extended:
        raise UserError(f"template {source}: extends {base}, which extends it")
    try:
        return _read_extended(base, (*extended, base)) | tree
    except UserError as error:
        raise UserError(f"template {source}: extends {shortened(base)}: {error}") from None


def _shipped_templates(source: str | Path) -> dict[str, Any]:
    """The templates that ``source`` can name: the general ones, and those of the environment before its last slash."""
    general = shipped_files(resources.files("hiper.plan_execute") / "templates")
    env = str(source).rpartition("/")[0]
    folder = templates_of(env) if env else None
    return general if folder is None else general | shipped_files(folder, f"{env}/")
