"""Sources of games: folders, archives, generated games, or any other :class:`GameSource`."""

from __future__ import annotations

import hashlib
import json
import logging
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Protocol

from hiper.envs.alfworld.generate import generate_game
from hiper.envs.panels import Task
from hiper.errors import NoSplitError, UserError, shortened

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
LARGEST_GAME = 1 << 24
"""The largest number of bytes of a game; official ones have some hundred thousand."""
LARGEST_ARCHIVE = 1 << 32
"""The largest number of bytes in a tar archive, unpacked, whatever it holds beside games."""
RELEASE = "json_2.1.1"
"""The folder around the splits in the official download."""
GENERATED = "generated"
"""The value of the option ``data`` that asks for generated games instead of official ones."""
MOST_GENERATED = 100_000
"""The most generated games of a split. All are made when it is opened, about a thousand in a second."""
HOW_TO_GET = (
    "get the games with `hiper data alfworld --get games` (or `alfworld-download`), set ALFWORLD_DATA, or let `data` "
    f"(env.data in a recipe) name a folder, a tar or zip archive or '{GENERATED}'"
)


class GameSource(Protocol):
    """The games of one split."""

    name: str
    """The name of the panel."""

    def tasks(self) -> Iterable[Task]:
        """Return a task for every game.

        Its id is stable ("<split>/<task folder>/<trial>"), its type one of :data:`TASK_TYPES`, and its digest that of
        the game's text.
        """

    def dialects(self) -> Mapping[str, str]:
        """Return each game's verb for laying something down, "put" or "move", by task id."""

    def read(self, task_id: str) -> bytes | str:
        """Return the JSON text of a game."""

    def where(self, task_id: str) -> str:
        """Return the name of the game's file for messages."""


class FolderSource:
    """Games unpacked in a folder, laid out as the official release: ``[json_2.1.1/]<split>/<task>/<trial>/``."""

    def __init__(self, root: Path, split: str) -> None:
        self.name = f"alfworld/{split}"
        self._folder = _split_folder(root, split)
        self._catalogue = _Catalogue(str(self._folder))
        for file in self._folder.glob(f"*/*/{GAME_FILE}"):
            self._catalogue.add("/".join((split, *file.parts[-3:-1])), read_bytes(file))

    def tasks(self) -> Iterable[Task]:
        """See :class:`GameSource`."""
        return self._catalogue.tasks()

    def dialects(self) -> Mapping[str, str]:
        """See :class:`GameSource`."""
        return self._catalogue.dialects

    def read(self, task_id: str) -> bytes:
        """See :class:`GameSource`."""
        return read_bytes(self._file(task_id))

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
    advice = f"it looks like a split itself: name the folder above, '{root.absolute().parent}'" if here else HOW_TO_GET
    raise NoSplitError(f"'{root}' has no split '{split}' (folders there: {', '.join(present[:8]) or 'none'}); {advice}")


