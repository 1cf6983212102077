"""Writing files whole or not at all."""

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
"""A disk with fewer free bytes than these is full."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around writing to ``path``.

    Raises:
        UnwritableError: the disk refused; the message names ``path``.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UnwritableError(f"cannot write {path}: {error.strerror or error}") from error
    except Exception as error:
        # Tensors are written by libraries that know no OSError. Some name its number, some not even that; and a
        # library that takes back what it wrote leaves room on the disk that was full.
        number = re.search(r"\bos error (\d+)", str(error))
        if number or _is_full(path):
            reason = os.strerror(int(number[1]) if number else errno.ENOSPC)
            raise UnwritableError(f"cannot write {path}: {reason}") from error
        raise


def _is_full(path: Path) -> bool:
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return shutil.disk_usage(folder).free < FULL


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a path beside ``path`` to write to; what is there takes its place only if all went well.

    Raises:
        UnwritableError: see :func:`writing`.
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
def whole_folder(path: Path) -> Iterator[Path]:
    """Likewise for a folder; one that is there already is replaced."""
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
def held(path: Path, refusal: str | None) -> Iterator[IO[str]]:
    """Gives the lock file at ``path``, held by this process, and by those that inherit it, until all of them end.

    Args:
        path: where.
        refusal: what to say if another process holds it; None: wait for that.

    Raises:
        UserError: another process holds it: ``refusal``.
        UnwritableError: see :func:`writing`.
    """
    with _locked(path, refusal) as lock:
        yield lock


def _locked(path: Path, refusal: str | None) -> IO[str]:
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
                    return lock
        lock.close()  # its last holder deleted it in between: it holds nobody off


def lock_of(folder: Path) -> Path:
    """The lock file of what goes to ``folder``."""
    whole = folder.absolute()
    return whole.with_name(f".{whole.name}.hiper-lock")


@contextmanager
def alone_at(folder: Path) -> Iterator[None]:
    """Keep other processes from what goes to ``folder``, with a lock file beside it, as it may not be there yet.

    Raises:
        UserError: another process is at it.
        UnwritableError: see :func:`writing`.
    """
    path = lock_of(folder)
    refusal = f"another process is at {folder}: wait for it, or end it, before you go on with it"
    try:
        with writing(folder):  # the lock's own name means nothing to people
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    except UnwritableError as error:
        raise UnwritableError(f"{error}; choose another folder") from error
    with held(path, refusal):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
