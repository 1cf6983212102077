"""Playing."""

from __future__ import annotations

from typing import Any


def play_routes(library: Any) -> list[Any]:
    """Nothing yet."""
    return []
