"""Where games come from: folders, tar archives, or any other :class:`GameSource`."""

from __future__ import annotations

import hashlib
import json
import logging
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, cast

from hiper.envs.alfworld.game import Game, parse_game
from hiper.envs.alfworld.generate import generate_game
from hiper.envs.panels import Panel, Task
from hiper.errors import NoSplitError, UserError

log = logging.getLogger(__name__)

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
GAME_FILE = "game.tw-pddl"
RELEASE = "json_2.1.1"
"""The folder that the official download puts around the splits."""
GENERATED = "generated"
"""As ``data``: generated games instead of official ones."""
GENERATED_GAMES = 600
"""How many generated games a split has unless told."""
DEFAULT_FOLDER = "~/.cache/alfworld"
DATA_VARIABLE = "ALFWORLD_DATA"
"""The environment variable that names another place."""
_HOW_TO_GET = (
    "get the games with `hiper data alfworld --get games` (or `alfworld-download`), set ALFWORLD_DATA, or let `data` "
    f"name a folder, a tar archive or '{GENERATED}'"
)


class GameSource(Protocol):
    """The games of one split."""

    name: str
    """Name of the panel."""

    def tasks(self) -> Iterable[Task]:
        """Every game: stable id ("<split>/<task folder>/<trial>"), one of :data:`TASK_TYPES`, digest of its text."""

    def dialects(self) -> Mapping[str, str]:
        """ "put" or "move", by task id."""

    def read(self, task_id: str) -> bytes | str:
        """The JSON text of a game."""

    def where(self, task_id: str) -> str:
        """How to name the game's file in a message."""


class Library:
    """The games of one split: their panel, and the games themselves, parsed when first played.

    Args:
        source: where the games are.
        count: how many of them, chosen by the hash of their ids; None: all.
    """

    def __init__(self, source: GameSource, count: int | None = None) -> None:
        panel = Panel.of(source.name, source.tasks())
        self.panel = panel if count is None else panel.subset(count)
        self.dialect = _one_dialect(source.name, {task.id: source.dialects()[task.id] for task in self.panel})
        """ "move" or "put": how these games say to lay something down."""
        self.source = source
        self._games: dict[str, Game] = {}

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
    split: str, data: str | os.PathLike[str] | None = None, games: int | None = None, size: str = "small"
) -> Library:
    """The games of ``split`` under ``data``.

    Args:
        split: "train", "valid_seen", "valid_unseen" or whatever the data hold.
        data: a folder or a tar archive; :data:`GENERATED` for generated games; None looks where ALFWORLD_DATA
            says, then in ``~/.cache/alfworld``.
        games: how many; None: all, or for generated games :data:`GENERATED_GAMES`.
        size: size of generated games.

    Raises:
        UserError: there are no such games.
    """
    if data == GENERATED:
        return Library(GeneratedSource(split, size, GENERATED_GAMES if games is None else games))
    path = Path(data).expanduser() if data is not None else _default_data()
    if path.is_file():
        return Library(ArchiveSource(path, split), games)
    if path.is_dir():
        return Library(FolderSource(path, split), games)
    raise UserError(f"there are no ALFWorld games at '{path}': no such file or folder; {_HOW_TO_GET}")


def data_path() -> Path:
    """Where games are looked for that no setting names: a folder or an archive, which may not exist."""
    return Path(os.environ.get(DATA_VARIABLE) or DEFAULT_FOLDER).expanduser()


def _default_data() -> Path:
    path = data_path()
    if not path.exists():
        origin = f"{DATA_VARIABLE} says" if os.environ.get(DATA_VARIABLE) else "the default folder is"
        raise UserError(f"no ALFWorld games found: {origin} '{path}', which does not exist; {_HOW_TO_GET}")
    return path


