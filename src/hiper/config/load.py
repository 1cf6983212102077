"""Loading of settings: shipped recipes, YAML files, overrides, and messages about what is wrong with them."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hiper.advantages import ESTIMATORS
from hiper.config.estimators import parameters_of
from hiper.config.extending import read_recipe
from hiper.config.tree import Config
from hiper.errors import UserError, shortened, suggestion
from hiper.strict_yaml import parse_yaml, shipped_files
from hiper.validation import UNKNOWN_KEY, joined, keys_at, problem_message, problems_of

log = logging.getLogger(__name__)

_DEEPEST_KEY = 20
"""The largest number of parts of a dotted key."""
MOVED_KEYS = {"rollout.batch_tokens": "sampler.batch_tokens"}
"""Keys that settings on disk may still have, each with its new name."""


def recipe_names() -> list[str]:
    """The names of the shipped recipes, sorted."""
    return list(_recipes())


def recipe_summary(name: str) -> str:
    """The purpose of a shipped recipe: the first paragraph of the comment at its top."""
    lines = _recipes()[name].read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("# "), lines))


def recipe_text(name: str) -> str:
    """The YAML of a shipped recipe, comments included.

    Raises:
        UserError: there is no such recipe.
    """
    if name not in _recipes():
        raise UserError(f"'{name}' is no shipped recipe; {suggestion(name, recipe_names())}")
    return _recipes()[name].read_text(encoding="utf-8")


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Load a shipped recipe by its name, or a YAML file by its path, with ``dotted.key=value`` overrides.

    A recipe that ``extends`` another one has its settings too (:mod:`hiper.config.extending`).

    >>> load_config("quickstart", ["learner.lr=1e-4"]).learner.lr
    0.0001

    Raises:
        UserError: there is no such recipe or file, or a key or a value is wrong; the message names it.
    """
    tree = read_recipe(source, _recipes())
    config = validate_config(apply_overrides(tree, overrides), str(source))
    for key in given_keys(overrides):
        for stage, name in ((config.warm_start, "warm_start"), (config.warm_start.imperfect, "warm_start.imperfect")):
            if key == f"{name}.epochs" and stage.turns is not None:
                raise UserError(
                    f"{key} has no effect beside {name}.turns, which is {stage.turns}: set {name}.turns itself, or add "
                    f"{name}.turns=null"
                )
        if reason := _idle(key, config):
            _say_idle(key, reason)
    if config.prompt.thinking is not None and config.model.path is None:
        _say_idle("prompt.thinking", "a nano model does not think, as no demonstration does; set model.path")
    return config


def given_keys(overrides: Sequence[str]) -> list[str]:
    """The dotted keys that overrides set, those inside a section such as ``advantages={type: grpo}`` included.

    Raises:
        UserError: see :func:`apply_overrides`.
    """
    return [key for key, _ in flatten(apply_overrides({}, overrides))]


def _idle(key: str, config: Config) -> str | None:
    """Why a setting that someone gave has no effect. None: it has one, or nothing is known."""
    imperfect, dagger, estimator = config.warm_start.imperfect, config.warm_start.dagger, config.advantages
    if key.startswith("model.nano.") and config.model.path is not None:
        return f"model.path names a model ({shortened(config.model.path)})"
    if key.startswith("warm_start.") and key != "warm_start.tasks" and not config.warm_start.tasks:
        return "warm_start.tasks is 0, so there is no warm start"
    switch_off = ("warm_start.imperfect.epochs", "warm_start.imperfect.turns")
    if key.startswith("warm_start.imperfect.") and key not in switch_off and not (imperfect.epochs or imperfect.turns):
        return "warm_start.imperfect.epochs is 0, so there is no such stage"
    if key.startswith("warm_start.dagger.") and key != "warm_start.dagger.rounds" and not dagger.rounds:
        return "warm_start.dagger.rounds is 0, so there is no such stage"
    if key in _OF_CRITICS and estimator.critic == "none":
        return f"advantages.type '{estimator.type}' has no critic"
    return None


_OF_CRITICS = ("model.critic", "learner.critic_lr", "learner.value_coef", "learner.value_clip")
"""The settings of critics."""


@cache
def _say_idle(key: str, reason: str) -> None:
    """Log once that a setting has no effect."""
    log.warning("%s has no effect: %s", key, reason)


def validate_config(tree: Mapping[str, Any], source: str) -> Config:
    """Make the typed settings of a tree of mappings.

    Args:
        tree: settings by section; it may use the names before the move of a key (:data:`MOVED_KEYS`).
        source: where they come from; error messages begin with it.

    Raises:
        UserError: names every wrong key and value, with the nearest valid name for an unknown key.
    """
    try:
        tree = rename_moved_keys(tree)
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{source}: {joined(list(_messages(error)))}") from None
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    if misread := list(_misread(tree, config)):
        raise UserError(f"{source}: {joined(misread)}")
    return config


