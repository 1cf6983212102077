"""YAML files: strict parsing, and files that ship with the package.

Libraries silently take the last of two equal keys in a mapping. Here, a repeated key is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from hiper.errors import UserError, suggestion


class _UniqueKeyLoader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' is repeated", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return node


def parse_yaml(text: str) -> Any:
    """Parse one YAML document.

    Raises:
        yaml.YAMLError: the text is not valid, or repeats a key; the message names the line.
    """
    return yaml.load(text, _UniqueKeyLoader)


def read_mapping(file: Traversable) -> dict[str, Any]:
    """Read the mapping in a YAML file.

    Raises:
        UserError: the file cannot be read, is empty, or holds something else.
    """
    try:
        tree = parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} is not a readable YAML file: {error}") from error
    if tree is None:
        raise UserError(f"{file} is empty or damaged: it should hold a mapping of keys to values")
    if not isinstance(tree, dict):
        raise UserError(f"{file} should hold a mapping of keys to values; it holds a {type(tree).__name__}")
    return tree


def shipped_files(folder: Traversable, prefix: str = "") -> dict[str, Traversable]:
    """The YAML files in a folder by name, sorted. The name has no suffix, and ``prefix`` before it."""
    files = {file.name.removesuffix(".yaml"): file for file in folder.iterdir() if file.name.endswith(".yaml")}
    return {f"{prefix}{name}": files[name] for name in sorted(files)}


def find_yaml(source: str | Path, shipped: Mapping[str, Traversable], kind: str) -> Traversable:
    """Find a YAML file: a shipped one by its name, or any other by its path.

    Args:
        source: the name or the path. A shipped file comes first.
        shipped: the shipped files by name.
        kind: what the files hold, for the error message.

    Raises:
        UserError: there is no such file.
    """
    if str(source) in shipped:
        return shipped[str(source)]
    if Path(source).is_file():
        return Path(source)
    raise UserError(f"'{source}' is neither a shipped {kind} nor a YAML file; {suggestion(str(source), shipped)}")
