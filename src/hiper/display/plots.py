"""Figures, drawn without a screen.

Importing matplotlib takes about a second, so it is imported when a figure is made, and here alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from hiper.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAINING = "#9aa5b1"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Colours that every kind of colour vision can tell apart (Okabe and Ito's palette)."""
INK = "#333f48"


class Estimate(NamedTuple):
    """Success on held-out tasks, with its interval."""

    iteration: int
    success: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """The content of a learning curve."""

    title: str
    training: Sequence[tuple[int, float]]
    """Iteration, and success of its training episodes."""
    held_out: Mapping[str, Sequence[Estimate]]
    """Evaluations by split."""


def draw_learning_curve(path: Path, curve: Curve) -> None:
    """Draw success over iterations as a PNG: training episodes, and held-out tasks with 95% intervals."""
    figure = new_figure(7.2, 4.2, dpi=160)
    axes = figure.add_subplot()
    plain(axes, curve.title)
    axes.set_xlabel("iteration", color=INK)
    axes.set_ylabel("success", color=INK)
    percent_axis(axes)
    axes.margins(x=0.08)
    integer_axis(axes)
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


def new_figure(width: float, height: float, dpi: int = 150) -> Figure:
    """Make an empty figure.

    Args:
        width: in inches.
        height: in inches.
        dpi: pixels per inch.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def plain(axes: Axes, title: str) -> None:
    """Give a panel the style of all figures: a title, horizontal grid lines, and little else."""
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold", parse_math=False)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#cbd2d9")


def percent_axis(axes: Axes, which: Literal["x", "y"] = "y", margin: float = 0.0) -> None:
    """Scale an axis from 0% to 100%, with a margin at both ends."""
    from matplotlib.ticker import PercentFormatter

    (axes.set_xlim if which == "x" else axes.set_ylim)(-margin, 1 + margin)
    (axes.xaxis if which == "x" else axes.yaxis).set_major_formatter(PercentFormatter(1.0))


def integer_axis(axes: Axes) -> None:
    """Put the ticks of the x axis at integers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def colour_of(n: int) -> str:
    """Return the colour of the line with that number."""
    return COLOURS[n % len(COLOURS)]


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, atomically."""
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png")
