"""What training shows: what is trained, one aligned line per iteration, one per evaluation, and the time to go."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from hiper.advantages import HEADS
from hiper.config import Config
from hiper.display.text import clock, duration
from hiper.runs import metrics as names
from hiper.training.schedule import tasks_due

if TYPE_CHECKING:
    from hiper.evaluation.evaluate import Evaluation
    from hiper.training.build import Parts


class Column(NamedTuple):
    """A column of an iteration's line."""

    heading: str
    metric: str
    shape: str
    """The format of its numbers. The time has a format of its own."""
    meaning: str
    spare: bool = False
    """Whether it is left out where the line would be too wide."""


EXPLAINED_VARIANCE = names.EXPLAINED_VARIANCE.of("")
"""Prefix of metrics that only runs with the value head have. Other runs show no column for it."""
OF_VALUES = "explained variance"
"""The heading above the columns of value heads."""

COLUMNS = (
    Column("success", names.SUCCESS.name, "{:7.1%}", "share of episodes won"),
    Column("turns", names.TURNS.name, "{:5.1f}", "turns per episode"),
    Column("invalid", names.INVALID.name, "{:7.1%}", "share of turns with an invalid response"),
    Column("switch", names.SWITCH_RATE.name, "{:6.1%}", "share of turns that switch the subgoal", spare=True),
    Column("segment", names.SEGMENT_TURNS.name, "{:7.1f}", "turns under one subgoal"),
    *(Column(head.name, f"{EXPLAINED_VARIANCE}{head.name}", f"{{:{max(5, len(head.name))}.2f}}", "") for head in HEADS),
    Column("entropy", names.ENTROPY.name, "{:7.3f}", "of the next token, in nats"),
    Column("KL", names.POLICY_KL.name, "{:6.4f}", "how far the update moved the policy, in nats per token"),
    Column("clipped", names.CLIP_FRACTION.name, "{:7.1%}", "share of tokens at PPO's clip range", spare=True),
    Column("time", names.ITERATION_SECONDS.name, "{:>6}", "of the iteration, without evaluations"),
)
"""The columns of an iteration's line, behind the number of the iteration."""

LINES_PER_HEADING = 25
"""Lines of iterations between two lines of headings."""


def header(parts: Parts) -> list[str]:
    """Return the lines that say what is about to be trained, and on which tasks."""
    panel = parts.env.panel
    held_out = ((split, env.panel) for split, env in parts.held_out.items())
    return [
        f"policy     {parts.learner.describe()}",
        f"credit     {parts.config.advantages.type}",
        f"train      {panel.name}: {len(panel)} tasks, sha256 {panel.hash[:12]}",
        *(f"held out   {split}: {len(panel)} tasks, sha256 {panel.hash[:12]}" for split, panel in held_out),
    ]


class IterationLines:
    """Aligned lines of iterations, with headings above the first and again now and then.

    Args:
        total: The iterations of the whole run.
        width: The most characters of a line.
    """

    def __init__(self, total: int, width: int) -> None:
        self._total, self._width, self._count = total, width, 0
        self._number = max(len("iteration") if width > 90 else 4, 2 * len(str(total)) + 1)
        """Characters of the first column."""

    def of(self, done: int, metrics: Mapping[str, float]) -> list[str]:
        """Return the line of an iteration, after the legend and lines of headings if they are due.

        Args:
            done: The iterations completed.
            metrics: The metrics of this iteration. A column whose metric is missing or NaN shows a dash.
        """
        columns = self._columns(metrics)
        line = self._line(f"{done}/{self._total}", [_cell(metrics.get(c.metric, math.nan), c) for c in columns])
        self._count += 1
        legend = self._legend(columns) if self._count == 1 else []
        return [*legend, *self._headings(columns), line] if self._count % LINES_PER_HEADING == 1 else [line]

    def _columns(self, metrics: Mapping[str, float]) -> list[Column]:
        """Choose the columns that the run has and that fit."""
        columns = [c for c in COLUMNS if c.metric in metrics or not c.metric.startswith(EXPLAINED_VARIANCE)]
        for spare in (column for column in COLUMNS if column.spare):
            if len(self._line("", ["".rjust(_width(c)) for c in columns])) > self._width:
                columns.remove(spare)
        return columns

    def _line(self, first: str, cells: Sequence[str]) -> str:
        return " ".join([first.rjust(self._number), *cells])

    def _headings(self, columns: Sequence[Column]) -> list[str]:
        first = "iteration" if self._number >= len("iteration") else "iter"
        line = self._line(first, [c.heading.rjust(_width(c)) for c in columns])
        of_values = [n for n, c in enumerate(columns) if c.metric.startswith(EXPLAINED_VARIANCE)]
        if not of_values:
            return [line]
        end = len(self._line("", ["".rjust(_width(c)) for c in columns[: of_values[-1] + 1]]))
        return [OF_VALUES.rjust(end), line]

    def _legend(self, columns: Sequence[Column]) -> list[str]:
        """Explain the columns, in lines that the display wraps."""
        told = [f"{c.heading}: {c.meaning}" for c in columns if c.meaning]
        values = any(c.metric.startswith(EXPLAINED_VARIANCE) for c in columns)
        told += [f"{OF_VALUES}: of the values, 1 is perfect and 0 a constant's"] * values
        return ["", "; ".join(told), ""]


