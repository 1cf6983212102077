"""Tables of text, for the terminal (:meth:`~hiper.display.console.Display.table`) and for Markdown documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """A table of plain text."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    """A text for each heading."""

    def markdown(self, left: int = 1) -> str:
        """The table in Markdown, without its title; the first ``left`` columns aligned to the left, others right."""
        marks = ["---" if number < left else "---:" for number in range(len(self.headings))]
        # A bar would end its cell.
        head, *body = ([text.replace("|", "\\|") for text in row] for row in (self.headings, *self.rows))
        return "\n".join("| " + " | ".join(line) + " |" for line in (head, marks, *body))

    def section(self, left: int = 1) -> str:
        """The same under its title, as a part of a document."""
        return f"## {self.title}\n\n{self.markdown(left)}"
