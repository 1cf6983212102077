"""Small helpers of everyone: files, plugins, strict YAML."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
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
    named_path,
    remove_folder,
    seal,
    with_checksum,
    without_checksum,
    write_text,
    writing,
)
from hiper.plugins import resolve
from hiper.strict_yaml import find_yaml, parse_yaml, read_mapping, shipped_files


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


# --- Objects found by name, and the messages where there are none -----------------------------------------------------


REGISTRY: dict[str, Any] = {"ordered": "collections:OrderedDict", "list": list, "number": 3}


def test_a_registered_name_is_an_object_or_where_it_is_imported_from() -> None:
    from collections import OrderedDict

    assert resolve("mapping", "ordered", REGISTRY) is OrderedDict
    assert resolve("mapping", "list", REGISTRY) is list


def test_any_other_name_is_module_and_attribute() -> None:
    assert resolve("path", "pathlib:Path", REGISTRY) is Path
    assert resolve("method", "pathlib:Path.exists", REGISTRY) is Path.exists


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("orderd", r"^there is no thing 'orderd'; did you mean 'ordered'\?$"),
        ("zzz", r"^there is no thing 'zzz'; known are ordered, list, number$"),
        ("no_such_module:Thing", r"there is no module 'no_such_module'\. If its file is .* set PYTHONPATH=\. before"),
        ("pathlib.nowhere:Thing", r"no module 'pathlib\.nowhere'"),
        ("pathlib:Pth", r"thing 'pathlib:Pth' cannot be imported: 'pathlib' has no 'Pth'; did you mean 'Path'\?"),
        ("pathlib:Path.exist", r"'pathlib' has no 'Path\.exist'; did you mean 'exists'\?"),
        ("pathlib:", r"'pathlib:' is not of the form module:name"),
        (":Path", r"':Path' is not of the form module:name"),
        (".local:Path", r"'\.local:Path' is not of the form module:name"),
        ("number", r"thing 'number' is of type int; a class or a function is needed"),
        ("math:pi", r"thing 'math:pi' is of type float; a class or a function is needed"),
    ],
)
def test_what_cannot_be_found_is_said(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve("thing", name, REGISTRY)


def test_another_kind_may_be_asked_for() -> None:
    def is_string_class(found: object) -> bool:
        return isinstance(found, type) and issubclass(found, str)

    assert resolve("text", "builtins:str", {}, fits=is_string_class) is str
    with pytest.raises(UserError, match="text 'builtins:int' is a class of another kind; a kind of str is needed"):
        resolve("text", "builtins:int", {}, fits=is_string_class, needs="a kind of str")
    with pytest.raises(UserError, match="text 'builtins:len' is a function"):
        resolve("text", "builtins:len", {}, fits=is_string_class, needs="a kind of str")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_library", "'plugin_at_fault:make' cannot be imported: No module named 'no_such_library'"),
        ("def make(:", "cannot be imported: invalid syntax"),
    ],
)
def test_a_fault_in_the_module_is_not_taken_for_a_missing_module(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin_at_fault.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        resolve("thing", "plugin_at_fault:make", {})
    assert "PYTHONPATH" not in str(caught.value)


# --- YAML files: strict parsing, and files that ship with the package -------------------------------------------------


def test_a_repeated_key_is_an_error_at_any_depth():
    assert parse_yaml("a: {b: 1}\nc: {b: 2}\n") == {"a": {"b": 1}, "c": {"b": 2}}
    with pytest.raises(yaml.YAMLError, match=r"the key 'b' is repeated\n.*line 3"):
        parse_yaml("a:\n  b: 1\n  b: 2\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "is not a readable YAML file"),
        (b"\xff", "is not a readable YAML file"),
        (b"", "is empty or damaged: it should hold a mapping"),
        (b"- a", "should hold a mapping of keys to values; it holds a list"),
    ],
)
def test_a_file_without_a_mapping_is_refused(tmp_path: Path, content: bytes, message: str):
    file = tmp_path / "broken.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"broken\.yaml {message}"):
        read_mapping(file)


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"none\.yaml is not a readable YAML file"):
        read_mapping(tmp_path / "none.yaml")


def test_a_shipped_file_is_found_by_name_and_any_other_by_path(tmp_path: Path):
    folder, own = tmp_path / "shipped", tmp_path / "own.yaml"
    folder.mkdir()
    for name in ("two.yaml", "one.yaml", "notes.txt"):
        (folder / name).touch()
    own.touch()
    shipped = shipped_files(folder)
    assert list(shipped.items()) == [("one", folder / "one.yaml"), ("two", folder / "two.yaml")]
    assert list(shipped_files(folder, "env/")) == ["env/one", "env/two"]
    assert find_yaml("two", shipped, "thing") == folder / "two.yaml"
    assert find_yaml(str(own), shipped, "thing") == own
    with pytest.raises(UserError, match="'tow' is neither a shipped thing nor a YAML file; did you mean 'two'"):
        find_yaml("tow", shipped, "thing")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("x: !!int abc", "'abc' is no number"),
        ("x: !!float x", "'x' is no number"),
        ("x: !!bool maybe", "'maybe' is no true or false"),
        ("x: 0x_", "'0x_' is no number"),
        ("x: 0b_", "'0b_' is no number"),
        ("x: " + "9" * 5000, "is too long for a number"),
        ("x: 12:30:45", "base 60"),
        ("x: 1:30.5", "base 60"),
        ("x: 010", "base 8"),
        ("x: !!timestamp y", "'!!timestamp' is not for settings"),
        ("x: !!set {a}", "'!!set' is not for settings"),
        ("x: !!binary aGk=", "'!!binary' is not for settings"),
        ("x: !!omap [a: 1]", "'!!omap' is not for settings"),
        ("x: !!python/object:os.system ls", "is not for settings"),
        ("x: !" + "a" * 100_000 + " 1", "is not for settings"),
        ("a: " + "[" * 1000 + "]" * 1000, "deeper than 50 levels"),
        ("- " * 1000 + "a", "deeper than 50 levels"),
        ("a: &a [*a]", "'a' holds itself"),
        ("a: &a {<<: *a}", "'a' holds itself"),
        ("a: *" + "b" * 100_000, "undefined alias"),
        ("a: &a [" + "1," * 1000 + "]\nb: [" + "*a," * 1000 + "]", "more than 100,000 values"),
        ("yes: 1", "the key 'yes' is read as bool"),
        ("? [a, b]\n: 1", "a key should be a text"),
        ("k: 1\n" * 2, "the key 'k' is repeated"),
        ("a: \x00", "#x0000 at place 3 is not allowed"),
        ("a: '" + "b" * 100_000, "unexpected end"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a" * 4_000_001, "settings have at most 4,000,000"),
    ],
)
def test_what_is_no_setting_is_refused_in_a_short_message(document: str, message: str):
    with pytest.raises(yaml.YAMLError) as caught:
        parse_yaml(document)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


def test_what_people_mean_is_read():
    read = parse_yaml("{a: 1_000, b: 2026-11-30, c: 2026-99-99, d: 0x10, e: 0, f: 0.5, g: '12:30', h: =, i: 00.5}")
    assert read == {
        "a": 1000, "b": "2026-11-30", "c": "2026-99-99", "d": 16, "e": 0, "f": 0.5, "g": "12:30", "h": "=", "i": 0.5
    }  # fmt: skip
    assert parse_yaml("a: &a {b: 1}\nc: {<<: *a, d: 2}") == {"a": {"b": 1}, "c": {"b": 1, "d": 2}}


def test_a_text_that_is_too_long_for_a_path_is_no_file():
    with pytest.raises(UserError, match="is neither a shipped thing nor a YAML file") as caught:
        find_yaml("x" * 100_000, {}, "thing")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["x" * 5000, "/tmp/" + "x" * 300, "\0"])
def test_a_path_that_cannot_be_is_named(name: str):
    with pytest.raises(UserError, match="cannot be looked for") as caught:
        named_path(name)
    assert len(str(caught.value)) < 300
    assert named_path("~/x") == Path.home() / "x"
    assert named_path("nothing/here") == Path("nothing/here")


def test_a_record_with_a_checksum_is_known_when_it_is_changed():
    record = with_checksum({"a": 0.1, "b": {"c": [1]}})
    assert list(record) == ["a", "b", "crc32"]
    assert without_checksum(record) == ({"a": 0.1, "b": {"c": [1]}}, True)
    assert without_checksum({"a": 1}) == ({"a": 1}, False)
    with pytest.raises(ValueError, match="changed since it was written"):
        without_checksum(record | {"a": 0.2})


def test_messages_show_no_control_characters():
    assert str(UserError("a\x1b[31m\x00\u202e\ud800é\nb")) == "a\\x1b[31m\\x00\\u202e\\ud800é\nb"
