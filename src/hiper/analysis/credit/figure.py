"""A figure of a disputed episode: the credit of its turns and of one response's tokens, by estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hiper.advantages import Floats
from hiper.analysis.credit.report import CreditReport
from hiper.display.plots import INK, new_figure, plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: dict[str, Any] = {"cmap": "RdBu", "vmin": -1.7, "vmax": 1.7, "aspect": "auto"}
"""Colours for numbers from -1 to 1. The darkest are left out, so that text on them can be read."""


def draw_credit(path: Path, report: CreditReport) -> None:
    """Draw the turns of the episode, the tokens of its disputed turn, and the rank correlations over all turns."""
    most = report.shown
    episode, turn = report.episodes[most.episode], report.turn(most)
    names = list(report.opinions)
    figure = new_figure(12.0, 3.2 + 0.5 * len(names))
    grid = figure.add_gridspec(2, 3)
    turns, tokens, alike = (figure.add_subplot(place) for place in (grid[0, :], grid[1, :2], grid[1, 2]))

    labels = [f"{n}: {t.action or '(invalid)'}" for n, t in enumerate(episode.turns, 1)]
    title = f"{report.name}, iteration {report.iteration}: {'won' if episode.won else 'lost'}, {episode.goal}"
    _heat(turns, title[:120], report.of_episode(most.episode), labels)
    for n, played in enumerate(episode.turns):
        if played.boundary:
            turns.axvline(n - 0.5, color=INK, linewidth=2)

    of_tokens = {name: opinion.token_K_of(most.row) for name, opinion in report.opinions.items()}
    _heat(tokens, f"The tokens of turn {most.turn + 1}: {turn.action}", of_tokens, report.tokens)

    plain(alike, "Rank correlation over all turns")
    alike.imshow(report.turn_correlation_EE, **COLOURS)
    alike.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    alike.set_yticks(range(len(names)), names, fontsize=7)
    for (row, column), value in np.ndenumerate(report.turn_correlation_EE):
        alike.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6, color=INK)
    alike.grid(visible=False)
    save(figure, path)


def _heat(axes: Axes, title: str, rows: Mapping[str, Floats], labels: Sequence[str]) -> None:
    """Draw a row per estimator, each on its own scale: red below zero, blue above, blank without credit."""
    plain(axes, title)
    scaled = [row / max(float(np.nanmax(np.abs(row))), 1e-12) for row in rows.values()]
    axes.imshow(np.array(scaled), **COLOURS)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=8)
    short = [label[:24] for label in labels]
    axes.set_xticks(range(len(labels)), short, rotation=35, ha="right", fontsize=7, parse_math=False)
    for y, row in enumerate(rows.values()):
        for x, value in enumerate(row):
            if np.isfinite(value):
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=6, color=INK)
    axes.grid(visible=False)
