"""Checks of data that people write, and messages about what is wrong with it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from hiper.errors import SHOWN_CHARACTERS, UserError, shortened, suggestion

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
"""Pydantic's error types for a key that a model or a dataclass does not have."""
NO_MAPPING = ("model_type", "dataclass_type", "dict_type", "mapping_type")
"""Pydantic's error types for a value that should be a mapping."""

LISTS = ("tuple_type", "list_type")
"""Pydantic's error types for a value that should be a list."""
NEEDED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number is needed"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number is needed"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false is needed"),
    **dict.fromkeys(LISTS, "a list is needed"),
    "string_type": "a text is needed",
}
"""What is needed, in words, by pydantic's error type."""

SHOWN_PROBLEMS = 5
"""The number of wrong keys and values that one message tells."""


class StrictModel(BaseModel):
    """Immutable data read from a file. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=BaseModel)


def parse_model(model: type[Model], data: object, source: str, root: str) -> Model:
    """Make a model of data that people wrote.

    Args:
        model: what to make.
        data: mostly a tree of mappings, as read from YAML.
        source: where the data come from; error messages begin with it.
        root: the name of the data as a whole in error messages.

    Raises:
        UserError: names every wrong key and value.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        messages = []
        for problem in problems_of(error):
            path = [str(part) for part in problem["loc"]]
            messages.append(problem_message(problem, path, root, keys_at(model, path[:-1])))
        raise UserError(f"{source}: {joined(messages)}") from None


def joined(messages: Sequence[str]) -> str:
    """One message of several, one a line; of very many, the first ones."""
    more = [f"and {len(messages) - SHOWN_PROBLEMS:,} more"] if len(messages) > SHOWN_PROBLEMS else []
    return "\n  ".join([*messages[:SHOWN_PROBLEMS], *more])


def problem_message(problem: ErrorDetails, path: Sequence[str], root: str, known: Iterable[str] = ()) -> str:
    """Say what is wrong with one key or value.

    Args:
        problem: as pydantic found it.
        path: the keys that lead to it; may be empty.
        root: the name of the data as a whole.
        known: the valid keys beside the last key of ``path``.
    """
    key = shortened(".".join(path))
    kind, value = problem["type"], problem["input"]
    if kind in UNKNOWN_KEY:
        return f"unknown key '{key}'; {suggestion(path[-1], known)}"
    if kind == "missing":
        return f"'{key}' is missing"
    if kind in NO_MAPPING:
        return f"{key or root}: a section is needed, with keys and values in it (given: {_shown(value)})"
    given = "" if isinstance(value, Mapping) else f" (given: {_shown(value)})"
    if kind in LISTS and isinstance(value, str | int | float):
        return f"{key or root}: a list is needed, as in [{shortened(value)}]{given}"
    said = NEEDED.get(kind) or problem["msg"].removeprefix("Value error, ").replace("Input should be", "it should be")
    return f"{key or root}: {shortened(said, 400)}{given}"


def problems_of(error: ValidationError) -> list[ErrorDetails]:
    """Return the problems that pydantic found, without those that follow from others: a list short of its bad items."""
    problems = error.errors()
    paths = [problem["loc"] for problem in problems]
    return [
        problem
        for problem in problems
        if problem["type"] != "too_short"
        or not any(len(path) > len(problem["loc"]) and path[: len(problem["loc"])] == problem["loc"] for path in paths)
    ]


COOLEST, HOTTEST = 0.001, 100.0
"""The limits of a sampling temperature: beyond them, logits are no numbers any more, or say nothing."""


def check_temperature(temperature: float) -> float:
    """Return a temperature, which is 0 or lies within the limits.

    Raises:
        UserError: It does not.
    """
    if temperature and not COOLEST <= temperature <= HOTTEST:
        raise UserError(f"the temperature is {temperature}: give 0 (greedy), or {COOLEST} to {HOTTEST:g}")
    return temperature


def keys_at(model: Any, path: Sequence[str]) -> list[str]:
    """The valid keys of the section at ``path`` of a model; none if there is no section."""
    sections = _sections_in(model)
    for part in path:
        below = [
            section.model_fields[part].annotation
            for section in sections
            if issubclass(section, BaseModel) and part in section.model_fields
        ]
        # Any other part is an index or a key of a collection, whose items are the sections found already.
        if below:
            sections = [section for annotation in below for section in _sections_in(annotation)]
    return list(dict.fromkeys(key for section in sections for key in _keys_of(section)))


def _sections_in(annotation: Any) -> list[Any]:
    """The models and dataclasses that an annotation names, also as items of a collection or members of a union."""
    if inspect.isclass(annotation) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections_in(argument)]


def _keys_of(section: Any) -> list[str]:
    if issubclass(section, BaseModel):
        return list(section.model_fields)
    return [field.name for field in dataclasses.fields(section)]


def _shown(value: object) -> str:
    return shortened(repr(value[: SHOWN_CHARACTERS + 1] if isinstance(value, str) else value))
