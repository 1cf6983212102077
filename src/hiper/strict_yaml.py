"""YAML as people mean it: a key that stands twice in a mapping is refused, where libraries silently take the last."""

from __future__ import annotations

from typing import Any

import yaml


class _EachKeyOnce(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"'{key.value}' stands there twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return node


def parse_yaml(text: str) -> Any:
    """The document in a text.

    Raises:
        yaml.YAMLError: it is not valid, or holds a key twice; the message names the line.
    """
    return yaml.load(text, _EachKeyOnce)
