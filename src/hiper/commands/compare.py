"""`hiper compare`: runs of several methods side by side, on the terminal and in files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hiper.analysis.comparison.comparison import Comparison, compare
from hiper.analysis.comparison.figure import draw_comparison
from hiper.analysis.comparison.report import LEGEND, markdown, notes, tables
from hiper.analysis.comparison.traces import read_trace
from hiper.commands.output import write_results
from hiper.display.console import Display
from hiper.runs.folder import Run

NAME = "comparison"
"""Name of the files, without their suffixes."""


def compare_runs(runs: Sequence[Run], folder: Path, display: Display, missing: Sequence[str] = ()) -> Comparison:
    """Compare runs, show the tables, and write tables, numbers and curves into ``folder``.

    Args:
        runs: the runs; the method of the first one is the reference.
        folder: where to write.
        display: where to show the tables.
        missing: runs that should be among them but are not, and why, in words.

    Raises:
        UserError: a run has not been evaluated, or the runs cannot be compared.
    """
    comparison = compare([read_trace(run) for run in runs], missing)
    display.show(*notes(comparison), *tables(comparison), "", " ".join(LEGEND.split()))
    document = markdown(comparison, f"{NAME}.png")
    draw = partial(draw_comparison, comparison=comparison)
    write_results(folder, NAME, display, comparison.to_json(), draw, document)
    return comparison
