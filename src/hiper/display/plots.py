"""Figures, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hiper.files import atomic_file

TRAINING = "#9aa5b1"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Told apart with any colour vision (Okabe and Ito's palette)."""
INK = "#333f48"


class Estimate(NamedTuple):
    """Success on held-out tasks, with its interval."""

    iteration: int
    success: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """What a learning curve shows."""

    title: str
    training: Sequence[tuple[int, float]]
    """Iteration and success of its episodes."""
    held_out: Mapping[str, Sequence[Estimate]]
    """By split."""


def draw_learning_curve(path: Path, curve: Curve) -> None:
    """A PNG of success over iterations: of training episodes, and on held-out tasks with 95% intervals."""
    figure = Figure(figsize=(7.2, 4.2), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    _style(axes, curve.title)
    if curve.training:
        axes.plot(
            *zip(*curve.training, strict=True), color=TRAINING, linewidth=1.2, marker=".", label="training episodes"
        )
    for n, (split, estimates) in enumerate(curve.held_out.items()):
        _draw_estimates(axes, split, estimates, colour_of(n))
    axes.legend(loc="best", frameon=False, labelcolor=INK, fontsize=9)
    save(figure, path)


def _draw_estimates(axes: Axes, split: str, estimates: Sequence[Estimate], colour: str) -> None:
    iterations, successes = [e.iteration for e in estimates], [e.success for e in estimates]
    bars = [[e.success - e.low for e in estimates], [e.high - e.success for e in estimates]]
    axes.errorbar(
        iterations, successes, yerr=bars, color=colour, marker="o", linewidth=2, elinewidth=1.2, capsize=3, zorder=3,
        clip_on=False, label=f"held out: {split}, with 95% intervals",
    )  # fmt: skip
    ends = ((estimates[0], -8, "right"), (estimates[-1], 8, "left"))
    for estimate, offset, side in ends[: len(estimates)]:
        axes.annotate(
            f"{estimate.success:.0%}", (estimate.iteration, estimate.success), xytext=(offset, 0), ha=side, va="center",
            textcoords="offset points", color=colour, fontsize=10, fontweight="bold",
        )  # fmt: skip


def _style(axes: Axes, title: str) -> None:
    plain(axes, title)
    axes.set_xlabel("iteration", color=INK)
    axes.set_ylabel("success", color=INK)
    percent_axis(axes)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def plain(axes: Axes, title: str) -> None:
    """What all figures have in common: a title, horizontal lines, and little else."""
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold", parse_math=False)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#cbd2d9")


def percent_axis(axes: Axes) -> None:
    """A share, from nothing to all."""
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def colour_of(n: int) -> str:
    """Of the line of that number."""
    return COLOURS[n % len(COLOURS)]


def save(figure: Figure, path: Path) -> None:
    """As a PNG, whole or not at all."""
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png")
