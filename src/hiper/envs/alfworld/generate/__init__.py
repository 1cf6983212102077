"""Generated games: rooms, objects and tasks of our own, written as standard ``game.tw-pddl`` files.

A game is a pure function of split, index, size and task type, the same on every machine. The splits train, valid_unseen
and test have disjoint rooms: no room of one is furnished like a room of another. valid_seen has the rooms of train.

    >>> game = generate_game("valid_unseen", 0, size="tiny")
    >>> game.type
    'pick_and_place_simple'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hiper.envs.alfworld.generate.contents import Goal, draw_goal, fill, possible_goals
from hiper.envs.alfworld.generate.household import household
from hiper.envs.alfworld.generate.scene import GENERATOR_VERSION, SIZES, SPLITS, Scene, Size, draw_scene
from hiper.envs.alfworld.generate.standard import SENTENCES, game_text
from hiper.envs.dice import Dice
from hiper.errors import NoSplitError, UserError, suggestion

TASK_TYPES = tuple(SENTENCES)
"""The six task types, in the order in which a split cycles through them."""
DEFAULT_SIZE = "small"
"""The size of a game if none is given."""

_TASK_ID = re.compile(r"generated-(?P<size>\w+)/(?P<split>\w+)/(?P<task>\w+)-[^/]*/g(?P<index>\d{5,})")

__all__ = [
    "DEFAULT_SIZE",
    "GENERATOR_VERSION",
    "SIZES",
    "SPLITS",
    "TASK_TYPES",
    "GeneratedGame",
    "Size",
    "generate_game",
    "regenerate",
    "write_games",
]


@dataclass(frozen=True, slots=True)
class GeneratedGame:
    """One generated game."""

    task_id: str
    """The id, such as ``generated-small/valid_unseen/pick_and_place_simple-Mug-None-Shelf-kitchen642/g00017``."""
    type: str
    text: str
    """The complete JSON of the game's ``game.tw-pddl`` file."""


def generate_game(
    split: str, index: int, size: str = DEFAULT_SIZE, task_types: Iterable[str] = TASK_TYPES
) -> GeneratedGame:
    """Return game number ``index`` of a split. A split is endless and cycles through ``task_types``.

    Raises:
        UserError: unknown split, size or task type, no task type at all, or a negative index.
    """
    _known("split", split, SPLITS, NoSplitError)
    _known("size of generated games", size, SIZES)
    kinds = _in_order(task_types)
    if index < 0:
        raise UserError(f"the index of a generated game must not be negative, but is {index}")
    task = kinds[index % len(kinds)]

    dice = Dice(GENERATOR_VERSION, "game", size, split, task, index)
    scene, goal = _set_task(task, size, split, dice)
    items = fill(scene, goal, SIZES[size], dice)

    folder = f"{task}-{goal.object}-None-{goal.target}-{scene.name}"
    name = f"generated_{size}_{split}_{scene.name}_{index}"
    text = game_text(scene, goal, items, name, wording=dice.between(0, 1))
    return GeneratedGame(f"generated-{size}/{split}/{folder}/g{index:05d}", task, text)


def regenerate(task_id: str) -> GeneratedGame:
    """Return the game that :func:`generate_game` gave this id, so that nobody needs to keep thousands of texts.

    Raises:
        UserError: no game of this version of the generator has the id.
    """
    if parts := _TASK_ID.fullmatch(task_id):
        game = generate_game(parts["split"], int(parts["index"]), parts["size"], [parts["task"]])
        if game.task_id == task_id:
            return game
    raise UserError(
        f"there is no generated game '{task_id}'; version {GENERATOR_VERSION} of the generator made no such"
    )


def write_games(
    folder: Path, split: str, count: int, size: str = DEFAULT_SIZE, task_types: Sequence[str] = TASK_TYPES
) -> list[Path]:
    """Write the first ``count`` games of a split below ``folder``, in the layout of the official data."""
    paths = []
    for index in range(count):
        game = generate_game(split, index, size, task_types)
        path = folder.joinpath(*game.task_id.split("/")[1:], "game.tw-pddl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(game.text, encoding="utf-8")
        paths.append(path)
    return paths


def _set_task(task: str, size: str, split: str, dice: Dice) -> tuple[Scene, Goal]:
    """Draw a room of the split that allows a task of this type, and one such task."""
    while True:
        scene = draw_scene(size, dice.weighted(household().tasks[task]), split, dice)
        if goals := possible_goals(task, scene):
            return scene, draw_goal(goals, scene, dice)


def _in_order(task_types: Iterable[str]) -> list[str]:
    """Sort the chosen task types as :data:`TASK_TYPES`, so that the order of choosing does not matter."""
    chosen = set(task_types)
    if not chosen:
        raise UserError(f"no task types for generated games; choose from: {', '.join(TASK_TYPES)}")
    for kind in sorted(chosen):
        _known("task type", kind, TASK_TYPES)
    return [kind for kind in TASK_TYPES if kind in chosen]


def _known(what: str, given: str, choice: Iterable[str], error: type[UserError] = UserError) -> None:
    options = list(choice)
    if given not in options:
        raise error(f"unknown {what} '{given}'; {suggestion(given, options)}")
