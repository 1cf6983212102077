"""`hiper credit`: every estimator on a run's stored episodes, on the terminal and in files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from hiper.advantages import Floats, TokenKind
from hiper.analysis.credit.figure import draw_credit
from hiper.analysis.credit.report import CreditReport, credit_report
from hiper.commands.output import write_results
from hiper.display.console import Display
from hiper.display.tables import Table
from hiper.runs.folder import Run


def show_credit(run: Run, folder: Path, display: Display, iteration: int | None = None) -> CreditReport:
    """Compare all estimators on a run's episodes, show the tables, and write numbers and a figure into ``folder``.

    Args:
        run: the run whose episodes are read.
        folder: where to write.
        display: where to show the tables.
        iteration: the iteration whose episodes are read; None: the last one.

    Raises:
        UserError: there are no episodes, or they cannot be read.
    """
    report = credit_report(run, iteration)
    display.show(*credit_parts(report))
    write_results(folder, "credit", display, report.to_json(), partial(draw_credit, report=report))
    return report


def credit_parts(report: CreditReport) -> Iterator[str | Table]:
    """Yield the notes and tables of a report, in the order in which they are shown."""
    yield from _summary(report)
    yield from _agreement(report)
    yield from _disputed(report)


def _summary(report: CreditReport) -> Iterator[str | Table]:
    turns = sum(len(episode.turns) for episode in report.episodes)
    yield Table(
        f"{report.name}, iteration {report.iteration}: {len(report.episodes)} episodes, {turns} turns",
        ("estimator", "credit of", "decisions", "mean", "variance", "above 0", "within episodes"),
        [
            (name, s.decision, f"{s.count:,}", f"{s.mean:.3f}", f"{s.variance:.4f}", f"{s.positive:.0%}",
             f"{s.within:.0%}")
            for name, parts in report.summaries.items()
            for s in parts
        ],
        left=2,
    )  # fmt: skip
    for name, why in report.left_out.items():
        yield f"{name} is left out: {why}"


def _numbers(report: CreditReport) -> list[str]:
    """Column headings that stand for the estimators."""
    return [str(n) for n in range(1, len(report.opinions) + 1)]


def _agreement(report: CreditReport) -> Iterator[str | Table]:
    names = list(report.opinions)
    below = np.tri(len(names), k=-1, dtype=bool)
    both_EE = np.where(below, report.turn_correlation_EE, report.token_correlation_EE)
    yield Table(
        "Rank correlation: of turns below the diagonal, of tokens above",
        ("", *_numbers(report)),
        [[f"{n + 1} {name}", *_matrix_row(both_EE[n], n)] for n, name in enumerate(names)],
    )
    yield "In the tables below, each column is the estimator with that number."


def _disputed(report: CreditReport) -> Iterator[Table]:
    numbers = _numbers(report)
    yield Table(
        "Where they disagree most (mean credit of the turn)",
        ("episode", "turn", "action", *numbers),
        [
            [str(d.episode), str(d.turn + 1), report.turn(d).action or "(invalid)"]
            + [f"{opinion.turn_N[d.row]:.2f}" for opinion in report.opinions.values()]
            for d in report.disputed
        ],
        left=3,
    )
    shown = report.shown
    episode, credit = report.episodes[shown.episode], report.of_episode(shown.episode)
    yield Table(
        f"Episode {shown.episode} turn by turn, {'won' if episode.won else 'lost'}: {episode.goal}",
        ("turn", "subgoal", "action", *numbers),
        [
            [str(t + 1), turn.subgoal if turn.boundary else "", turn.action or "(invalid)"]
            + [f"{credit[name][t]:.2f}" for name in report.opinions]
            for t, turn in enumerate(episode.turns)
        ],
        left=3,
    )
    yield Table(f"Turn {shown.turn + 1} of that episode token by token", ("token", *numbers), list(_tokens(report)))


def _tokens(report: CreditReport) -> Iterator[list[str]]:
    """Yield a row for each token of the response shown; a single one with the mean for its thoughts, which are long."""
    tokens_EK = np.array([opinion.token_K_of(report.shown.row) for opinion in report.opinions.values()])
    thinks_K = np.array(report.turn(report.shown).kinds) == TokenKind.THINKING
    if thoughts := int(thinks_K.sum()):
        yield [f"({thoughts:,} tokens of thinking)", *map(_cell, tokens_EK[:, thinks_K].mean(axis=1))]
    for k in np.flatnonzero(~thinks_K).tolist():
        yield [report.tokens[k], *map(_cell, tokens_EK[:, k])]


def _matrix_row(row_E: Floats, diagonal: int) -> list[str]:
    return ["" if n == diagonal else _cell(value) for n, value in enumerate(row_E.tolist())]


def _cell(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "-"
