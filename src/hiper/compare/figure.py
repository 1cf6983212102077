"""Learning curves of methods, with bands over seeds, and success by task type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hiper.compare.comparison import Comparison
from hiper.compare.traces import SEGMENT, SUCCESS, SWITCH_RATE, Point
from hiper.evaluation.plots import COLOURS, INK, colour_of, percent_axis, plain, save

STROKES = ("-", "--", ":")
"""The lines of more methods than there are colours are dashed, then dotted."""


def draw_comparison(path: Path, comparison: Comparison) -> None:
    """A row of panels for each split (success against episodes and against time, by task type), and one of training.

    Lines are means over seeds, bands reach from the worst seed to the best.
    """
    splits = list(comparison.panels)
    figure = Figure(figsize=(13.5, 3.6 * (len(splits) + 1) + 0.4), dpi=150, layout="constrained")
    axes = figure.subplots(len(splits) + 1, 3, squeeze=False)
    for row, split in enumerate(splits):
        curves = [method.held_out(split) for method in comparison.methods]
        by_episodes, by_time, by_type = axes[row]
        _curves(by_episodes, f"Held out: {split}", "episodes", curves, lambda point: point.episodes)
        _curves(by_time, "The same, against time", "minutes of training", curves, lambda point: point.minutes)
        _by_type(by_type, comparison, split)
    for panel, title, metric, rate in (
        (axes[-1, 0], "Success while training", SUCCESS, True),
        (axes[-1, 1], "Turns that switch the subgoal", SWITCH_RATE, True),
        (axes[-1, 2], "Turns of a segment", SEGMENT, False),
    ):
        curves = [method.training(metric) for method in comparison.methods]
        _curves(panel, title, "iteration", curves, lambda point: point.iteration, rate)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [
        axes[0, 0].plot([], [], color=colour_of(n), linestyle=_stroke(n), linewidth=2, label=method.label)[0]
        for n, method in enumerate(comparison.methods)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, labelcolor=INK, fontsize=9)
    save(figure, path)


def _curves(
    axes: Axes, title: str, x: str, curves: Sequence[Sequence[Point]], at: Callable[[Point], float], rate: bool = True
) -> None:
    """One line and band per method; of methods that lack the metric, nothing."""
    plain(axes, title)
    axes.set_xlabel(x, color=INK)
    for n, points in enumerate(curves):
        places = [at(point) for point in points]
        axes.plot(
            places, [p.mean for p in points], color=colour_of(n), linestyle=_stroke(n), linewidth=1.8, marker="o",
            markersize=3,
        )  # fmt: skip
        axes.fill_between(
            places, [p.low for p in points], [p.high for p in points], color=colour_of(n), alpha=0.15, lw=0
        )
    if rate:
        percent_axis(axes)
    else:
        axes.set_ylim(bottom=0)


def _by_type(axes: Axes, comparison: Comparison, split: str) -> None:
    """A point per method and task type, side by side."""
    plain(axes, "By task type, after training")
    results = comparison.results[split]
    types = list(results[0].by_type)
    for n, result in enumerate(results):
        shift = (n - (len(results) - 1) / 2) * 0.7 / len(results)
        axes.bar(np.arange(len(types)) + shift, list(result.by_type.values()), 0.7 / len(results), color=colour_of(n))
    axes.set_xticks(range(len(types)), types, rotation=35, ha="right", fontsize=7)
    percent_axis(axes)


def _stroke(n: int) -> str:
    return STROKES[n // len(COLOURS) % len(STROKES)]
