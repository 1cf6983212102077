"""The figure of a comparison: learning curves with bands over seeds, and success by task type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiper.analysis.comparison.comparison import Comparison, Result
from hiper.analysis.comparison.traces import Point
from hiper.display.plots import COLOURS, INK, colour_of, integer_axis, new_figure, percent_axis, plain, save
from hiper.runs.metrics import SEGMENT_TURNS, SUCCESS, SWITCH_RATE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STROKES = ("-", "--", ":")
"""Line styles: solid, and where there are more methods than colours, dashed, then dotted."""


def draw_comparison(path: Path, comparison: Comparison) -> None:
    """Draw a row of panels for each split, and a row on training.

    The panels of a split show success against episodes, against time, and by task type. Lines are means over seeds.
    Bars and bands reach from the worst seed to the best. The reference method lies on top, in a thicker line. Hollow
    points are evaluations on fewer tasks than the last one.
    """
    splits = list(comparison.panels)
    figure = new_figure(14.5, 3.9 * (len(splits) + 1) + 0.4)
    axes = figure.subplots(len(splits) + 1, 3, squeeze=False)
    for row, split in enumerate(splits):
        curves = [method.held_out(split) for method in comparison.methods]
        by_episodes, by_time, by_type = axes[row]
        _held_out(by_episodes, f"Held out: {split}", "episodes", curves, lambda point: point.episodes)
        _held_out(by_time, "The same, against time", "minutes of training", curves, lambda point: point.minutes)
        _by_type(by_type, comparison.results[split])
    for panel, title, metric, unit in (
        (axes[-1, 0], "Success while training", SUCCESS.name, "success"),
        (axes[-1, 1], "Turns that switch the subgoal", SWITCH_RATE.name, "share of turns"),
        (axes[-1, 2], "Turns of a segment", SEGMENT_TURNS.name, None),
    ):
        _while_training(panel, title, [method.training(metric) for method in comparison.methods], unit)
    handles = [axes[0, 0].plot([], [], **_line(n), label=m.label)[0] for n, m in enumerate(comparison.methods)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, labelcolor=INK, fontsize=9)
    save(figure, path)


def _held_out(axes: Axes, title: str, x: str, curves: Sequence[Sequence[Point]], at: Callable[[Point], float]) -> None:
    """Draw a line per method with a bar at each point; points at the same place are drawn side by side."""
    plain(axes, title)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel("success", color=INK)
    step = 0.006 * max((at(point) for points in curves for point in points), default=0.0)
    for n, points in enumerate(curves):
        shift = (n - (len(curves) - 1) / 2) * step
        places = [at(point) + shift for point in points]
        bars = [[p.mean - p.low for p in points], [p.high - p.mean for p in points]]
        axes.errorbar(places, [p.mean for p in points], yerr=bars, **_line(n), elinewidth=0.9, capsize=2)
        whole = [point.tasks == points[-1].tasks for point in points]
        for place, point, full in zip(places, points, whole, strict=True):
            face = colour_of(n) if full else "white"
            axes.plot(place, point.mean, marker="o", color=colour_of(n), mfc=face, markersize=5, zorder=_order(n) + 0.1)
    percent_axis(axes)


def _while_training(axes: Axes, title: str, curves: Sequence[Sequence[Point]], unit: str | None) -> None:
    """Draw a line and a band per method that has the metric. With a unit, the metric is a share from 0 to 1."""
    plain(axes, title)
    axes.set_xlabel("iteration", color=INK)
    axes.set_ylabel(unit or "turns", color=INK)
    for n, points in enumerate(curves):
        iterations = [point.iteration for point in points]
        axes.plot(iterations, [p.mean for p in points], **_line(n))
        axes.fill_between(
            iterations, [p.low for p in points], [p.high for p in points], color=colour_of(n), alpha=0.12, lw=0
        )
    integer_axis(axes)
    if unit:
        percent_axis(axes)
    else:
        axes.set_ylim(bottom=0)


def _by_type(axes: Axes, results: Sequence[Result]) -> None:
    """Draw a row per task type, and in it a point and a bar per method, one below the other."""
    plain(axes, "By task type, after training")
    types = list(results[0].by_type)
    for n, result in enumerate(results):
        for row, name in enumerate(types):
            y = row + (n - (len(results) - 1) / 2) * 0.7 / len(results)
            seeds = result.by_type_and_seed[name]
            axes.plot((min(seeds), max(seeds)), (y, y), color=colour_of(n), linestyle=_stroke(n), linewidth=1.1)
            axes.plot(result.by_type[name], y, marker="o", markersize=4, color=colour_of(n))
    axes.set_yticks(range(len(types)), types, fontsize=8)
    axes.set_ylim(len(types) - 0.5, -0.5)
    for row in range(1, len(types)):
        axes.axhline(row - 0.5, color=INK if row == 1 else "#e4e7eb", linewidth=0.8)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
    axes.set_xlabel("success", color=INK)
    percent_axis(axes, "x", margin=0.02)


def _line(n: int) -> dict[str, Any]:
    """Return the style of the line of method number ``n``."""
    return {"color": colour_of(n), "linestyle": _stroke(n), "linewidth": 1.5 if n else 2.6, "zorder": _order(n)}


def _order(n: int) -> float:
    """Return the drawing order of method number ``n``; the first one is on top."""
    return 3.0 - 0.01 * n


def _stroke(n: int) -> str:
    return STROKES[n // len(COLOURS) % len(STROKES)]
