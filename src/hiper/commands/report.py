"""`hiper report`: the outcome of a run on the terminal, then its report and learning curve as files."""

from __future__ import annotations

from pathlib import Path

from hiper.analysis.report import Report, read_report, write_report
from hiper.display.console import Display
from hiper.display.text import wrapped
from hiper.display.transcript import transcript
from hiper.runs.folder import Run


def report_run(run: Run, display: Display) -> Report:
    """Show the outcome of a run, then write ``report.md`` and the learning curve into its folder.

    Raises:
        UserError: the run has not been evaluated yet, or one of its files is damaged.
    """
    report = read_report(run)
    _show(report, display)
    write_report(report)
    return report


def _show(report: Report, display: Display) -> None:
    display.heading(report.title)
    display.show(*report.summary(), *report.tables())
    if report.sample is not None:
        display.heading("a held-out episode")
        display.note(*transcript(report.sample, display.console.width))
    display.heading(f"where everything is: {report.run.path}")
    names = [str(Path(place).relative_to(report.run.path)) for place, _ in report.places()]
    column = max(map(len, names)) + 4
    for name, (_, what) in zip(names, report.places(), strict=True):
        display.whole_line(*wrapped(f"  {name:{column - 4}}  {what}", display.console.width, indent=column))
