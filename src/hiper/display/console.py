"""The terminal: notes, tables, progress, alarms.

:class:`Display` knows nothing of runs, training or evaluations. Others build the lines and tables that it shows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich import table as rich_table
from rich.console import Console, Group, JustifyMethod
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.progress_bar import ProgressBar
from rich.text import Text

from hiper.display.tables import Table
from hiper.display.text import duration, wrapped

_UNBOUNDED = 10_000
"""Line width in characters that no table reaches."""

SECONDS_BETWEEN_LINES = 60.0
"""Seconds between two progress lines where output is not a terminal."""


class Advance(Protocol):
    """Moves a bar on."""

    def __call__(self, units: int = 1, words: str | None = None) -> None:
        """Count work as done.

        Args:
            units: the units of work that were done since the last call.
            words: the words beside the bar from now on; None: as they were, at first "done/total".
        """


class Display:
    """Writes to a terminal. Where output is not a terminal, progress becomes one line per minute.

    Args:
        command: the command line that was given; result cards record it, and advice on how to continue repeats it.
        console: where to write; None: standard output.
    """

    def __init__(self, command: str = "", console: Console | None = None) -> None:
        self.command = command
        self.console = console or Console(highlight=False)
        self._progress: _Progress | None = None

    @contextmanager
    def whole(self, words: Callable[[], str]) -> Iterator[None]:
        """Show a line about the whole work below every bar of the block.

        Args:
            words: returns the line. It is called now and then, from another thread.
        """
        with self._showing() as progress:
            progress.whole = words
            try:
                yield
            finally:
                progress.whole = None

    @contextmanager
    def bar(self, label: str, total: int | None = None, done: int = 0) -> Iterator[Advance]:
        """Show a progress bar while the block runs; it yields a function to call as work gets done.

        Args:
            label: what is being done.
            total: units of work in all; None: unknown, so only the time is shown.
            done: units that were done before the block began.
        """
        with self._showing() as progress:
            bar = _Bar(label, total, done, done)
            progress.bars.append(bar)
            try:
                yield bar.advance
            finally:
                progress.bars.remove(bar)

    @contextmanager
    def _showing(self) -> Iterator[_Progress]:
        """Give what shows progress; the outermost block makes it."""
        if self._progress is not None:
            yield self._progress
            return
        progress = _Progress(self)
        with progress.shown():
            self._progress = progress
            try:
                yield progress
            finally:
                self._progress = None

    @contextmanager
    def bytes_bar(self, label: str) -> Iterator[Callable[[int, int | None], None]]:
        """Show a progress bar of bytes while the block runs.

        It yields a function to call with the bytes done so far and the total (None: unknown).
        """
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(label, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    def note(self, *lines: str) -> None:
        """Write lines of plain text. A line that is too wide is wrapped at its words."""
        for line in lines:
            for part in line.split("\n"):
                self.whole_line(*wrapped(part, self.console.width))

    def whole_line(self, *lines: str) -> None:
        """Write lines of plain text as they are, however wide, so that they can be copied: commands, paths."""
        for line in lines:
            self.console.print(line, markup=False, soft_wrap=True)

    def heading(self, text: str) -> None:
        """Write a line that stands out, after an empty one."""
        self.console.print(f"\n{text}", style="bold", markup=False)

    def alarm(self, text: str) -> None:
        """Warn that something is going wrong."""
        for line in wrapped(f"   ALARM  {text}", self.console.width, indent=10):
            self.console.print(line, style="bold red", markup=False, soft_wrap=True)

    def table(self, table: Table) -> None:
        """Write a table after an empty line. Brackets in it are no markup.

        A table that is too wide is set closer. Then its widest cells are wrapped at their words.
        """
        lines = [[*column] for column in zip(table.headings, *table.rows, strict=True)]
        widths = [max(len(line) for cell in column for line in cell.splitlines() or [""]) for column in lines]
        close = sum(widths) + 3 * len(widths) + 1 > self.console.width
        least = [max((len(word) for cell in column for word in cell.split()), default=0) for column in lines]
        widths = narrowed(widths, least, self.console.width - len(widths) - 1 if close else _UNBOUNDED)
        shown = rich_table.Table(padding=(0, 0) if close else (0, 1))
        for number, (heading, width) in enumerate(zip(table.headings, widths, strict=True)):
            side: JustifyMethod = "left" if number < table.left else "right"
            shown.add_column(Text(heading, overflow="fold"), justify=side, width=width, overflow="fold")
        for row in table.rows:
            shown.add_row(*(Text(cell, overflow="fold") for cell in row), style="bold" * (row[0] == table.total))
        self.console.print()
        for line in wrapped(table.title, self.console.width, indent=0):
            self.console.print(line, style="bold", markup=False, soft_wrap=True)
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
        self.note(f"interrupted; {saved}. Continue with:")
        self.whole_line(f"  {command}")


def narrowed(widths: Sequence[int], least: Sequence[int], most: int) -> list[int]:
    """Narrow the widest columns until all fit side by side.

    Args:
        widths: the widths of columns.
        least: the widths that words need. Columns fall below them only if nothing else is left.
        most: the width of all columns together.
    """
    narrow = list(widths)
    for bounds in (least, [1] * len(narrow)):
        while sum(narrow) > most and (wide := [n for n, width in enumerate(narrow) if width > bounds[n]]):
            narrow[max(wide, key=narrow.__getitem__)] -= 1
    return narrow


@dataclass
class _Bar:
    """Work that is being done."""

    label: str
    total: int | None
    before: int
    """Units that were done before the bar began."""
    done: int
    words: str | None = None
    began: float = field(default_factory=time.monotonic)

    def advance(self, units: int = 1, words: str | None = None) -> None:
        """Count work as done; see :class:`Advance`."""
        self.done = self.done + units if self.total is None else min(self.total, self.done + units)
        self.words = words or self.words

    @property
    def shown(self) -> str:
        """The words beside the bar, and the time to go; until that can be told, the time so far."""
        words = self.words or ("" if self.total is None else f"{self.done:,}/{self.total:,}")
        passed, done = time.monotonic() - self.began, self.done - self.before
        if self.total is None or done <= 0:
            time_shown = duration(passed)
        else:
            time_shown = f"{duration(passed * (self.total - self.done) / done)} left"
        return f"{words}, {time_shown}" if words else time_shown


class _Progress:
    """Bars and the line about the whole work, kept up to date by a thread until the work ends."""

    def __init__(self, display: Display) -> None:
        self.whole: Callable[[], str] | None = None
        self.bars: list[_Bar] = []
        self._display = display

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show progress while the block runs: as lines that change on a terminal, elsewhere by a line a minute."""
        if self._display.console.is_terminal:
            with Live(get_renderable=self._screen, console=self._display.console, transient=True, refresh_per_second=4):
                yield
            return
        ended = threading.Event()
        thread = threading.Thread(target=self._log, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _screen(self) -> Group:
        """Return what a terminal shows now."""
        lines = rich_table.Table.grid(padding=(0, 2, 0, 0), expand=True)
        lines.add_column(min_width=11, no_wrap=True)
        lines.add_column(ratio=1)
        lines.add_column(no_wrap=True)
        for bar in list(self.bars):
            lines.add_row(Text(bar.label), ProgressBar(bar.total, bar.done), Text(bar.shown))
        whole = [] if self.whole is None else [Text(self.whole(), style="dim", no_wrap=True, overflow="ellipsis")]
        return Group(*[lines] * bool(self.bars), *whole)

    def _log(self, ended: threading.Event) -> None:
        """Write lines about the innermost bar until the work ends."""
        while not ended.wait(SECONDS_BETWEEN_LINES):
            parts = [f"{bar.label}: {bar.shown}" for bar in self.bars[-1:]]
            parts += [] if self.whole is None else [self.whole()]
            if parts:
                self._display.note("          " + "; ".join(parts))
