from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors import SafetensorError

from hiper.errors import UnwritableError, UserError
from hiper.files import alone_at, held, whole_file, whole_folder, write_text, writing


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole(tmp_path: Path):
    write_text(tmp_path / "new" / "file.txt", "text")
    assert (tmp_path / "new" / "file.txt").read_text() == "text"
    assert names(tmp_path / "new") == ["file.txt"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as partial:
        partial.write_text(str(1 / 0))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_failed_folder_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "folder"
    with whole_folder(path) as partial:
        (partial / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), whole_folder(path) as partial:
        (partial / "b").write_text(str(1 / 0))
    assert names(path) == ["a"]
    assert names(tmp_path) == ["folder"]


def test_a_new_folder_replaces_the_old_one(tmp_path: Path):
    path = tmp_path / "folder"
    for name in ("a", "b"):
        with whole_folder(path) as partial:
            (partial / name).touch()
    assert names(path) == ["b"]


def test_a_full_disk_is_said_with_the_path(tmp_path: Path):
    path = tmp_path / "file.txt"
    with pytest.raises(UnwritableError, match=r"cannot write .*file\.txt: No space left on device"), whole_file(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


def test_a_library_that_does_not_say_so_is_asked_with_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 100, 0))
    with pytest.raises(UnwritableError, match="No space left on device"), writing(tmp_path / "weights"):
        raise RuntimeError("unexpected pos 576 vs 534")


def test_a_library_that_took_back_what_it_wrote_is_believed(tmp_path: Path):
    with pytest.raises(UnwritableError, match="No space left on device"), writing(tmp_path / "weights"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_other_errors_are_no_business_of_the_disk(tmp_path: Path):
    with pytest.raises(RuntimeError, match="a bug"), writing(tmp_path / "weights"):
        raise RuntimeError("a bug")


def test_a_place_that_is_no_folder(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableError, match="cannot write"):
        write_text(tmp_path / "file" / "below.txt", "text")
    with pytest.raises(UnwritableError, match="cannot write"), whole_folder(tmp_path / "file" / "below"):
        pass


def test_two_processes_are_not_at_one_folder(tmp_path: Path):
    with alone_at(tmp_path / "run"):
        with (
            pytest.raises(UserError, match=r"another process is at .*run: wait"),
            alone_at(tmp_path / "run"),
        ):
            pass
        assert names(tmp_path) == [".run.hiper-lock"]
    assert names(tmp_path) == []
    with alone_at(tmp_path / "run"):
        pass


def test_a_lock_that_its_last_holder_deleted_holds_nobody_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Between its opening and its being locked, it is another file's place."""
    path, flock = tmp_path / "lock", fcntl.flock
    calls: list[int] = []

    def late(file: Any, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            path.unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with held(path, "no") as lock:
        assert len(calls) == 2
        assert os.fstat(lock.fileno()).st_ino == path.stat().st_ino


def test_the_folder_may_be_the_one_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    with alone_at(Path()):
        assert names(tmp_path) == [".run.hiper-lock", "run"]
