"""A reader of games from files, folders and archives."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from hiper.envs.alfworld.library import open_split
from hiper.envs.alfworld.sources import GAME_FILE, archived_games, read_bytes
from hiper.errors import UserError


def read_games(paths: Iterable[Path], count: int | None = None, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield the id and the text of games in files, folders of any depth and archives.

    Args:
        paths: game files, folders and archives. The names of the last three folders make an id.
        count: the number of games, drawn by the hash of their ids with ``seed``; None: all.
        seed: the seed of the draw.

    Raises:
        UserError: there is nothing there, or fewer games than asked for.
    """
    located = {game_id: (path, inner) for path in paths for game_id, inner in _locate(path)}
    wanted: dict[Path, dict[str, str]] = {}
    for game_id in _draw(located, count, seed):
        path, inner = located[game_id]
        wanted.setdefault(path, {})[inner] = game_id
    for path, members in wanted.items():
        if path.is_file() and path.name != GAME_FILE:
            yield from (
                (members[key], text) for parts, text in archived_games(path) if (key := "/".join(parts)) in members
            )
        else:
            yield from ((game_id, read_bytes(Path(inner))) for inner, game_id in members.items())


def _locate(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the id and the place (a file, or a member of the archive) of every game at ``path``."""
    if path.is_dir():
        inner = [(file.parts, str(file)) for file in path.resolve().rglob(GAME_FILE)]
    elif path.name == GAME_FILE:
        inner = [(path.resolve().parts, str(path))]
    elif path.is_file():
        inner = [(parts, "/".join(parts)) for parts, _ in archived_games(path)]
    else:
        raise UserError(f"'{path}' does not exist; give game files, folders of games or tar archives")
    return (("/".join(parts[-4:-1]), place) for parts, place in inner)


def read_chores(
    path: Path, split: str, chores: int, count: int | None = None, seed: int = 0
) -> Iterator[tuple[str, bytes | str]]:
    """Yield the id and the text of joined games; see :mod:`hiper.envs.alfworld.chores`.

    Args:
        path: a folder or an archive of games, or "generated".
        split: the split whose games are joined.
        chores: how many are joined into one.
        count: the number of joined games, drawn by the hash of their ids with ``seed``; None: all.
        seed: the seed of the draw.

    Raises:
        UserError: there are no such games, or fewer than asked for.
    """
    source = open_split(split, str(path), chores=chores).source
    drawn = _draw((task.id for task in source.tasks()), count, seed)
    yield from ((task_id, source.read(task_id)) for task_id in drawn)


def _draw(ids: Iterable[str], count: int | None, seed: int) -> list[str]:
    """Return ids in order, all or as many as asked for, drawn by their hash with the seed."""
    found = list(ids)
    if not found or (count or 0) > len(found):
        raise UserError(f"there are {len(found)} games in the given paths; {count or 'some'} were asked for")
    return sorted(sorted(found, key=lambda game_id: hashlib.sha256(f"{seed}/{game_id}".encode()).digest())[:count])
