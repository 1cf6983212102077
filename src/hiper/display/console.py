"""What a person sees while something long goes on: bars, and one aligned line per iteration."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

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
from rich.table import Table
from rich.text import Text

from hiper.advantages import HEADS
from hiper.display.transcript import transcript

if TYPE_CHECKING:
    from hiper.analysis.report import Report
    from hiper.evaluation.evaluate import Evaluation

EXPLAINED_VARIANCE = "critic/explained_variance_"
"""The beginning of the metrics that only runs with that value head have. Others show no column for them."""

COLUMNS = (
    ("success", "success/all", "{:7.1%}"),
    ("turns", "episode/turns", "{:5.1f}"),
    ("invalid", "invalid/all", "{:7.1%}"),
    ("switch", "plan/switch_rate", "{:6.1%}"),
    ("segment", "plan/segment_turns", "{:7.1f}"),
    *((f"EV {head.name}", f"{EXPLAINED_VARIANCE}{head.name}", f"{{:{3 + len(head.name)}.2f}}") for head in HEADS),
    ("entropy", "policy/entropy", "{:7.3f}"),
    ("KL", "policy/kl", "{:7.4f}"),
    ("clipped", "policy/clip_fraction", "{:7.1%}"),
    ("seconds", "time/iteration", "{:7.1f}"),
)
"""Heading, metric and format of an iteration's line."""

_UNBOUNDED = 10_000
"""Characters of a line, where a table's own width is asked for."""

SECONDS_BETWEEN_LINES = 60.0
"""How often something long says how far it is where there is no terminal."""


class Display:
    """Writes to a terminal; where output is not a terminal, bars become a line a minute.

    Args:
        command: the command that was given, for result cards.
        console: where to write.
    """

    def __init__(self, command: str = "", console: Console | None = None) -> None:
        self.command = command
        self.console = console or Console(highlight=False)
        self._lines = 0

    @contextmanager
    def bar(self, what: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
        """A progress bar; call what it gives for each unit done, apart from those done at the beginning."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        if not self.console.is_terminal:
            yield self._lines_of(what, total, done)
            return
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(what, total=total, completed=done)
            yield lambda: progress.advance(task)

    def _lines_of(self, what: str, total: int, begun: int) -> Callable[[], None]:
        """A bar's stand-in in a log: a line now and then."""
        done, began = begun, time.monotonic()
        said = began

        def advance() -> None:
            nonlocal done, said
            done, now = done + 1, time.monotonic()
            if now - said >= SECONDS_BETWEEN_LINES and done < total:
                said = now
                self.note(
                    f"          {what}: {done}/{total}, {(now - began) * (total - done) / (done - begun):.0f} s to go"
                )

        return advance

    @contextmanager
    def bytes_bar(self, what: str) -> Iterator[Callable[[int, int | None], None]]:
        """A bar of bytes; tell what it gives how many are done, and how many there are (None: unknown)."""
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(what, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    def note(self, text: str) -> None:
        """A line of plain text."""
        self.console.print(text, markup=False, soft_wrap=True)

    def iteration(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """One aligned line."""
        columns = [column for column in COLUMNS if column[1] in metrics or not column[1].startswith(EXPLAINED_VARIANCE)]
        if self._lines % 25 == 0:
            self.note("iteration  " + "  ".join(name.rjust(_width(shape)) for name, _, shape in columns))
        self._lines += 1
        cells = (_cell(metrics.get(key, math.nan), shape) for _, key, shape in columns)
        self.note(f"{f'{done}/{total}':>9}  {'  '.join(cells)}")

    def alarm(self, text: str) -> None:
        """Something is going wrong."""
        self.console.print(f"   ALARM  {text}", style="bold red", markup=False, soft_wrap=True)

    def evaluation(self, done: int, split: str, result: Evaluation) -> None:
        """One line."""
        outcome = result.overall
        low, high = outcome.interval
        score = f" score {outcome.score:.3f}," if outcome.graded else ""
        self.note(
            f"          evaluation after {done} iterations on {split}: {outcome.success:.1%} of {outcome.episodes} "
            f"[{low:.1%}, {high:.1%}],{score} {outcome.turns:.1f} turns, {result.seconds:.0f} s"
        )

    def outcomes(self, title: str, result: Evaluation) -> None:
        """A table by task type."""
        graded = any(outcome.graded for outcome in result.outcomes.values())
        rows = []
        for name, outcome in result.outcomes.items():
            low, high = outcome.interval
            row = (name, str(outcome.episodes), f"{outcome.success:.1%}", f"{low:.1%} - {high:.1%}")
            score = [f"{outcome.score:.3f}"] * graded
            rows.append([*row, *score, f"{outcome.turns:.1f}", f"{sum(outcome.invalid.values()):.1%}"])
        headings = ("task type", "episodes", "success", "95% interval", *["score"] * graded, "turns", "invalid")
        self.table(title, headings, rows, total="all")

    def table(
        self,
        title: str,
        headings: Sequence[str],
        rows: Iterable[Sequence[str]],
        left: int = 1,
        total: str | None = None,
    ) -> None:
        """A table of plain text; brackets in it are no markup. Where it is too wide, its cells stand closer.

        Args:
            title: above it.
            headings: of the columns.
            rows: a text for each column.
            left: so many columns, the first ones, are aligned to the left.
            total: the first text of the row that sums up, which stands out.
        """
        table = Table(title=Text(title, style="bold"), title_justify="left")
        for number, heading in enumerate(headings):
            table.add_column(Text(heading), justify="left" if number < left else "right")
        for row in rows:
            table.add_row(*map(Text, row), style="bold" if row[0] == total else None)
        unbounded = self.console.options.update(max_width=_UNBOUNDED)
        if self.console.measure(table, options=unbounded).maximum > self.console.width:
            table.padding = (0, 0)
        self.console.print()
        self.console.print(table)

    def report(self, report: Report) -> None:
        """What came of a run."""
        self.console.print(f"\n{report.title}", style="bold", markup=False)
        for sentence in report.summary():
            self.note(sentence)
        for table in report.tables():
            self.table(*table, total="all")
        if report.sample is not None:
            self.console.print("\n[bold]a held-out episode[/bold]")
            self.note("\n".join(transcript(report.sample, width=max(80, self.console.width))))
        self.console.print("\n[bold]where everything lies[/bold]")
        width = max(len(place) for place, _ in report.places())
        for place, what in report.places():
            self.note(f"  {place:{width}}  {what}")

    def interrupted(self, kept: str, command: str) -> None:
        """Where things stand after an interrupt, and the command that goes on."""
        self.note(f"interrupted; {kept}. Continue with: {command}")


def _cell(value: float, shape: str) -> str:
    """A dash for what there is nothing to tell of."""
    return "-".rjust(_width(shape)) if math.isnan(value) else shape.format(value)


def _width(shape: str) -> int:
    return len(shape.format(0.0))
