"""Objects found by name: in a registry, or at ``module:attribute`` in code of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from hiper.errors import UserError, suggestion


def resolve(
    what: str,
    name: str,
    registry: Mapping[str, Any],
    *,
    fits: Callable[[Any], bool] = callable,
    needs: str = "a class or a function",
) -> Any:
    """Find the object that ``name`` stands for.

    Args:
        what: The kind of thing, for messages: "environment", "estimator".
        name: A name of the registry, or "module:attribute".
        registry: By name, the object itself or the "module:attribute" where it is imported from on first use.
        fits: Whether an object is of the right kind.
        needs: The right kind in words, for messages.

    Raises:
        UserError: There is nothing of that name, its module cannot be imported, or it is of another kind.
    """
    place = registry.get(name, name)
    if name not in registry and ":" not in name:
        raise UserError(f"there is no {what} '{name}'; {suggestion(name, registry)}")
    found = _imported(what, name, place) if isinstance(place, str) else place
    if not fits(found):
        raise UserError(f"{what} '{name}' is {_kind_of(found)}; {needs} is needed")
    return found


def _imported(what: str, name: str, place: str) -> Any:
    """The object at "module:attribute"; an attribute may be nested, as in "module:Outer.Inner"."""
    module_name, _, attribute = place.partition(":")
    if not module_name or not attribute or module_name.startswith("."):
        raise UserError(f"{what} '{name}' is not of the form module:name")
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(f"{what} '{name}' cannot be imported: {error}") from error
        raise UserError(
            f"{what} '{name}' cannot be imported: there is no module '{error.name}'. If its file is in the current "
            "folder, set PYTHONPATH=. before the command"
        ) from None
    except (ImportError, SyntaxError, ValueError) as error:
        raise UserError(f"{what} '{name}' cannot be imported: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [key for key in dir(found) if not key.startswith("_")]
            raise UserError(
                f"{what} '{name}' cannot be imported: '{module_name}' has no '{attribute}'; {suggestion(part, public)}"
            )
        found = getattr(found, part)
    return found


def _kind_of(found: object) -> str:
    if isinstance(found, type):
        return "a class of another kind"
    return "a function" if callable(found) else f"of type {type(found).__name__}"
