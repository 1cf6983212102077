"""YAML files: strict parsing, and files that ship with the package."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hiper.errors import UserError
from hiper.strict_yaml import find_yaml, parse_yaml, read_mapping, shipped_files


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