class FolderSource:
    """Games unpacked in a folder, laid out as the official release: ``[json_2.1.1/]<split>/<task>/<trial>/``."""

    def __init__(self, root: Path, split: str) -> None:
        self.name = f"alfworld/{split}"
        self._folder = _split_folder(root, split)
        self._catalogue = _Catalogue(str(self._folder))
        for file in self._folder.glob(f"*/*/{GAME_FILE}"):
            self._catalogue.add("/".join((split, *file.parts[-3:-1])), _read_bytes(file))

    def tasks(self) -> Iterable[Task]:
        """See :class:`GameSource`."""
        return self._catalogue.tasks()

    def dialects(self) -> Mapping[str, str]:
        """See :class:`GameSource`."""
        return self._catalogue.dialects

    def read(self, task_id: str) -> bytes:
        """See :class:`GameSource`."""
        return _read_bytes(self._file(task_id))

    def where(self, task_id: str) -> str:
        """See :class:`GameSource`."""
        return str(self._file(task_id))

    def _file(self, task_id: str) -> Path:
        return self._folder.joinpath(*task_id.split("/")[1:], GAME_FILE)


def _split_folder(root: Path, split: str) -> Path:
    levels = (root, root / RELEASE)
    for level in levels:
        if split == Path(split).name and (level / split).is_dir():
            return level / split
    present = sorted(entry.name for level in levels if level.is_dir() for entry in level.iterdir() if entry.is_dir())
    here = any(name.partition("-")[0] in TASK_TYPES for name in present)
    advice = f"it looks like a split itself: name the folder above, '{root.absolute().parent}'" if here else _HOW_TO_GET
    raise NoSplitError(f"'{root}' has no split '{split}' (folders there: {', '.join(present[:8]) or 'none'}); {advice}")


class ArchiveSource:
    """Games in a tar archive, compressed or not: read once from end to end, kept compressed in memory."""

    def __init__(self, archive: Path, split: str) -> None:
        self.name = f"alfworld/{split}"
        self._archive = archive
        self._catalogue = _Catalogue(str(archive))
        self._packed: dict[str, bytes] = {}
        splits = set()
        for parts, text in _archived_games(archive):
            task_id = "/".join(parts[-4:-1])
            splits.add(parts[-4])
            if parts[-4] == split and self._catalogue.add(task_id, text):
                self._packed[task_id] = zlib.compress(text, level=1)
        if split not in splits:
            raise NoSplitError(
                f"'{archive}' has no split '{split}' (it holds {', '.join(sorted(splits)) or 'no games'})"
            )

    def tasks(self) -> Iterable[Task]:
        """See :class:`GameSource`."""
        return self._catalogue.tasks()

    def dialects(self) -> Mapping[str, str]:
        """See :class:`GameSource`."""
        return self._catalogue.dialects

    def read(self, task_id: str) -> bytes:
        """See :class:`GameSource`."""
        return zlib.decompress(self._packed[task_id])

    def where(self, task_id: str) -> str:
        """See :class:`GameSource`."""
        return f"{self._archive}:{task_id}/{GAME_FILE}"


class GeneratedSource:
    """The first ``count`` generated games of a split; they need no data and are made again when read."""

    def __init__(self, split: str, size: str, count: int) -> None:
        if count < 1:
            raise UserError(f"{count} generated games were asked for; ask for at least one")
        self.name = f"alfworld-generated-{size}/{split}"
        self._split, self._size = split, size
        self._catalogue = _Catalogue(self.name)
        self._index: dict[str, int] = {}
        for index in range(count):
            game = generate_game(split, index, size)
            self._catalogue.add(game.task_id, game.text.encode())
            self._index[game.task_id] = index

    def tasks(self) -> Iterable[Task]:
        """See :class:`GameSource`."""
        return self._catalogue.tasks()

    def dialects(self) -> Mapping[str, str]:
        """See :class:`GameSource`."""
        return self._catalogue.dialects

    def read(self, task_id: str) -> str:
        """See :class:`GameSource`."""
        return generate_game(self._split, self._index[task_id], self._size).text

    def where(self, task_id: str) -> str:
        """See :class:`GameSource`."""
        return f"generated game '{task_id}'"