def rename_moved_keys(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``tree`` with new names for the keys of :data:`MOVED_KEYS`.

    Raises:
        UserError: the tree holds a key under its old and its new name.
    """
    renamed = copy.deepcopy(dict(tree))
    for old, new in MOVED_KEYS.items():
        (old_section, old_key), (new_section, new_key) = old.split("."), new.split(".")
        section = renamed.get(old_section)
        if not isinstance(section, dict) or old_key not in section:
            continue
        target = renamed.setdefault(new_section, {})
        if not isinstance(target, dict) or new_key in target:
            raise UserError(f"'{old}' is the old name of '{new}', which is set as well: remove '{old}'")
        target[new_key] = section.pop(old_key)
    return renamed


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All values in a tree of mappings, each with its dotted key."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def apply_overrides(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of ``tree`` with the ``dotted.key=value`` overrides in it. Values are read as YAML.

    Raises:
        UserError: an override is not of this form, or its key goes below a value.
    """
    changed = copy.deepcopy(dict(tree))
    for override in overrides:
        key, value = parse_setting(override)
        *parents, leaf = key.split(".")
        section: Any = changed
        for parent in parents:
            if section.get(parent) is None:  # saved settings hold a section that is not there as null
                section[parent] = {}
            section = section[parent]
            if not isinstance(section, dict):
                raise UserError(f"'{shortened(override)}': '{shortened(parent)}' is a value, not a section")
        section[leaf] = value
    return changed


def parse_setting(text: str) -> tuple[str, Any]:
    """Key and value of ``dotted.key=value``. The value is read as YAML.

    Raises:
        UserError: the text is not of this form.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise UserError(f"'{shortened(text)}' is not of the form dotted.key=value, without spaces")
    if key.count(".") >= _DEEPEST_KEY:
        raise UserError(f"'{shortened(text)}': no setting has a key of more than {_DEEPEST_KEY} parts")
    try:
        return key, _number(parse_yaml(value))
    except yaml.YAMLError as error:
        raise UserError(f"'{shortened(key)}': the value is not valid YAML: {error}") from None


def _number(value: Any) -> Any:
    """The number that a text means, if it means one: YAML 1.1 reads 1e-3 as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _misread(tree: Mapping[str, Any], config: Config) -> Iterator[str]:
    """Messages about values that YAML or pydantic read in another way than people mean them."""
    understood = dict(flatten(config.model_dump()))
    for key, given in flatten(tree):
        if isinstance(given, bool) and type(understood.get(key)) in (int, float):
            yield f"{key}: a number is needed (given: {given!r}; YAML reads yes, no, on and off so)"
        if isinstance(given, float) and not math.isfinite(given):
            yield _infinite(key, given)


def _infinite(key: str, given: float) -> str:
    return f"{key}: a finite number is needed (given: {given!r})"


def _messages(error: ValidationError) -> Iterator[str]:
    """One message for each problem that pydantic found."""
    for problem in problems_of(error):
        path = [str(part) for part in problem["loc"]]
        # The type of an estimator is part of the path to its parameters.
        estimator = path.pop(1) if path[:1] == ["advantages"] and path[1:] else None
        given = problem["input"]
        if problem["type"] in UNKNOWN_KEY:
            yield _unknown_key(path, estimator, given)
        elif isinstance(given, float) and not math.isfinite(given):
            yield _infinite(".".join(path), given)
        else:
            yield problem_message(problem, path, "recipe")


def _unknown_key(path: Sequence[str], estimator: str | None, given: Any) -> str:
    """Say what an unknown key could mean: a key like it, one of the same name elsewhere, or an option.

    Args:
        path: the keys that lead to it.
        estimator: the type of the estimator, if it is one of its parameters.
        given: its value.
    """
    leaf = path[-1]
    every = [key for key, _ in flatten(Config().model_dump())]
    if estimator and any(leaf in parameters_of(other) for other in ESTIMATORS):
        return (
            f"advantages.type '{estimator}' has no '{shortened(leaf)}'; leave it out, and if the recipe gives it, give "
            f"the whole section instead, as in advantages='{{type: {estimator}}}'"
        )
    if isinstance(given, Mapping) and (below := next(flatten(given, f"{leaf}."), None)):
        # A section of another name: what was meant is a key of a section.
        return f"unknown key '{shortened(below[0])}'; {suggestion(below[0], every, keys_at(Config, ()))}"
    elsewhere = sorted((f"'{key}'" for key in every if key.endswith(f".{leaf}")), key=len)
    known = parameters_of(estimator) if estimator else keys_at(Config, path[:-1])
    within = "".join(f"{part}." for part in path[:-1])
    meant = suggestion(f"{within}{leaf}", [f"{within}{key}" for key in known])
    if elsewhere and not estimator:
        meant = f"did you mean {' or '.join(elsewhere)}?"
    option = f" (an option of the environment is env.{shortened(leaf)})" if len(path) == 1 and not elsewhere else ""
    return f"unknown key '{shortened('.'.join(path))}'{option}; {meant}"


def _recipes() -> dict[str, Traversable]:
    """The files of the shipped recipes by name."""
    return shipped_files(resources.files("hiper") / "recipes")
