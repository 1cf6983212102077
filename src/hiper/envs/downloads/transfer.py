"""A download over HTTP: from the first source that gives the file, resumed after a cut, and checked at the end.

A partial download lies beside the file as ``NAME.part``. A later call continues it, from whichever source it asks. The
download gets the file's name only when its size and checksum are right, as far as these are known.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from hiper import __version__
from hiper.errors import UnwritableError, UserError
from hiper.files import exclusive_lock, writing

CHUNK = 1 << 18
"""The number of bytes read at once."""
SILENCE = 60.0
"""Seconds without a byte after which a connection counts as cut."""
ATTEMPTS = 5
"""The number of fruitless connections in a row after which a source is given up."""
TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP status codes after which a retry makes sense."""

Watch = Callable[[int, int | None], None]
"""A function that is called with the bytes so far and the bytes in total (None: unknown)."""


@dataclass(frozen=True, slots=True)
class Source:
    """A server that offers a file."""

    name: str
    """The owner of the server, for messages."""
    url: str


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that can be downloaded, with its size and checksum where known."""

    name: str
    sources: tuple[Source, ...]
    """The sources, in the order in which they are asked."""
    size: int | None = None
    """The size in bytes."""
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A finished download."""

    path: Path
    source: Source
    size: int
    """The size in bytes."""
    sha256: str


class NoSourceError(UserError):
    """No source gives a file."""


class _RefusalError(Exception):
    """A source does not give the file. The message says why."""


class _CutError(Exception):
    """A connection broke. The message says how."""


def download(
    file: RemoteFile,
    folder: Path,
    watch: Watch = lambda done, total: None,
    pause: Callable[[float], None] = time.sleep,
) -> Arrival:
    """Download ``file`` into ``folder``, from the first of its sources that gives it.

    Args:
        file: the file. Without a known checksum, a download is only as trustworthy as its source.
        folder: the target folder. It is made if it does not exist.
        watch: called with the progress.
        pause: waits a number of seconds before a retry.

    Raises:
        NoSourceError: no source gives the file. The message holds the answer of each source.
        UserError: another process is downloading the file.
        UnwritableError: the file cannot be written.
    """
    part = folder / f"{file.name}.part"
    with writing(part):
        folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(part):
        _check_room(file, folder, _size(part))
        refusals = []
        for source in file.sources:
            try:
                return _get(file, source, part, watch, pause)
            except _RefusalError as refusal:
                refusals.append(f"  {source.name} ({source.url}): {refusal}")
    raise NoSourceError("\n".join([f"no place gives {file.name}:", *refusals]))


def sha256_of(path: Path, watch: Watch = lambda done, total: None) -> str:
    """Return the SHA-256 of a file's content.

    Raises:
        UserError: the file cannot be read.
    """
    digest, done, total = hashlib.sha256(), 0, _size(path)
    try:
        with path.open("rb") as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
                done += len(chunk)
                watch(done, total)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _check_room(file: RemoteFile, folder: Path, have: int) -> None:
    free = shutil.disk_usage(folder).free
    if file.size is not None and free < file.size - have:
        raise UnwritableError(
            f"{file.name} needs {file.size - have:,} bytes more, and {folder} has {free:,} free: make room, or name "
            "another folder"
        )


def _get(file: RemoteFile, source: Source, part: Path, watch: Watch, pause: Callable[[float], None]) -> Arrival:
    """Download from one source. If a resumed download turns out wrong, it is started anew."""
    resumed = _size(part) > 0
    _complete(file, source, part, watch, pause)
    digest = sha256_of(part)
    wrong = _what_is_wrong(file, _size(part), digest)
    if wrong:
        with writing(part):
            part.unlink()
        if resumed:
            return _get(file, source, part, watch, pause)
        raise _RefusalError(f"what came is another file: {wrong}")
    path = part.with_name(file.name)
    with writing(path):
        part.replace(path)
    return Arrival(path, source, path.stat().st_size, digest)


def _what_is_wrong(file: RemoteFile, size: int, sha256: str) -> str | None:
    if file.size not in (None, size):
        return f"{size:,} bytes instead of {file.size:,}"
    if file.sha256 not in (None, sha256):
        return f"sha256 {sha256} instead of {file.sha256}"
    return None


def _complete(file: RemoteFile, source: Source, part: Path, watch: Watch, pause: Callable[[float], None]) -> None:
    """Complete ``part``. Connect again as long as that brings any bytes."""
    failures = 0
    while file.size is None or _size(part) != file.size:
        before = _size(part)
        try:
            _receive(file, source, part, watch)
            break
        except _CutError as cut:
            failures = 1 if _size(part) > before else failures + 1
            if failures == ATTEMPTS:
                raise _RefusalError(f"{cut}, {ATTEMPTS} times in a row") from None
        pause(2.0 ** (failures - 1))


def _receive(file: RemoteFile, source: Source, part: Path, watch: Watch) -> None:
    """Add the bytes of one connection to ``part``. Return if nothing is missing then.

    Raises:
        _CutError: the connection broke.
        _RefusalError: the source does not give this file.
    """
    have = _size(part)
    response = _connect(source.url, have)
    if response is None:  # the file has no further bytes
        return
    with response:
        if response.status != 206:
            have = 0
        total = _announced_size(response, have)
        if file.size is not None and total not in (None, file.size):
            raise _RefusalError(f"it offers {total:,} bytes, and the file has {file.size:,}")
        if response.headers.get_content_type() == "text/html":
            raise _RefusalError(
                "it answers with a web page instead of the file: withdrawn, or asked for too often lately"
            )
        with writing(part), part.open("ab" if have else "wb") as out:
            for chunk in _chunks(response):
                out.write(chunk)
                have += len(chunk)
                watch(have, total)
                if file.size is not None and have > file.size:  # the stream may never end
                    return
    wanted = total if file.size is None else file.size
    if wanted is not None and have < wanted:
        raise _CutError("the connection was cut")


def _connect(url: str, have: int) -> HTTPResponse | None:
    """Return a response that begins at byte ``have`` or at the first. None: the file has no further bytes."""
    headers = {"User-Agent": f"hiper/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = cast(HTTPResponse, urlopen(Request(url, headers=headers), timeout=SILENCE))
    except HTTPError as error:
        if have and error.code == 416:
            complete = error.headers.get("Content-Range", "").endswith(f"/{have}")
            return None if complete else _connect(url, 0)
        if error.code in TEMPORARY:
            raise _CutError(f"it answered {error.code} {error.reason}") from error
        raise _RefusalError(f"it answered {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _CutError(f"it cannot be reached ({getattr(error, 'reason', error)})") from error
    if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        response.close()
        if not have:
            raise _RefusalError("it answers with a part of the file that was not asked for")
        return _connect(url, 0)
    return response


def _announced_size(response: HTTPResponse, have: int) -> int | None:
    """Return the size of the whole file in bytes, if the response states it."""
    length = response.headers.get("Content-Length", "")
    return have + int(length) if re.fullmatch("[0-9]+", length) else None


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(CHUNK)
        except (OSError, HTTPException) as error:
            raise _CutError(f"the connection was cut ({error})") from error
        if not chunk:
            return
        yield chunk


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