class _Catalogue:
    """What is known of the games of a split without parsing them."""

    _UNSOLVABLE = re.compile(rb'"solvable"\s*:\s*false')
    _PUT = b"put {o} in/on {r}"
    _NEVER_PLAYED = ("movable", "Sliced")
    """Marks of task folders that every user of the benchmark leaves out, as their games do not work."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._tasks: list[Task] = []
        self.dialects: dict[str, str] = {}
        self.left_out = 0

    def add(self, task_id: str, text: bytes) -> bool:
        """Enter a game, unless the benchmark leaves it out."""
        folder = task_id.split("/")[-2]
        if any(mark in folder for mark in self._NEVER_PLAYED) or self._UNSOLVABLE.search(text):
            self.left_out += 1
            return False
        kind = folder.partition("-")[0]
        if kind not in TASK_TYPES:
            raise UserError(
                f"'{self._origin}': the folder '{folder}' should begin with a task type and '-'; "
                f"the types are {', '.join(TASK_TYPES)}"
            )
        self._tasks.append(Task(task_id, kind, hashlib.sha256(text).hexdigest()))
        self.dialects[task_id] = "put" if self._PUT in text else "move"
        return True

    def tasks(self) -> list[Task]:
        if not self._tasks:
            rest = (
                f"{self.left_out} are marked unsolvable or unsupported"
                if self.left_out
                else f"there is no TASK/TRIAL/{GAME_FILE} in it"
            )
            raise UserError(f"'{self._origin}' holds no playable game ({rest}); {_HOW_TO_GET}")
        if self.left_out:
            _say_left_out(self._origin, self.left_out)
        return self._tasks


@cache
def _say_left_out(origin: str, count: int) -> None:
    """Once."""
    log.warning("%s: left out %d games that are marked unsolvable or unsupported, as everybody does", origin, count)


def _one_dialect(panel: str, dialects: Mapping[str, str]) -> str:
    examples = {dialect: task_id for task_id, dialect in dialects.items()}
    if len(examples) > 1:
        raise UserError(
            f"{panel} mixes two generations of data: '{examples['put']}' says \"put X in/on Y\", "
            f"'{examples['move']}' says \"move X to Y\"; keep them apart, their results cannot be compared"
        )
    return next(iter(examples))


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"'{file}' cannot be read: {error.strerror}") from None


def _archived_games(archive: Path) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """The path, in parts, and the text of every game in an archive, in one pass."""
    try:
        with tarfile.open(archive, mode="r:*") as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                if len(parts) >= 4 and parts[-1] == GAME_FILE and (content := tar.extractfile(member)):
                    yield parts, content.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError, zlib.error) as error:
        reason = str(error).partition(":\n")[0]
        raise UserError(f"'{archive}' is no complete tar archive ({reason}); fetch it again") from None


def read_games(paths: Iterable[Path], count: int | None = None, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Games out of files, folders at any depth and archives: an id made of the last folders' names, and the text.

    Args:
        paths: where to look.
        count: how many, drawn by the hash of their ids with ``seed``; None: all.
        seed: changes which are drawn.

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
                (members[key], text) for parts, text in _archived_games(path) if (key := "/".join(parts)) in members
            )
        else:
            yield from ((game_id, _read_bytes(Path(inner))) for inner, game_id in members.items())


def _locate(path: Path) -> Iterator[tuple[str, str]]:
    """Id and place (a file, or a member of the archive) of every game at ``path``."""
    if path.is_dir():
        inner = [(file.parts, str(file)) for file in path.resolve().rglob(GAME_FILE)]
    elif path.name == GAME_FILE:
        inner = [(path.resolve().parts, str(path))]
    elif path.is_file():
        inner = [(parts, "/".join(parts)) for parts, _ in _archived_games(path)]
    else:
        raise UserError(f"'{path}' does not exist; give game files, folders of games or tar archives")
    return (("/".join(parts[-4:-1]), place) for parts, place in inner)
