"""Environments by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module, resources
from inspect import isclass, signature
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from hiper.envs.base import TextEnv
from hiper.errors import UserError, suggestion
from hiper.validation import problem_message

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from hiper.envs.downloads import DataHome

Factory = Callable[..., TextEnv]

_factories: dict[str, Factory | str] = {
    "alfworld": "hiper.envs.alfworld.env:make",
    "boxes": "hiper.envs.small.boxes:make",
    "corridor": "hiper.envs.small.corridor:make",
    "webshop": "hiper.envs.webshop.env:make",
}
"""A factory, or where to import one from when it is first asked for."""

_data: dict[str, DataHome | str] = {
    "alfworld": "hiper.envs.alfworld.official:DATA",
    "webshop": "hiper.envs.webshop.official:DATA",
}
"""Of environments with official data: these, or where to import them from."""


def register(name: str, factory: Factory | str, data: DataHome | str | None = None) -> None:
    """Make ``make(name, ...)`` call ``factory``, and `hiper data NAME` look after ``data``.

    Args:
        name: of the environment.
        factory: a callable, or "module:function".
        data: its official data if it has any, or "module:constant".

    Raises:
        ValueError: the name is taken by another factory.
    """
    if _factories.setdefault(name, factory) != factory:
        raise ValueError(f"an environment is already registered as '{name}'; choose another name")
    if data is not None:
        _data[name] = data


def names() -> list[str]:
    """The registered names, sorted."""
    return sorted(_factories)


def make(name: str, **options: Any) -> TextEnv:
    """The environment registered as ``name``, or found at ``name`` if that is "module:function"; with ``options``.

    Raises:
        UserError: there is no such environment or option, or it cannot be built.
    """
    factory = _find(name)
    _refuse_unknown_options(name, factory, options)
    env = factory(**_typed(name, factory, options))
    env.options = options
    return env


def _find(name: str) -> Factory:
    factory = name if ":" in name else _factories.get(name)
    if factory is None:
        raise UserError(f"there is no environment '{name}'; {suggestion(name, names())}")
    if not isinstance(factory, str):
        return factory
    found: Factory = _imported(name, factory)
    return found


def _imported(name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"environment '{name}' cannot be imported: {error}") from error


def templates_of(name: str) -> Traversable | None:
    """The folder of the prompt templates that the environment registered as ``name`` ships beside its code, or None.

    Raises:
        UserError: the environment cannot be imported.
    """
    if name not in _factories:
        return None
    package = import_module(_find(name).__module__).__package__
    folder = resources.files(package) / "templates" if package else None
    return folder if folder is not None and folder.is_dir() else None


def names_with_data() -> list[str]:
    """The names of environments that have official data, sorted."""
    return sorted(_data)


def official_data(name: str) -> DataHome:
    """The official data of the environment registered as ``name``.

    Raises:
        UserError: there is no such environment, or it has none.
    """
    if name not in _data:
        raise UserError(f"there are no official data for '{name}'; {suggestion(name, names_with_data())}")
    place = _data[name]
    if not isinstance(place, str):
        return place
    found: DataHome = _imported(name, place)
    return found


def _refuse_unknown_options(name: str, factory: Factory, options: dict[str, Any]) -> None:
    parameters = signature(factory).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            raise UserError(f"environment '{name}' has no option '{option}'; {suggestion(option, parameters)}")


def _typed(name: str, factory: Factory, options: dict[str, Any]) -> dict[str, Any]:
    """The options as the types that the factory asks for, where it says so in a way that can be checked."""
    typed = dict(options)
    for option, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"environment '{name}', option '{option}': a finite number is needed (given: {value!r})")
    for option, kind in _types(factory).items():
        if option in options:
            try:
                with suppress(PydanticUserError):
                    typed[option] = TypeAdapter(kind).validate_python(options[option])
            except ValidationError as error:
                where = f"environment '{name}', option '{option}'"
                raise UserError(problem_message(error.errors()[0], (), where)) from None
    return typed


def _types(factory: Factory) -> dict[str, Any]:
    try:
        return get_type_hints(factory.__init__ if isclass(factory) else factory)
    except (NameError, TypeError):  # annotations may name what only a type checker imports; objects may have none
        return {}
