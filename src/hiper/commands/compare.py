"""`hiper compare`: the tables, and where the rest is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hiper.analysis.comparison.comparison import Comparison, compare
from hiper.analysis.comparison.figure import draw_comparison
from hiper.analysis.comparison.report import LEGEND, markdown, notes, tables
from hiper.analysis.comparison.traces import read_trace
from hiper.display.console import Display
from hiper.files import write_text
from hiper.runs.folder import Run

JSON, MARKDOWN, FIGURE = "comparison.json", "comparison.md", "comparison.png"


def show_comparison(runs: Sequence[Run], folder: Path, display: Display, missing: Sequence[str] = ()) -> Comparison:
    """Compare runs; show tables, write them, JSON and a figure into ``folder``.

    Args:
        runs: the first one's method is the reference.
        folder: where to.
        display: where the tables are shown.
        missing: see :func:`hiper.analysis.comparison.comparison.compare`.

    Raises:
        UserError: a run has not been evaluated, or they cannot be compared.
    """
    comparison = compare([read_trace(run) for run in runs], missing)
    for note in notes(comparison):
        display.note(note)
    for table in tables(comparison):
        display.table(*table)
    display.note(f"\n{LEGEND}")
    comparison.write(folder / JSON)
    write_text(folder / MARKDOWN, markdown(comparison, FIGURE))
    draw_comparison(folder / FIGURE, comparison)
    display.note(f"\nall of it: {folder / MARKDOWN}, .json, .png")
    return comparison
