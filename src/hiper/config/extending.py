"""Recipes that build on another one. ``extends: NAME`` takes its settings, of which the recipe's own replace some."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hiper.errors import UserError, shortened
from hiper.files import user_path
from hiper.strict_yaml import find_yaml, read_mapping

KEY = "extends"
DEEPEST = 10
"""The longest chain of recipes."""
CHOICES = {"env": "name", "sampler": "type", "advantages": "type"}
"""Sections whose other keys belong to the part that one key names. Another part takes none of them."""


def read_recipe(source: str | Path, shipped: Mapping[str, Traversable]) -> dict[str, Any]:
    """Read a recipe with the settings of the recipes that it extends.

    Args:
        source: The name of a shipped recipe, or the path of a YAML file. A file may extend one beside it.
        shipped: The shipped recipes by name.

    Raises:
        UserError: There is no such recipe, it cannot be read, or it extends itself.
    """
    chain: list[dict[str, Any]] = []
    names: list[str] = []
    while True:
        tree = read_mapping(find_yaml(source, shipped, "recipe"))
        names.append(shortened(source))
        chain.append(tree)
        if (base := tree.pop(KEY, None)) is None:
            break
        if not isinstance(base, str):
            raise UserError(f"{names[-1]}: '{KEY}' should be the name of a recipe, or the path of a YAML file")
        if len(chain) == DEEPEST:
            raise UserError(f"{names[0]}: {' extends '.join(names[:3])} and so on: a recipe cannot extend itself")
        beside = user_path(source).parent / base
        source = beside if base not in shipped and str(source) not in shipped and beside.is_file() else base
    whole = chain.pop()
    while chain:
        whole = merge(whole, chain.pop())
    return whole


def merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a recipe on top of those of its base. Sections are joined key by key.

    A section that names another part, such as another estimator, replaces the base's.
    """
    merged = copy.deepcopy(dict(base))
    for key, value in own.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping) and not _other_part(key, before, value):
            merged[key] = merge(before, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _other_part(section: str, before: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    choice = CHOICES.get(section)
    return choice is not None and own.get(choice, before.get(choice)) != before.get(choice)
