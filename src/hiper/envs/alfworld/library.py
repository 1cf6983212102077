"""The games of one split: which there are, and each of them as the engine plays it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from hiper.envs.alfworld.game import Game
from hiper.envs.alfworld.generate import DEFAULT_SIZE
from hiper.envs.alfworld.parser import parse_game
from hiper.envs.alfworld.sources import (
    GENERATED,
    HOW_TO_GET,
    ArchiveSource,
    FolderSource,
    GameSource,
    GeneratedSource,
)
from hiper.envs.panels import Panel
from hiper.errors import UserError
from hiper.files import named_path

DATA_VARIABLE = "ALFWORLD_DATA"
"""The environment variable that names the folder or archive of official games."""
DEFAULT_FOLDER = "~/.cache/alfworld"
"""The folder of official games where the variable is not set."""
GENERATED_GAMES = 600
"""The number of generated games of a split if none is given."""


_PLAYABLE: set[str] = set()
"""The hashes of panels whose games were all read by this process, and can be played."""


class Library:
    """The games of one split: their panel, and the games, each parsed when it is first played.

    Where the panel is not the official one by its hash, all games are read at once, so that damaged ones are found.

    Args:
        source: where the games are.
        count: how many of them, chosen by the hash of their ids; None: all.

    Raises:
        UserError: there are none, or one of them cannot be played.
    """

    def __init__(self, source: GameSource, count: int | None = None) -> None:
        panel = Panel.of(source.name, source.tasks())
        self.panel = panel if count is None else panel.subset(count)
        self.dialect = _one_dialect(source.name, {task.id: source.dialects()[task.id] for task in self.panel})
        """ "move" or "put": how these games say to lay something down."""
        self.source = source
        self._games: dict[str, Game] = {}
        if not (self.official or isinstance(source, GeneratedSource) or self.panel.hash in _PLAYABLE):
            self._check_games()
            _PLAYABLE.add(self.panel.hash)

    def _check_games(self) -> None:
        """Read every game, which takes a millisecond each: a damaged one should not end a run when it is drawn.

        Raises:
            UserError: names the first game that cannot be played, and how many there are.
        """
        broken = []
        for task in self.panel:
            try:
                self.game(task.id)
            except UserError as error:
                broken.append(str(error))
        if broken:
            raise UserError(f"{broken[0]} ({len(broken)} of the {len(self.panel):,} games cannot be played)")

    @property
    def official(self) -> bool | None:
        """Whether this is exactly the official panel of its name; None if there is no such panel."""
        known = official_panels().get(self.panel.name)
        return None if known is None else known["sha256"] == self.panel.hash

    def game(self, task_id: str) -> Game:
        """The game of a task.

        Raises:
            UserError: the id is not in the panel, or the file is broken.
        """
        game = self._games.get(task_id)
        if game is None:
            task = self.panel[task_id]
            game = self._games[task_id] = parse_game(self.source.read(task.id), self.source.where(task.id))
        return game


@cache
def official_panels() -> Mapping[str, Mapping[str, Any]]:
    """Number of tasks and hash of the official panels, by name."""
    text = files("hiper.envs.alfworld").joinpath("panels", "official.json").read_text()
    return cast(Mapping[str, Mapping[str, Any]], json.loads(text))


def open_split(
    split: str, data: str | os.PathLike[str] | None = None, games: int | None = None, size: str = DEFAULT_SIZE
) -> Library:
    """Open the games of ``split`` under ``data``.

    Args:
        split: "train", "valid_seen", "valid_unseen" or whatever the data hold.
        data: a folder, or a tar or zip archive; :data:`~hiper.envs.alfworld.sources.GENERATED` for generated games;
            None: the place that :func:`data_path` returns.
        games: how many; None: all, or for generated games :data:`GENERATED_GAMES`.
        size: size of generated games.

    Raises:
        UserError: there are no such games.
    """
    if data == GENERATED:
        return Library(GeneratedSource(split, size, GENERATED_GAMES if games is None else games))
    path = named_path(data) if data is not None else _default_data()
    if path.is_file():
        return Library(ArchiveSource(path, split), games)
    if path.is_dir():
        return Library(FolderSource(path, split), games)
    raise UserError(f"there are no ALFWorld games at '{path}': no such file or folder; {HOW_TO_GET}")


def data_path() -> Path:
    """Return the default place of official games: a folder or an archive, which may not exist."""
    return named_path(os.environ.get(DATA_VARIABLE) or DEFAULT_FOLDER)


def _default_data() -> Path:
    path = data_path()
    if not path.exists():
        origin = f"{DATA_VARIABLE} says" if os.environ.get(DATA_VARIABLE) else "the default folder is"
        raise UserError(f"no ALFWorld games found: {origin} '{path}', which does not exist; {HOW_TO_GET}")
    return path


def _one_dialect(panel: str, dialects: Mapping[str, str]) -> str:
    examples = {dialect: task_id for task_id, dialect in dialects.items()}
    if len(examples) > 1:
        raise UserError(
            f"{panel} mixes two generations of data: '{examples['put']}' says \"put X in/on Y\", "
            f"'{examples['move']}' says \"move X to Y\"; keep them apart, their results cannot be compared"
        )
    return next(iter(examples))
