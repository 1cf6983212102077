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
