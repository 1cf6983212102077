"""Atomic files and folders, locks, and write errors that people can read."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from hiper.errors import UnwritableError, UserError

FULL = 1 << 16
"""Free bytes below which a disk counts as full."""


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
        # Libraries that write tensors raise no OSError. Some name its number, some do not. A library may also have
        # deleted its partial file, so that the full disk has room again.
        number = re.search(r"\bos error (\d+)", str(error))
        if number or _is_full(path):
            reason = os.strerror(int(number[1]) if number else errno.ENOSPC)
            raise UnwritableError(f"cannot write {path}: {reason}") from error
        raise


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
            shutil.rmtree(path, ignore_errors=True)
            partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
