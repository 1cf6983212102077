"""Atomic files and folders, checksums, locks, and write errors that people can read."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from hiper.errors import UnwritableError, UserError, shortened

FULL = 1 << 16
"""Free bytes below which a disk counts as full."""

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""Numbers of the errors with which a disk refuses what is written: it is full, a quota is used up, it is failing."""

CHECKSUMS = "SHA256SUMS"
"""The file of a sealed folder with one line per file, which ``sha256sum --check`` reads too."""


def user_path(given: str | os.PathLike[str]) -> Path:
    """The path that a user names, with ``~`` expanded. Nothing need be there.

    Raises:
        UserError: No file can have this name, or it cannot be looked for.
    """
    path = Path(os.path.expanduser(given))  # noqa: PTH111, since that of Path raises where there is no such user
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no file can have this name"
        raise UserError(f"'{shortened(given)}' cannot be looked for: {reason}") from None
    return path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write into an error that names ``path``.

    Raises:
        UnwritableError: the disk refused.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UnwritableError(f"cannot write {path}: {error.strerror or error}") from error
    except Exception as error:
        # Libraries that write tensors raise no OSError. Some name its number, some raise over it, some do neither. A
        # library may also have deleted its partial file, so that the full disk has room again.
        number = _number_of_refusal(error) or (errno.ENOSPC if _is_full(path) else None)
        if number:
            raise UnwritableError(f"cannot write {path}: {os.strerror(number)}") from error
        raise


def _number_of_refusal(error: BaseException | None) -> int | None:
    """The number of the OSError that a library tells or hides; None: no disk refused."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in REFUSALS:
            return error.errno
        if number := re.search(r"\bos error (\d+)", str(error)):
            return int(number[1])
        error = error.__cause__ or error.__context__
    return None


def _is_full(path: Path) -> bool:
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return shutil.disk_usage(folder).free < FULL


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``. It replaces ``path`` only if the block ends without an error.

    Raises:
        UnwritableError: the disk refused, see :func:`writing`.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``. It replaces ``path`` only if the block ends without an error.

    Raises:
        UnwritableError: the disk refused, see :func:`writing`.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with writing(path):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            old = _set_aside(path)
            partial.replace(path)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Delete a folder. Its name is gone at once, so an interrupt never leaves half a folder under it."""
    with writing(path):
        shutil.rmtree(_set_aside(path), ignore_errors=True)


def sweep(folder: Path) -> None:
    """Delete the folders below ``folder`` that killed processes left half written or half deleted.

    No other process may be writing there.
    """
    for left in (path for ending in (".partial", ".removed") for path in folder.glob(f"*{ending}") if path.is_dir()):
        shutil.rmtree(left, ignore_errors=True)


def _set_aside(path: Path) -> Path:
    """Rename a folder, if it is there, and return its new name. What an interrupt left under that name is deleted."""
    aside = path.with_name(path.name + ".removed")
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(FileNotFoundError):
        path.rename(aside)
    return aside


_CHECKSUM = "crc32"
"""The key of a record's checksum."""


def with_checksum(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record for a JSON file, with a checksum of its content in the last key."""
    return {**record, _CHECKSUM: _crc32(record)}


def without_checksum(record: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Check and remove the checksum of a record from a JSON file. Also return whether there was one.

    Raises:
        ValueError: the record was changed since it was written.
    """
    content = dict(record)
    known = content.pop(_CHECKSUM, None)
    if known is not None and known != _crc32(content):
        raise ValueError(f"it was changed since it was written, as its {_CHECKSUM} tells")
    return content, known is not None


def _crc32(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True, default=str).encode())


def seal(folder: Path) -> None:
    """Write the checksums of all files of a folder, and give the files the permissions that the user's umask allows.

    A folder inside that is sealed already is listed by its own checksums alone.
    """
    inner = [file.parent for file in folder.rglob(CHECKSUMS) if file.parent != folder]
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and file != folder / CHECKSUMS
        and (file.name == CHECKSUMS or not any(file.is_relative_to(sealed) for sealed in inner))
    ]
    write_text(
        folder / CHECKSUMS, "".join(f"{_sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)
    )
    allowed = (folder / CHECKSUMS).stat().st_mode  # of an ordinary new file; safetensors lets nobody else read
    for file in files:
        file.chmod(allowed)


def check_sealed(folder: Path) -> None:
    """Check that the files of a sealed folder are as they were written. A folder without checksums passes.

    Raises:
        UserError: A file is missing or was changed. The message names the folder and the file.
    """
    sums = folder / CHECKSUMS
    if not sums.exists():
        return
    try:
        *lines, rest = sums.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise UserError(f"{folder} is damaged: {CHECKSUMS} cannot be read ({error.strerror})") from error
    listed = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in lines]
    if rest or not listed or None in listed:
        raise UserError(f"{folder} is damaged: {CHECKSUMS} is no list of checksums")
    for line in filter(None, listed):
        file = folder / line[2]
        if not file.is_file():
            raise UserError(f"{folder} is damaged: {line[2]} is missing (it is listed in {CHECKSUMS})")
        if _sha256(file) != line[1]:
            raise UserError(f"{folder} is damaged: {line[2]} is not as it was written (its checksum is in {CHECKSUMS})")
        if file.name == CHECKSUMS:
            check_sealed(file.parent)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def lock_file(path: Path, refusal: str | None) -> Iterator[IO[str]]:
    """Lock the file at ``path`` and give it. Child processes that inherit the open file hold the lock too.

    Args:
        path: the lock file; it is made if it is not there.
        refusal: the error message if another process holds the lock. None: wait for that process.

    Raises:
        UserError: another process holds the lock; the message is ``refusal``.
        UnwritableError: the disk refused, see :func:`writing`.
    """
    while True:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
            except BlockingIOError:
                lock.close()
                raise UserError(refusal) from None
            with suppress(FileNotFoundError):
                if path.samefile(f"/dev/fd/{lock.fileno()}"):
                    break
        lock.close()  # the last holder deleted this file in between, so it keeps nobody out
    with lock:
        yield lock


def lock_path(folder: Path) -> Path:
    """The lock file beside ``folder``."""
    whole = folder.absolute()
    return whole.with_name(f".{whole.name}.hiper-lock")


def forget_lock(folder: Path) -> None:
    """Delete the lock file of a folder in which nothing is left to do. A process that was killed may have left it."""
    with suppress(OSError):
        lock_path(folder).unlink()


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Keep other processes out of ``folder``. The lock file lies beside it, since it may not exist yet.

    Raises:
        UserError: another process holds the lock.
        UnwritableError: the disk refused, see :func:`writing`.
    """
    path = lock_path(folder)
    refusal = f"another process uses {folder}: wait for it or stop it, then try again"
    try:
        with writing(folder):  # an error should name the folder, not the lock file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    except UnwritableError as error:
        raise UnwritableError(f"{error}; choose another folder") from error
    with lock_file(path, refusal):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
