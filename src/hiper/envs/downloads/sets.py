"""Sets of official files: inspect and install them.

A set knows the files that it should hold. A :class:`DataHome` describes all data of one environment. Environments
announce theirs with :func:`hiper.envs.register`.
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
from hiper.errors import UserError, shortened, unreadable
from hiper.files import write_text

RECORD = "hiper-data.json"
"""The file in a data folder that records the source, size and checksum of every download."""


class State(StrEnum):
    """The state of a file or split."""

    MISSING = "missing"
    RIGHT = "right"
    WRONG = "wrong"
    UNVERIFIED = "unverified"  # it is there, but nothing to check it against is known


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one inspection."""

    what: str
    state: State
    detail: str = ""


Progress = Callable[[str], AbstractContextManager[Watch]]
"""A context manager that shows a progress bar of bytes with a title."""


class DataSet(Protocol):
    """Official files that are installed together."""

    @property
    def name(self) -> str:
        """The name in `hiper data ENV --get NAME`."""

    @property
    def summary(self) -> str:
        """A description in a few words, with the size."""

    def inspect(self, folder: Path, progress: Progress) -> Sequence[Finding]:
        """Inspect the set's files in ``folder`` and check them."""

    def install(self, folder: Path, progress: Progress) -> Sequence[Arrival]:
        """Download what is missing into ``folder`` and return the downloads.

        Raises:
            UserError: another file has the name, or no source gives the file.
        """


@dataclass(frozen=True)
class DataHome:
    """The official data of an environment."""

    folder: Callable[[], Path]
    """Returns the folder where the environment looks for the data."""
    variable: str
    """The environment variable that names another folder."""
    sets: tuple[DataSet, ...]
    by_hand: str
    """Advice for when no source gives the files."""
    checksums: str
    """The origin of the checksums."""

    def set_named(self, name: str) -> DataSet:
        """Return the set called ``name``.

        Raises:
            UserError: there is no such set.
        """
        for known in self.sets:
            if known.name == name:
                return known
        raise UserError(f"there is no data set '{name}'; there are {', '.join(known.name for known in self.sets)}")


@dataclass(frozen=True)
class FileSet:
    """A :class:`DataSet` of files in one folder."""

    name: str
    summary: str
    files: tuple[RemoteFile, ...]

    def inspect(self, folder: Path, progress: Progress) -> Sequence[Finding]:
        """See :class:`DataSet`. A file without a known checksum is compared with the record of its download."""
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
        """See :class:`DataSet`. Downloads are entered in the folder's record."""
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
    came = f"it came on {shortened(recorded['date'])} from {shortened(recorded['url'], 200)}"
    if digest == recorded["sha256"]:
        return Finding(file.name, State.UNVERIFIED, f"unchanged since {came}")
    return Finding(file.name, State.WRONG, f"changed since {came}")


def read_record(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the record of the downloads in ``folder``, by file name.

    Raises:
        UserError: the record is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        read = {name: {key: entry[key] for key in ("url", "size", "sha256", "date")} for name, entry in record.items()}
        if not all(isinstance(entry[key], str) for entry in read.values() for key in ("url", "sha256", "date")):
            raise TypeError
        return read
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({unreadable(error)}): delete it") from error


def write_record(folder: Path, arrival: Arrival) -> None:
    """Enter a download in the folder's record."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    entry = {"url": arrival.source.url, "size": arrival.size, "sha256": arrival.sha256, "date": today}
    record = read_record(folder) | {arrival.path.name: entry}
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
