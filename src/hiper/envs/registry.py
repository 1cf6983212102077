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
from hiper.plugins import resolve
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
"""Factories, or the places to import them from on first use."""

_data: dict[str, DataHome | str] = {
    "alfworld": "hiper.envs.alfworld.official_files:DATA",
    "webshop": "hiper.envs.webshop.official_files:DATA",
}
"""Official data of environments, or the places to import them from."""


def register(name: str, factory: Factory | str, data: DataHome | str | None = None) -> None:
    """Register an environment for :func:`make`, and its official data for `hiper data NAME`.

    Args:
        name: the name of the environment.
        factory: a callable, or "module:function".
        data: its official data, if any, or "module:constant".

    Raises:
        ValueError: the name is taken by another factory.
    """
    if _factories.setdefault(name, factory) != factory:
        raise ValueError(f"an environment is already registered as '{name}'; choose another name")
    if data is not None:
        _data[name] = data


def names() -> list[str]:
    """Return the registered names, sorted."""
    return sorted(_factories)


def make(name: str, **options: Any) -> TextEnv:
    """Make the environment registered as ``name``, or found at ``name`` if that is "module:function".

    >>> env = make("corridor", split="held_out", cells=3)
    >>> env.reset(env.panel.tasks[0].id).goal
    'fetch the key and open the door.'

    Raises:
        UserError: there is no such environment or option, or it cannot be built.
    """
    factory = find_factory(name)
    _refuse_unknown_options(name, factory, options)
    env = factory(**_typed(name, factory, options))
    env.options = options
    return env


def find_factory(name: str) -> Factory:
    """Return the factory registered as ``name``, or found at ``name`` if that is "module:function".

    Raises:
        UserError: there is no such factory.
    """
    found: Factory = resolve("environment", name, _factories)
    return found


def templates_of(name: str) -> Traversable | None:
    """Return the folder of prompt templates that a registered environment ships beside its code, or None.

    Raises:
        UserError: the environment cannot be imported.
    """
    if name not in _factories:
        return None
    package = import_module(find_factory(name).__module__).__package__
    folder = resources.files(package) / "templates" if package else None
    return folder if folder is not None and folder.is_dir() else None


def names_with_data() -> list[str]:
    """Return the names of environments with official data, sorted."""
    return sorted(_data)


def official_data(name: str) -> DataHome:
    """Return the official data of the environment registered as ``name``.

    Raises:
        UserError: there is no such environment, or it has no official data.
    """
    if name not in _data:
        raise UserError(f"there are no official data for '{name}'; {suggestion(name, names_with_data())}")
    found: DataHome = resolve("environment", name, _data, fits=lambda place: place is not None)
    return found


def _refuse_unknown_options(name: str, factory: Factory, options: dict[str, Any]) -> None:
    parameters = signature(factory).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            raise UserError(f"environment '{name}' has no option '{option}'; {suggestion(option, parameters)}")


def _typed(name: str, factory: Factory, options: dict[str, Any]) -> dict[str, Any]:
    """Convert options to the types in the factory's signature, where these can be checked."""
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