class ArchiveSource:
    """Games in a tar archive, compressed or not, or in a zip archive. It is read once and kept compressed."""

    def __init__(self, archive: Path, split: str) -> None:
        self.name = f"alfworld/{split}"
        self._archive = archive
        self._catalogue = _Catalogue(str(archive))
        self._packed: dict[str, bytes] = {}
        splits = set()
        for parts, text in archived_games(archive):
            task_id = "/".join(parts[-4:-1])
            splits.add(parts[-4])
            if task_id in self._packed:
                raise UserError(f"'{archive}' holds the game '{shortened(task_id)}' twice: pack the games anew")
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
    """The first ``count`` generated games of a split. They need no data and are made again when read."""

    def __init__(self, split: str, size: str, count: int) -> None:
        if not 1 <= count <= MOST_GENERATED:
            raise UserError(f"{count} generated games were asked for; ask for 1 to {MOST_GENERATED:,}")
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
    """The tasks of a split and the words of its games, known without parsing the games."""

    _SOLVABLE = re.compile(rb'"solvable"\s*:\s*true')
    _PUT = b"put {o} in/on {r}"
    _NEVER_PLAYED = ("movable", "Sliced")
    """Marks of task folders whose games do not work. Every user of the benchmark leaves them out."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._tasks: list[Task] = []
        self.dialects: dict[str, str] = {}
        self.left_out = 0

    def add(self, task_id: str, text: bytes) -> bool:
        """Enter a game unless the benchmark leaves it out. Return whether it was entered."""
        folder = task_id.split("/")[-2]
        if any(mark in folder for mark in self._NEVER_PLAYED) or not self._solvable(text):
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

    def _solvable(self, text: bytes) -> bool:
        """Whether a game says that it can be solved, as ALFWorld demands. A damaged game is kept, to be named later."""
        if self._SOLVABLE.search(text):
            return True
        try:
            game = json.loads(text)
        except (ValueError, RecursionError):
            return True
        if not isinstance(game, dict) or not {"pddl_domain", "grammar"} <= game.keys():
            return True  # no game at all
        return game.get("solvable") is True

    def tasks(self) -> list[Task]:
        if not self._tasks:
            rest = (
                f"{self.left_out} are marked unsolvable or unsupported"
                if self.left_out
                else f"there is no TASK/TRIAL/{GAME_FILE} in it"
            )
            raise UserError(f"'{self._origin}' holds no playable game ({rest}); {HOW_TO_GET}")
        if self.left_out:
            _say_left_out(self._origin, self.left_out)
        return self._tasks


@cache
def _say_left_out(origin: str, count: int) -> None:
    """Log once for each origin how many games were left out."""
    log.warning("%s: left out %d games that are marked unsolvable or unsupported, as everybody does", origin, count)


def read_bytes(file: Path) -> bytes:
    """Return the content of a game's file.

    Raises:
        UserError: the file cannot be read, or is too large for a game.
    """
    try:
        if not file.is_file():
            raise UserError(f"'{file}' should be a game's file, and is something else: move it away")
        if file.stat().st_size > LARGEST_GAME:
            raise UserError(f"'{file}' has more than {LARGEST_GAME >> 20} MiB, which no game has: move it away")
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"'{file}' cannot be read: {error.strerror}") from None


def archived_games(archive: Path) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """Yield the path, in parts, and the text of every game in a tar or zip archive, in one pass.

    Raises:
        UserError: the archive is damaged, or holds what is no game under a game's name.
    """
    try:
        with archive.open("rb") as file:
            start = file.read(4)
        read = _games_in_zip if start == b"PK\x03\x04" else _games_in_tar
        for name, content in read(archive):
            parts = PurePosixPath(name).parts
            if ".." in parts or len(parts) < 4:
                raise UserError(
                    f"'{archive}': '{shortened(name)}' is no place of a game, which is SPLIT/TASK/TRIAL/{GAME_FILE}; "
                    "pack the games anew"
                )
            yield parts, content
    except UserError:
        raise
    except _UNREADABLE as error:
        reason = "its links lead in a ring" if isinstance(error, RecursionError) else str(error).partition(":\n")[0]
        page = "; it looks like a web page" if start[:1] == b"<" else ""
        raise UserError(
            f"'{archive}' is no complete tar archive or zip archive ({shortened(reason)}{page}); fetch it again"
        ) from None


_UNREADABLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    OverflowError,
    RuntimeError,  # encrypted or otherwise unusual zip archives, and links in a ring
)
"""What the readers of archives raise."""


def _games_in_tar(archive: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive, mode="r:*") as tar:
        read = 0
        for member in tar:
            read += member.size
            _check_size(archive, "it", read, LARGEST_ARCHIVE)
            if PurePosixPath(member.name).name != GAME_FILE:
                continue
            _check_size(archive, member.name, member.size, LARGEST_GAME)
            try:
                content = tar.extractfile(member)
            except KeyError:
                content = None
            if content is None:
                raise UserError(
                    f"'{archive}': '{shortened(member.name)}' is no file, or a link to what is not in the archive; "
                    "pack the games anew"
                )
            text = content.read(LARGEST_GAME + 1)  # a link may lead to a larger file
            _check_size(archive, member.name, len(text), LARGEST_GAME)
            yield member.name, text
        _check_end(tar)


def _check_end(tar: tarfile.TarFile) -> None:
    """Check that only zeros follow the last member: at a damaged header, the library ends without a word."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    rest = tar.fileobj.read(1 << 20)
    if not rest:
        raise tarfile.ReadError("its end is missing")
    if any(rest):
        raise tarfile.ReadError("something that is no member follows the last game that can be read")


def _games_in_zip(archive: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as content:
        for member in content.infolist():
            if PurePosixPath(member.filename).name != GAME_FILE or member.is_dir():
                continue
            with content.open(member) as file:
                text = file.read(LARGEST_GAME + 1)
            _check_size(archive, member.filename, len(text), LARGEST_GAME)
            yield member.filename, text


def _check_size(archive: Path, name: str, size: int, limit: int) -> None:
    if size > limit:
        raise UserError(
            f"'{archive}': '{shortened(name)}' has more than {limit >> 20:,} MiB, which is too much for "
            f"{'a game' if limit == LARGEST_GAME else 'games'}: pack the games alone"
        )
