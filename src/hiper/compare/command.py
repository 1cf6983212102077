"""`hiper compare`: the tables, and where the rest is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hiper.compare.comparison import Comparison, Result, compare
from hiper.compare.figure import draw_comparison
from hiper.compare.traces import SEGMENT, SWITCH_RATE, Method, read_trace
from hiper.console import Display
from hiper.training.run import Run

JSON, FIGURE = "comparison.json", "comparison.png"


def show_comparison(runs: Sequence[Run], folder: Path, display: Display) -> Comparison:
    """Compare runs; show tables, write JSON and a figure into ``folder``. The first run's method is the reference.

    Raises:
        UserError: a run has not been evaluated, or they cannot be compared.
    """
    comparison = compare([read_trace(run) for run in runs])
    for split, panel in comparison.panels.items():
        _show(comparison, split, panel, display)
    comparison.write(folder / JSON)
    draw_comparison(folder / FIGURE, comparison)
    display.note(f"\nall of it: {folder / JSON}, {folder / FIGURE}")
    return comparison


def _show(comparison: Comparison, split: str, panel: str, display: Display) -> None:
    results, methods = comparison.results[split], comparison.methods
    graded = any(result.graded for result in results)
    display.table(
        f"{split}: {results[0].tasks} tasks, {panel}",
        (
            *("method", "seeds", "before", "after", "95% interval", "worst - best seed", *["score"] * graded),
            *("turns", "episodes", "minutes", "switch", "segment"),
        ),
        (_row(result, method, split, graded) for result, method in zip(results, methods, strict=True)),
    )
    if any(result.paired for result in results):
        display.table(
            f"{split}: against {results[0].method}, on the same tasks and seeds",
            ("method", "seeds", "difference", "95% interval", "p over tasks", "of all (Holm)", "p over seeds"),
            (_against(result) for result in results if result.paired),
        )
    display.table(
        f"{split}: by task type",
        ("task type", *(result.method for result in results)),
        ([name, *(f"{result.by_type[name]:.1%}" for result in results)] for name in results[0].by_type),
    )


def _row(result: Result, method: Method, split: str, graded: bool) -> list[str]:
    last = method.held_out(split)[-1:]
    return [
        result.method,
        str(len(result.seeds)),
        f"{result.before:.1%}",
        f"{result.success:.1%}",
        _interval(result.interval),
        f"{100 * min(result.by_seed):.0f} - {100 * max(result.by_seed):.0f}",
        *([f"{result.score:.3f}"] * graded),
        f"{result.turns:.1f}",
        *([f"{last[0].episodes:,.0f}", f"{last[0].minutes:.1f}"] if last else ["-", "-"]),
        *(shape.format(points[-1].mean) if (points := method.training(m)) else "-" for m, shape in PLANS),
    ]


PLANS = ((SWITCH_RATE, "{:.1%}"), (SEGMENT, "{:.1f}"))
"""How plans were followed in the last iteration; agents without plans have neither."""


def _against(result: Result) -> list[str]:
    paired = result.paired
    assert paired is not None
    tests = [f"{p:.4f}" for p in (paired.p_tasks, paired.p_holm, paired.p_seeds)]
    return [result.method, str(paired.seeds), f"{100 * paired.difference:+.1f}", _interval(paired.interval), *tests]


def _interval(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"[{100 * low:.1f}, {100 * high:.1f}]"
