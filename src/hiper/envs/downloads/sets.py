"""Sets of official files: looked at, and installed.

A set knows what it should hold; a :class:`DataHome` is what one environment has to say about its data. Environments
make theirs known with :func:`hiper.envs.register`.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from hiper.envs.downloads.transfer import Arrival, RemoteFile, Watch, download, sha256_of
from hiper.errors import UserError
from hiper.files import write_text

RECORD = "hiper-data.json"
"""In a data folder: where files came from, and what they were when they came."""


class State(StrEnum):
    """What is known of something that should be there."""

    MISSING = "missing"
    RIGHT = "right"
    WRONG = "wrong"
    UNVERIFIED = "unverified"  # it is there, and there is nothing to check it against


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found at one place."""

    what: str
    state: State
    detail: str = ""


Progress = Callable[[str], AbstractContextManager[Watch]]
"""Shows a bar of bytes with a title, for as long as its context lasts."""


class DataSet(Protocol):
    """Official data that are installed together."""

    @property
    def name(self) -> str:
        """What `hiper data ENV --get` calls it."""

    @property
    def summary(self) -> str:
        """What it is, in a few words, with its size."""

    def inspect(self, folder: Path, progress: Progress) -> Sequence[Finding]:
        """What of it lies in ``folder``, and whether it is what it should be."""

    def install(self, folder: Path, progress: Progress) -> Sequence[Arrival]:
        """Get what is missing of it into ``folder``; what came.

        Raises:
            UserError: something else has its name there, or no place gives it.
        """


@dataclass(frozen=True)
class DataHome:
    """An environment's official data."""

    folder: Callable[[], Path]
    """Where the environment looks for them."""
    variable: str
    """The environment variable that names another folder."""
    sets: tuple[DataSet, ...]
    by_hand: str
    """What to do where no place gives them."""
    checksums: str
    """Where the checksums come from."""

    def set_named(self, name: str) -> DataSet:
        """The set ``name``.

        Raises:
            UserError: there is none.
        """
        for known in self.sets:
            if known.name == name:
                return known
        raise UserError(f"there is no data set '{name}'; there are {', '.join(known.name for known in self.sets)}")


@dataclass(frozen=True)
class FileSet:
    """Files that lie side by side in a folder; a :class:`DataSet`."""

    name: str
    summary: str
    files: tuple[RemoteFile, ...]

    def inspect(self, folder: Path, progress: Progress) -> Sequence[Finding]:
        """See :class:`DataSet`. A file without a known checksum is compared with the record of its arrival."""
        return list(self._findings(folder, progress))

    def _findings(self, folder: Path, progress: Progress) -> Iterator[Finding]:
        if folder.is_file():
            raise UserError(f"{folder} is a file; name the folder that holds {self.files[0].name}, or is to hold it")
        record = read_record(folder)
        for file in self.files:
            path = folder / file.name
            if path.is_file():
                with progress(file.name) as watch:
                    yield _compare(file, path, record.get(file.name), watch)
            else:
                size = "" if file.size is None else f"{file.size:,} bytes"
                part = path.with_name(f"{file.name}.part")
                so_far = f", of which {part.stat().st_size:,} have come" if part.is_file() else ""
                yield Finding(file.name, State.MISSING, size + so_far)

    def install(self, folder: Path, progress: Progress) -> Sequence[Arrival]:
        """See :class:`DataSet`. What came is entered in the folder's record."""
        arrivals = []
        for file, found in zip(self.files, self.inspect(folder, progress), strict=True):
            if found.state is State.WRONG:
                raise UserError(
                    f"{folder / file.name} is there already, and is not the official file ({found.detail}): "
                    "move it away, or name another folder"
                )
            if found.state is State.MISSING:
                with progress(file.name) as watch:
                    arrivals.append(download(file, folder, watch))
                write_record(folder, arrivals[-1])
        return arrivals


def _compare(file: RemoteFile, path: Path, recorded: Mapping[str, Any] | None, watch: Watch) -> Finding:
    size = path.stat().st_size
    if file.size not in (None, size):
        return Finding(file.name, State.WRONG, f"{size:,} bytes instead of {file.size:,}")
    digest = sha256_of(path, watch)
    if file.sha256 is not None:
        wrong = f"sha256 {digest} instead of {file.sha256}"
        return Finding(file.name, State.RIGHT) if digest == file.sha256 else Finding(file.name, State.WRONG, wrong)
    if recorded is None:
        return Finding(file.name, State.UNVERIFIED, f"sha256 {digest}")
    came = f"it came on {recorded['date']} from {recorded['url']}"
    if digest == recorded["sha256"]:
        return Finding(file.name, State.UNVERIFIED, f"unchanged since {came}")
    return Finding(file.name, State.WRONG, f"changed since {came}")


def read_record(folder: Path) -> dict[str, dict[str, Any]]:
    """What is recorded of the files that came into ``folder``, by name.

    Raises:
        UserError: the record is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {name: {key: entry[key] for key in ("url", "size", "sha256", "date")} for name, entry in record.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}): delete it") from error


def write_record(folder: Path, arrival: Arrival) -> None:
    """Enter a file that came into the folder's record."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    entry = {"url": arrival.source.url, "size": arrival.size, "sha256": arrival.sha256, "date": today}
    record = read_record(folder) | {arrival.path.name: entry}
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
