"""A reader of games from files, folders and archives."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

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
    if not located or (count or 0) > len(located):
        raise UserError(f"there are {len(located)} games in the given paths; {count or 'some'} were asked for")
    drawn = sorted(located, key=lambda game_id: hashlib.sha256(f"{seed}/{game_id}".encode()).digest())[:count]
    wanted: dict[Path, dict[str, str]] = {}
    for game_id in sorted(drawn):
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
