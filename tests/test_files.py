from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors import SafetensorError

from helpers.missing import Data, skip_without, told_of
from hiper.errors import UnwritableError, UserError
from hiper.files import (
    CHECKSUMS,
    atomic_file,
    atomic_folder,
    check_sealed,
    exclusive_lock,
    lock_file,
    remove_folder,
    seal,
    write_text,
    writing,
)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_atomically(tmp_path: Path):
    write_text(tmp_path / "new" / "file.txt", "text")
    assert (tmp_path / "new" / "file.txt").read_text() == "text"
    assert names(tmp_path / "new") == ["file.txt"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as partial:
        partial.write_text(str(1 / 0))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_failed_folder_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "folder"
    with atomic_folder(path) as partial:
        (partial / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_folder(path) as partial:
        (partial / "b").write_text(str(1 / 0))
    assert names(path) == ["a"]
    assert names(tmp_path) == ["folder"]


def test_a_new_folder_replaces_the_old_one(tmp_path: Path):
    path = tmp_path / "folder"
    for name in ("a", "b"):
        with atomic_folder(path) as partial:
            (partial / name).touch()
    assert names(path) == ["b"]


def test_a_full_disk_names_the_path(tmp_path: Path):
    path = tmp_path / "file.txt"
    with pytest.raises(UnwritableError, match=r"cannot write .*file\.txt: No space left on device"), atomic_file(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


def test_an_unclear_library_error_on_a_full_disk_is_a_write_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 100, 0))
    with pytest.raises(UnwritableError, match="No space left on device"), writing(tmp_path / "weights"):
        raise RuntimeError("unexpected pos 576 vs 534")


def test_a_library_error_that_names_a_full_disk_is_a_write_error(tmp_path: Path):
    with pytest.raises(UnwritableError, match="No space left on device"), writing(tmp_path / "weights"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_errors_that_are_not_the_disks_pass_through(tmp_path: Path):
    with pytest.raises(RuntimeError, match="a bug"), writing(tmp_path / "weights"):
        raise RuntimeError("a bug")


def test_a_path_below_a_file_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableError, match="cannot write"):
        write_text(tmp_path / "file" / "below.txt", "text")
    with pytest.raises(UnwritableError, match="cannot write"), atomic_folder(tmp_path / "file" / "below"):
        pass


def test_a_folder_that_cannot_be_deleted_whole_is_gone_from_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_text(tmp_path / "folder" / "a", "text")

    def killed(*arguments: Any, **keywords: Any) -> None:
        if (tmp_path / "folder").exists():
            return
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_folder(tmp_path / "folder")
    assert names(tmp_path) == ["folder.removed"]
    write_text(tmp_path / "folder" / "b", "text")
    remove_folder(tmp_path / "folder")
    assert names(tmp_path) == []


def test_a_sealed_folder_is_checked_by_its_sums_and_by_those_inside(tmp_path: Path):
    inner = tmp_path / "outer" / "in side"
    write_text(inner / "deep" / "file", "text")
    seal(inner)
    write_text(tmp_path / "outer" / "own", "text")
    seal(tmp_path / "outer")
    listed = (tmp_path / "outer" / CHECKSUMS).read_text().splitlines()
    assert [line.split("  ")[1] for line in listed] == [f"in side/{CHECKSUMS}", "own"]
    check_sealed(tmp_path / "outer")
    write_text(tmp_path / "outer" / "more", "of no concern")
    check_sealed(tmp_path / "outer")
    write_text(inner / "deep" / "file", "test")
    with pytest.raises(UserError, match="in side is damaged: deep/file is not as it was written"):
        check_sealed(tmp_path / "outer")
    (inner / "deep" / "file").unlink()
    with pytest.raises(UserError, match="in side is damaged: deep/file is missing"):
        check_sealed(tmp_path / "outer")


@pytest.mark.parametrize("text", ["", "no sums", "0" * 63 + "  file"])
def test_sums_that_are_none_are_told(tmp_path: Path, text: str):
    write_text(tmp_path / CHECKSUMS, text)
    with pytest.raises(UserError, match=f"{CHECKSUMS} is no list of checksums"):
        check_sealed(tmp_path)
    (tmp_path / CHECKSUMS).unlink()
    (tmp_path / CHECKSUMS).mkdir()
    with pytest.raises(UserError, match=f"{CHECKSUMS} cannot be read"):
        check_sealed(tmp_path)


def test_two_processes_cannot_use_one_folder(tmp_path: Path):
    with exclusive_lock(tmp_path / "run"):
        with (
            pytest.raises(UserError, match=r"another process uses .*run: wait"),
            exclusive_lock(tmp_path / "run"),
        ):
            pass
        assert names(tmp_path) == [".run.hiper-lock"]
    assert names(tmp_path) == []
    with exclusive_lock(tmp_path / "run"):
        pass


def test_a_lock_file_deleted_by_its_last_holder_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The last holder deletes the file after the next one has opened it and before that one locks it."""
    path, flock = tmp_path / "lock", fcntl.flock
    calls: list[int] = []

    def late(file: Any, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            path.unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with lock_file(path, "no") as lock:
        assert len(calls) == 2
        assert os.fstat(lock.fileno()).st_ino == path.stat().st_ino


def test_the_working_directory_can_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    with exclusive_lock(Path()):
        assert names(tmp_path) == [".run.hiper-lock", "run"]


# --- Missing --------------------------------------------------------------------------------------------------------


def reason(what: Data) -> str:
    with pytest.raises(pytest.skip.Exception) as skipped:
        skip_without(what, "/nowhere")
    return f"Skipped: {skipped.value.msg}"


def test_skips_for_want_of_data_are_counted():
    told = told_of([reason("official games"), reason("recorded cases"), "Skipped: root", reason("official games")])
    assert told == (
        "3 tests need data outside the repository and were skipped (2 official games, 1 recorded cases): "
        "see CONTRIBUTING.md"
    )


def test_nothing_is_told_where_all_data_are_there():
    assert told_of(["Skipped: root may write anywhere"]) == ""