def evaluation_line(done: int, split: str, result: Evaluation) -> str:
    """Return the line of an evaluation after ``done`` iterations."""
    outcome = result.overall
    low, high = outcome.interval
    score = f" score {outcome.score:.3f}," if outcome.graded else ""
    return (
        f"held out, after {done}: {split} {outcome.success:.1%} [{100 * low:.0f}, {100 * high:.0f}] of "
        f"{outcome.episodes},{score} {outcome.turns:.1f} turns, {duration(result.seconds)}"
    )


def _cell(value: float, column: Column) -> str:
    if math.isnan(value):
        return "-".rjust(_width(column))
    if column.metric == names.ITERATION_SECONDS.name:
        return column.shape.format(duration(value))
    if column.metric.startswith(EXPLAINED_VARIANCE):  # far below zero while the critic is untrained
        texts = [f"{value:.{digits}f}" for digits in (2, 1, 0)]
        return next((text for text in texts if len(text) <= _width(column)), texts[-1]).rjust(_width(column))
    return column.shape.format(value)


def _width(column: Column) -> int:
    return len(column.shape.format(0.0))


class Pace:
    """The pace of this process: the iteration under way, the time so far, and the time to go.

    Args:
        config: The settings of the run.
    """

    def __init__(self, config: Config) -> None:
        self._config, self._began = config, time.monotonic()
        self._done: int | None = None
        """The iterations that the run has done. None: not known yet."""
        self._since: float | None = None
        """The time at which the iteration under way began."""
        self._seconds: list[float] = []
        """The seconds of each iteration of this process."""
        self._evaluation: dict[str, tuple[int, float]] = {}
        """The number of tasks of each split, and the seconds that a task took."""

    def begin_iteration(self, done: int) -> None:
        """Begin an iteration, after ``done`` others."""
        self._done, self._since = done, time.monotonic()

    def iterated(self) -> None:
        """End the iteration."""
        assert self._done is not None
        assert self._since is not None
        self._seconds.append(time.monotonic() - self._since)
        self._done, self._since = self._done + 1, None

    def evaluated(self, split: str, tasks: int, of: int, seconds: float) -> None:
        """Count an evaluation of ``tasks`` tasks of the ``of`` that a split has."""
        self._evaluation[split] = of, seconds / tasks

    def words(self) -> str:
        """Say where the run is."""
        total = self._config.training.iterations
        if self._done is None:
            where = "beginning"
        elif self._since is None:
            where = f"after iteration {self._done} of {total}"
        else:
            where = f"iteration {self._done + 1} of {total}"
        to_go = self.to_go()
        left = "time to go unknown" if to_go is None else f"about {duration(to_go)} to go"
        return f"{where}, {clock(time.monotonic() - self._began)} so far, {left}"

    def to_go(self) -> float | None:
        """Estimate the seconds to the end of the run. None: this process has done no iteration."""
        if self._done is None or not self._seconds:
            return None
        passed = 0.0 if self._since is None else time.monotonic() - self._since
        mean = fmean(self._seconds)
        left = (self._config.training.iterations - self._done) * mean
        return max(left - passed, 0.0 if self._since is None else 0.01 * mean) + self._evaluations_to_go(self._done)

    def _evaluations_to_go(self, done: int) -> float:
        """Estimate the seconds of the evaluations to come, of the splits that this process has evaluated."""
        total, every = self._config.training.iterations, self._config.evaluation.every
        between = max(0, (total - 1) // every - done // every) if every else 0
        seconds = 0.0
        for size, of_task in self._evaluation.values():
            for count, at in ((between, 1), (int(done < total), total)):
                seconds += count * of_task * min(tasks_due(self._config, at) or size, size)
        return seconds
