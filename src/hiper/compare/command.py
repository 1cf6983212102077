"""`hiper compare`: the tables, and where the rest is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hiper.compare.comparison import Comparison, Result, compare
from hiper.compare.figure import draw_comparison
from hiper.compare.traces import SEGMENT, SUCCESS, SWITCH_RATE, Method, read_trace
from hiper.console import Display
from hiper.training.run import Run

JSON, FIGURE = "comparison.json", "comparison.png"


def show_comparison(runs: Sequence[Run], folder: Path, display: Display) -> Comparison:
    """Compare runs; show tables, write JSON and a figure into ``folder``. The first run's method is the reference.

    Raises:
        UserError: a run has not been evaluated, or they cannot be compared.
    """
    comparison = compare([read_trace(run) for run in runs])
    for difference in comparison.differences:
        display.note(f"note: {difference}")
    for split, panel in comparison.panels.items():
        _show(comparison, split, panel, display)
    display.table(
        "training: means over seeds, success and plans of the last iteration",
        ("method", "episodes", "minutes", "success", "switch", "turns of a segment"),
        map(_training_row, comparison.methods),
    )
    comparison.write(folder / JSON)
    draw_comparison(folder / FIGURE, comparison)
    display.note(f"\nall of it: {folder / JSON}, {folder / FIGURE}")
    return comparison


def _show(comparison: Comparison, split: str, panel: str, display: Display) -> None:
    results = comparison.results[split]
    graded = any(result.graded for result in results)
    display.table(
        f"{split}: {results[0].tasks} tasks, {panel}",
        ("method", "seeds", "iterations", "before", "after", "95% interval", "by seed", *["score"] * graded, "turns"),
        (_row(result, graded) for result in results),
    )
    if any(result.paired for result in results):
        display.table(
            f"{split}: against {results[0].method}, on the same tasks and seeds",
            ("method", "seeds", "difference", "95% interval", "p (tasks)", "Holm", "p (seeds)"),
            (_against(result) for result in results if result.paired),
        )
    display.table(
        f"{split}: by task type",
        ("task type", *(result.method for result in results)),
        ([name, *(f"{result.by_type[name]:.1%}" for result in results)] for name in results[0].by_type),
    )


def _row(result: Result, graded: bool) -> list[str]:
    return [
        result.method,
        str(len(result.seeds)),
        str(result.iterations),
        f"{result.before:.1%}",
        f"{result.success:.1%}",
        _interval(result.interval),
        f"{100 * min(result.by_seed):.0f} - {100 * max(result.by_seed):.0f}",
        *([f"{result.score:.3f}"] * graded),
        f"{result.turns:.1f}",
    ]


LAST = ((SUCCESS, "{:.1%}"), (SWITCH_RATE, "{:.1%}"), (SEGMENT, "{:.1f}"))
"""Metrics of the last iteration; agents without plans lack the latter two."""


def _training_row(method: Method) -> list[str]:
    effort = [cell for p in method.training(SUCCESS)[-1:] for cell in (f"{p.episodes:,.0f}", f"{p.minutes:.1f}")]
    metrics = (shape.format(points[-1].mean) if (points := method.training(m)) else "-" for m, shape in LAST)
    return [method.label, *(effort or ("-", "-")), *metrics]


def _against(result: Result) -> list[str]:
    paired = result.paired
    assert paired is not None
    tests = [f"{p:.4f}" for p in (paired.p_tasks, paired.p_holm, paired.p_seeds)]
    return [result.method, str(paired.seeds), f"{100 * paired.difference:+.1f}", _interval(paired.interval), *tests]


def _interval(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"[{100 * low:.1f}, {100 * high:.1f}]"
