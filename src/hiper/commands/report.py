"""`hiper report`: the outcome of a run on the terminal, then its report and learning curve as files."""

from __future__ import annotations

from hiper.analysis.report import Report, read_report, write_report
from hiper.display.console import Display
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
        display.note(*transcript(report.sample, width=max(80, display.console.width)))
    display.heading("where everything is")
    width = max(len(place) for place, _ in report.places())
    display.note(*(f"  {place:{width}}  {content}" for place, content in report.places()))
