"""Tables of text, for the terminal (:meth:`~hiper.display.console.Display.table`) and for Markdown documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """A table of plain text."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    """One text per heading in each row."""
    left: int = 1
    """Number of leading columns that are aligned left; all others are aligned right."""
    total: str | None = None
    """First text of the row that sums up the others; the terminal shows this row in bold."""

    def markdown(self) -> str:
        """Return the table in Markdown, without its title."""
        marks = ["---" if number < self.left else "---:" for number in range(len(self.headings))]
        # A bar would end its cell.
        head, *body = ([text.replace("|", "\\|") for text in row] for row in (self.headings, *self.rows))
        return "\n".join("| " + " | ".join(line) + " |" for line in (head, marks, *body))

    def section(self) -> str:
        """Return the table in Markdown, under its title."""
        return f"## {self.title}\n\n{self.markdown()}"
