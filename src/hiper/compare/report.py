"""A comparison in tables, for the terminal and as a document."""

from __future__ import annotations

from hiper.compare.comparison import Comparison, Result
from hiper.compare.traces import SEGMENT, SUCCESS, SWITCH_RATE, Method
from hiper.tables import Table

LAST = ((SUCCESS, "{:.1%}"), (SWITCH_RATE, "{:.1%}"), (SEGMENT, "{:.1f}"))
"""Metrics of the last iteration; agents without plans lack the latter two."""


def tables(comparison: Comparison) -> list[Table]:
    """Of each split: the outcomes, the paired tests if there are any, success by task type; then training."""
    held_out = [table for split in comparison.panels for table in _of_split(comparison, split)]
    training = Table(
        "training: means over seeds, success and plans of the last iteration",
        ("method", "episodes", "minutes", "success", "switch", "turns of a segment"),
        [_training_row(method) for method in comparison.methods],
    )
    return [*held_out, training]


def notes(comparison: Comparison) -> list[str]:
    """What is to be known before the tables are read."""
    return [f"note: {difference}" for difference in comparison.differences]


def markdown(comparison: Comparison, figure: str) -> str:
    """All of it as a document.

    Args:
        comparison: what is told.
        figure: the file name of the curves, in the document's folder.
    """
    title = f"# {', '.join(method.label for method in comparison.methods)}"
    parts = [part for table in tables(comparison) for part in (f"## {table.title}", table.markdown())]
    curves = f"![success over episodes and wall time, by task type, and plans]({figure})"
    return "\n\n".join([title, *notes(comparison), curves, *parts]) + "\n"


def _of_split(comparison: Comparison, split: str) -> list[Table]:
    results = comparison.results[split]
    graded = any(result.graded for result in results)
    outcomes = Table(
        f"{split}: {results[0].tasks} tasks, {comparison.panels[split]}",
        ("method", "seeds", "iterations", "before", "after", "95% interval", "by seed", *["score"] * graded, "turns"),
        [_row(result, graded) for result in results],
    )
    against = Table(
        f"{split}: against {results[0].method}, on the same tasks and seeds",
        ("method", "seeds", "difference", "95% interval", "p (tasks)", "Holm", "p (seeds)"),
        [_against(result) for result in results if result.paired],
    )
    by_type = Table(
        f"{split}: by task type",
        ("task type", *(result.method for result in results)),
        [[name, *(f"{result.by_type[name]:.1%}" for result in results)] for name in results[0].by_type],
    )
    return [outcomes, *[against] * bool(against.rows), by_type]


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
