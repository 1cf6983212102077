"""`hiper credit`: the tables, and where the rest is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hiper.advantages import Floats
from hiper.analysis.credit.figure import draw_credit
from hiper.analysis.credit.report import CreditReport, credit_report
from hiper.display.console import Display
from hiper.runs.folder import Run

JSON, FIGURE = "credit.json", "credit.png"


def show_credit(run: Run, folder: Path, display: Display, iteration: int | None = None) -> CreditReport:
    """Compare every estimator on a run's episodes; show tables, write JSON and a figure into ``folder``.

    Raises:
        UserError: there are no episodes, or they cannot be read.
    """
    report = credit_report(run, iteration)
    _show(report, display)
    report.write(folder / JSON)
    draw_credit(folder / FIGURE, report)
    display.note(f"\nall of it: {folder / JSON}, {folder / FIGURE}")
    return report


def _show(report: CreditReport, display: Display) -> None:
    turns = sum(len(episode.turns) for episode in report.episodes)
    title = f"{report.name}, iteration {report.iteration}: {len(report.episodes)} episodes, {turns} turns"
    headings = ("estimator", "credit of", "decisions", "mean", "variance", "above 0", "within episodes")
    rows = (
        (name, s.decision, f"{s.count:,}", f"{s.mean:.3f}", f"{s.variance:.4f}", f"{s.positive:.0%}", f"{s.within:.0%}")
        for name, parts in report.summaries.items()
        for s in parts
    )
    display.table(title, headings, rows, left=2)
    for name, why in report.left_out.items():
        display.note(f"{name} is left out: {why}")

    names = list(report.opinions)
    numbers = [str(n) for n in range(1, len(names) + 1)]
    both = np.where(np.tri(len(names), k=-1, dtype=bool), report.turn_correlation_EE, report.token_correlation_EE)
    display.table(
        "Rank correlation: of turns below the diagonal, of tokens above",
        ("", *numbers),
        ([f"{n + 1} {name}", *_matrix_row(both[n], n)] for n, name in enumerate(names)),
    )
    display.note("Below, the columns are of estimators by these numbers.")
    display.table(
        "Where they disagree most (mean credit of the turn)",
        ("episode", "turn", "action", *numbers),
        (
            [str(d.episode), str(d.turn + 1), report.turn(d).action or "(invalid)"]
            + [f"{opinion.turn_N[d.row]:.2f}" for opinion in report.opinions.values()]
            for d in report.disputed
        ),
        left=3,
    )
    most = report.shown
    episode, credit = report.episodes[most.episode], report.of_episode(most.episode)
    display.table(
        f"Episode {most.episode} turn by turn, {'won' if episode.won else 'lost'}: {episode.goal}",
        ("turn", "subgoal", "action", *numbers),
        (
            [str(t + 1), turn.subgoal if turn.boundary else "", turn.action or "(invalid)"]
            + [f"{credit[name][t]:.2f}" for name in names]
            for t, turn in enumerate(episode.turns)
        ),
        left=3,
    )
    tokens = [opinion.token_K_of(most.row) for opinion in report.opinions.values()]
    display.table(
        f"Its turn {most.turn + 1} token by token",
        ("token", *numbers),
        ([token, *(_cell(row[k]) for row in tokens)] for k, token in enumerate(report.tokens)),
    )


def _matrix_row(row_E: Floats, at: int) -> list[str]:
    return ["" if n == at else _cell(value) for n, value in enumerate(row_E.tolist())]


def _cell(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "-"
