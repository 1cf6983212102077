"""YAML files: strict parsing, and files that ship with the package.

Settings are texts, numbers, true, false, null, lists and mappings; whatever else YAML knows is refused. So is what YAML
reads in another way than people mean it: of two equal keys the last, 12:30 as 750, 010 as 8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from hiper.errors import UserError, shortened, suggestion, unreadable
from hiper.files import user_path

_LONGEST = 4_000_000
"""The largest number of characters of a document."""
_DEEPEST = 50
"""The largest number of mappings and lists inside one another."""
_MOST = 100_000
"""The largest number of values in a document, those that aliases repeat counted each time."""
_DIGITS = 40
"""The largest number of characters of a number."""
_TAG = "tag:yaml.org,2002:"
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")


def _mistake(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


class _StrictLoader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._values = 0
        self._open: set[str] = set()
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a value, unless it lies too deep, holds itself, or makes the document too large."""
        event = self.peek_event()
        anchor, before = getattr(event, "anchor", None), self._values
        alias = isinstance(event, yaml.AliasEvent)
        self._values += self._sizes.get(str(anchor), 0) if alias else 1
        if alias and anchor in self._open:
            raise yaml.MarkedYAMLError(problem=f"'{shortened(anchor)}' holds itself", problem_mark=event.start_mark)
        if self._depth > _DEEPEST or self._values > _MOST:
            limit = f"deeper than {_DEEPEST} levels" if self._depth > _DEEPEST else f"more than {_MOST:,} values"
            raise yaml.MarkedYAMLError(problem=f"settings do not go {limit}", problem_mark=event.start_mark)
        if anchor and not alias:
            self._open.add(anchor)
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if anchor and not alias:
            self._open.discard(anchor)
            self._sizes[anchor] = self._values - before
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping whose keys are texts, each there once."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _mistake("a key should be a text", key)
            if key.value in seen:
                raise _mistake(f"the key '{shortened(key.value)}' is repeated", key)
            if key.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                read = key.tag.removeprefix(_TAG)
                raise _mistake(f"the key '{shortened(key.value)}' is read as {shortened(read)}: put it in quotes", key)
            seen.add(key.value)
        return node


def _checked(kind: str, read: Callable[[Any, Any], Any]) -> Callable[[_StrictLoader, yaml.Node], Any]:
    """A constructor of values of one kind that refuses what is none, or what people mean in another way."""

    def construct(loader: _StrictLoader, node: yaml.Node) -> Any:
        text = str(loader.construct_scalar(node))  # type: ignore[arg-type]
        given = f"'{shortened(text)}'"
        if kind == "number" and len(text) > _DIGITS:
            raise _mistake(f"{given} is too long for a number; put it in quotes if it is a text", node)
        if kind == "number" and ":" in text:
            raise _mistake(f"{given} is read as a number to the base 60: put it in quotes if it is a text", node)
        if kind == "number" and _LEADING_ZERO.fullmatch(text):
            raise _mistake(f"{given} is read as a number to the base 8: leave out the zero, or put it in quotes", node)
        try:
            return read(loader, node)
        except (ValueError, KeyError, IndexError, OverflowError):
            raise _mistake(f"{given} is no {kind}; put it in quotes if it is a text", node) from None

    return construct


for _name, _kind in (("int", "number"), ("float", "number"), ("bool", "true or false")):
    _StrictLoader.add_constructor(_TAG + _name, _checked(_kind, yaml.SafeLoader.yaml_constructors[_TAG + _name]))
for _name in ("timestamp", "binary", "set", "omap", "pairs"):
    _StrictLoader.add_constructor(_TAG + _name, yaml.SafeLoader.construct_undefined)  # type: ignore[type-var]
# Dates and a lone "=" are texts.
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag.removeprefix(_TAG) not in ("timestamp", "value")]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str) -> Any:
    """Parse one YAML document.

    Raises:
        yaml.YAMLError: the text is not valid, repeats a key, or holds what is no setting. The message names the line
            and quotes at most a line of it.
    """
    if len(text) > _LONGEST:
        raise yaml.YAMLError(f"it has {len(text):,} characters; settings have at most {_LONGEST:,}")
    try:
        return yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as error:
        raise yaml.YAMLError(_told(error)) from None
    except yaml.reader.ReaderError as error:
        raise yaml.YAMLError(
            f"the character #x{error.character:04x} at place {error.position} is not allowed"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise yaml.YAMLError(shortened(error)) from None


def _told(error: yaml.MarkedYAMLError) -> str:
    """What is wrong, in which line, and the line."""
    problem = shortened(error.problem or error.context or "something is wrong", 200)
    if found := re.match(r"could not determine a constructor for the tag '(.*)", problem):
        tag = found[1].replace(_TAG, "!!").removesuffix("'")
        problem = f"'{tag}' is not for settings: write a text, a number, true, false, null, a list or a mapping"
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return problem
    snippet = (mark.get_snippet(indent=2) or "").expandtabs(1)  # so that the mark below stays in its place
    return f"{problem}\n  in line {mark.line + 1}, column {mark.column + 1}{f':{chr(10)}{snippet}' if snippet else ''}"


def read_mapping(file: Traversable) -> dict[str, Any]:
    """Read the mapping in a YAML file.

    Raises:
        UserError: the file cannot be read, is empty, or holds something else.
    """
    try:
        tree = parse_yaml(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{file} is not a readable YAML file: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not a readable YAML file: {unreadable(error)}") from error
    if tree is None:
        raise UserError(f"{file} is empty or damaged: it should hold a mapping of keys to values")
    if not isinstance(tree, dict):
        raise UserError(f"{file} should hold a mapping of keys to values; it holds a {type(tree).__name__}")
    return tree


def shipped_files(folder: Traversable, prefix: str = "") -> dict[str, Traversable]:
    """The YAML files in a folder by name, sorted. The name has no suffix, and ``prefix`` before it."""
    files = {file.name.removesuffix(".yaml"): file for file in folder.iterdir() if file.name.endswith(".yaml")}
    return {f"{prefix}{name}": files[name] for name in sorted(files)}


def find_yaml(source: str | Path, shipped: Mapping[str, Traversable], kind: str) -> Traversable:
    """Find a YAML file: a shipped one by its name, or any other by its path.

    Args:
        source: the name or the path. A shipped file comes first.
        shipped: the shipped files by name.
        kind: what the files hold, for the error message.

    Raises:
        UserError: there is no such file.
    """
    if str(source) in shipped:
        return shipped[str(source)]
    with suppress(UserError):
        if (path := user_path(source)).is_file():
            return path
    raise UserError(
        f"'{shortened(source)}' is neither a shipped {kind} nor a YAML file; {suggestion(str(source), shipped)}"
    )
