"""Lines that training shows: what is trained, one aligned line per iteration, one per evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hiper.advantages import HEADS
from hiper.runs import metrics as names

if TYPE_CHECKING:
    from hiper.evaluation.evaluate import Evaluation
    from hiper.training.build import Parts

EXPLAINED_VARIANCE = names.EXPLAINED_VARIANCE.of("")
"""Prefix of metrics that only runs with the value head have. Other runs show no column for it."""

COLUMNS = (
    ("success", names.SUCCESS.name, "{:7.1%}"),
    ("turns", names.TURNS.name, "{:5.1f}"),
    ("invalid", names.INVALID.name, "{:7.1%}"),
    ("switch", names.SWITCH_RATE.name, "{:6.1%}"),
    ("segment", names.SEGMENT_TURNS.name, "{:7.1f}"),
    *((f"EV {head.name}", f"{EXPLAINED_VARIANCE}{head.name}", f"{{:{3 + len(head.name)}.2f}}") for head in HEADS),
    ("entropy", names.ENTROPY.name, "{:7.3f}"),
    ("KL", names.POLICY_KL.name, "{:7.4f}"),
    ("clipped", names.CLIP_FRACTION.name, "{:7.1%}"),
    ("seconds", names.ITERATION_SECONDS.name, "{:7.1f}"),
)
"""Heading, metric and format of each column of an iteration's line."""

LINES_PER_HEADING = 25
"""Lines of iterations between two lines of headings."""


def header(path: Path, parts: Parts) -> list[str]:
    """Return the lines that say what is about to be trained, on which tasks, in which folder."""
    panel = parts.env.panel
    held_out = ((split, env.panel) for split, env in parts.held_out.items())
    return [
        f"run        {path}",
        f"policy     {parts.learner.describe()}",
        f"credit     {parts.config.advantages.type}",
        f"train      {panel.name}: {len(panel)} tasks, sha256 {panel.hash[:12]}",
        *(f"held out   {split}: {len(panel)} tasks, sha256 {panel.hash[:12]}" for split, panel in held_out),
    ]


class IterationLines:
    """Aligned lines of iterations, with headings above the first and again now and then."""

    def __init__(self) -> None:
        self._count = 0

    def of(self, done: int, total: int, metrics: Mapping[str, float]) -> list[str]:
        """Return the line of an iteration, after a line of headings if one is due.

        Args:
            done: iterations completed.
            total: iterations of the whole run.
            metrics: metrics of this iteration; a column whose metric is missing or NaN shows a dash.
        """
        columns = [column for column in COLUMNS if column[1] in metrics or not column[1].startswith(EXPLAINED_VARIANCE)]
        cells = (_cell(metrics.get(metric, math.nan), shape) for _, metric, shape in columns)
        line = f"{f'{done}/{total}':>9}  {'  '.join(cells)}"
        headings = "iteration  " + "  ".join(name.rjust(_width(shape)) for name, _, shape in columns)
        self._count += 1
        return [headings, line] if self._count % LINES_PER_HEADING == 1 else [line]


def evaluation_line(done: int, split: str, result: Evaluation) -> str:
    """Return the line of an evaluation after ``done`` iterations."""
    outcome = result.overall
    low, high = outcome.interval
    score = f" score {outcome.score:.3f}," if outcome.graded else ""
    return (
        f"          evaluation after {done} iterations on {split}: {outcome.success:.1%} of {outcome.episodes} "
        f"[{low:.1%}, {high:.1%}],{score} {outcome.turns:.1f} turns, {result.seconds:.0f} s"
    )


def _cell(value: float, shape: str) -> str:
    return "-".rjust(_width(shape)) if math.isnan(value) else shape.format(value)


def _width(shape: str) -> int:
    return len(shape.format(0.0))
