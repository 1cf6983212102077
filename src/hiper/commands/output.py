"""The files that commands leave behind: numbers as JSON, tables as Markdown, a figure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hiper.display.console import Display
from hiper.files import write_text


def write_results(
    folder: Path,
    name: str,
    display: Display,
    tree: Mapping[str, Any],
    draw: Callable[[Path], None],
    document: str | None = None,
) -> None:
    """Write ``NAME.json``, ``NAME.md`` if there is a document, and ``NAME.png``; then say where they are.

    The figure comes last, because drawing takes longest.

    Args:
        folder: where to write.
        name: the files' name without its suffix.
        display: where to say so.
        tree: the numbers, without NaN or infinities.
        draw: draws the figure into the path it is given.
        document: text in Markdown; None: there is none.

    Raises:
        ValueError: a number is NaN or infinite; nothing is written then.
        UnwritableError: the disk refused.
    """
    text = json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / f"{name}.json", text + "\n")
    if document is not None:
        write_text(folder / f"{name}.md", document)
    draw(folder / f"{name}.png")
    suffixes = [*[".md"] * (document is not None), ".json", ".png"]
    display.note("", f"written: {folder / name}{', '.join(suffixes)}")
