"""The terminal: notes, tables, progress bars, alarms.

:class:`Display` knows nothing of runs, training or evaluations. Others build the lines and tables that it shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import table as rich_table
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from hiper.display.tables import Table

_UNBOUNDED = 10_000
"""Line width in characters that no table reaches; used to measure a table's natural width."""

SECONDS_BETWEEN_LINES = 60.0
"""Seconds between two progress lines where output is not a terminal."""


class Display:
    """Writes to a terminal. Where output is not a terminal, a bar becomes one line per minute.

    Args:
        command: the command line that was given; result cards record it, and advice on how to continue repeats it.
        console: where to write; None: standard output.
    """

    def __init__(self, command: str = "", console: Console | None = None) -> None:
        self.command = command
        self.console = console or Console(highlight=False)

    @contextmanager
    def bar(self, label: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
        """Show a progress bar while the block runs; it yields a function to call after each unit of work.

        Args:
            label: what is being done.
            total: units of work in all.
            done: units that were done before the block began.
        """
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        if not self.console.is_terminal:
            yield self._log_progress(label, total, done)
            return
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(label, total=total, completed=done)
            yield lambda: progress.advance(task)

    def _log_progress(self, label: str, total: int, done_before: int) -> Callable[[], None]:
        """Return a stand-in for a bar that writes a line now and then."""
        done, began = done_before, time.monotonic()
        last_line = began

        def advance() -> None:
            nonlocal done, last_line
            done, now = done + 1, time.monotonic()
            if now - last_line >= SECONDS_BETWEEN_LINES and done < total:
                last_line = now
                left = (now - began) * (total - done) / (done - done_before)
                self.note(f"          {label}: {done}/{total}, {left:.0f} s to go")

        return advance

    @contextmanager
    def bytes_bar(self, label: str) -> Iterator[Callable[[int, int | None], None]]:
        """Show a progress bar of bytes while the block runs.

        It yields a function to call with the bytes done so far and the total (None: unknown).
        """
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(label, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    def note(self, *lines: str) -> None:
        """Write lines of plain text."""
        for line in lines:
            self.console.print(line, markup=False, soft_wrap=True)

    def heading(self, text: str) -> None:
        """Write a line that stands out, after an empty one."""
        self.console.print(f"\n{text}", style="bold", markup=False)

    def alarm(self, text: str) -> None:
        """Warn that something is going wrong."""
        self.console.print(f"   ALARM  {text}", style="bold red", markup=False, soft_wrap=True)

    def table(self, table: Table) -> None:
        """Write a table after an empty line. Brackets in it are no markup; a table that is too wide is set closer."""
        shown = rich_table.Table(title=Text(table.title, style="bold"), title_justify="left")
        for number, heading in enumerate(table.headings):
            shown.add_column(Text(heading), justify="left" if number < table.left else "right")
        for row in table.rows:
            shown.add_row(*map(Text, row), style="bold" if row[0] == table.total else None)
        unbounded = self.console.options.update(max_width=_UNBOUNDED)
        if self.console.measure(shown, options=unbounded).maximum > self.console.width:
            shown.padding = (0, 0)
        self.console.print()
        self.console.print(shown)

    def show(self, *parts: str | Table) -> None:
        """Write notes and tables in order."""
        for part in parts:
            if isinstance(part, str):
                self.note(part)
            else:
                self.table(part)

    def interrupted(self, saved: str, command: str) -> None:
        """Say what an interrupt left on disk, and which command continues."""
        self.note(f"interrupted; {saved}. Continue with: {command}")
