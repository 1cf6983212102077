"""Tables of a comparison, for the terminal and as a document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from hiper.analysis.comparison.comparison import Comparison, Result
from hiper.analysis.comparison.settings import differing, method_settings
from hiper.analysis.comparison.traces import Method
from hiper.display.tables import Table
from hiper.runs.metrics import SEGMENT_TURNS, SUCCESS, SWITCH_RATE

LAST_ITERATION = ((SUCCESS.name, "{:.1%}"), (SWITCH_RATE.name, "{:.1%}"), (SEGMENT_TURNS.name, "{:.1f}"))
"""Metrics of the last iteration that are shown, with their formats. Agents without plans have only the first."""


LEGEND = """Before and after: success, mean over seeds. 95% interval: seeds and tasks are both chance (crossed random
effects, Student's t); with one seed Wilson's, or over tasks alone. p: by the same, that methods are equally good
whatever the seeds and the tasks, which one seed cannot tell; Holm: corrected for the number of methods. p (tasks):
paired permutation test over tasks, that these trained agents are equally good; of other seeds it says nothing. By task
type: the same differences with the same 95% intervals, not corrected for the number of types. Bands and lines in the
figure reach from the worst seed to the best; hollow points are of fewer held-out tasks."""
"""Explanation of the columns."""


def tables(comparison: Comparison) -> list[Table]:
    """Build the tables: for each split outcomes, paired tests and success by task type; then training."""
    held_out = [table for split in comparison.panels for table in _split_tables(comparison, split)]
    training = Table(
        "training: means over seeds, success and plans of the last iteration",
        ("method", "episodes", "minutes", "success", "switch", "turns of a segment"),
        [_training_row(method) for method in comparison.methods],
    )
    return [*held_out, training]


def notes(comparison: Comparison) -> list[str]:
    """List what a reader of the tables must know first: unequal conditions, and alarms during training."""
    return [f"note: {what}" for what in (*comparison.differences, *_alarms(comparison.methods))]


def _alarms(methods: Sequence[Method]) -> Iterator[str]:
    for method in methods:
        count = Counter(name for trace in method.traces for name in trace.alarms)
        if count:
            rang = ", ".join(f"{name} ({runs} of {len(method.traces)} runs)" for name, runs in count.items())
            yield f"alarms rang while {method.label} trained: {rang}"


def markdown(comparison: Comparison, figure: str) -> str:
    """Return notes, tables and differing settings as a Markdown document.

    Args:
        comparison: the comparison.
        figure: file name of the figure, relative to the document's folder.
    """
    title = f"# {', '.join(method.label for method in comparison.methods)}"
    parts = [table.section() for table in (*tables(comparison), _settings(comparison.methods))]
    curves = f"![success over episodes and wall time, by task type, and plans]({figure})"
    return "\n\n".join([title, *notes(comparison), curves, LEGEND, *parts]) + "\n"


def _split_tables(comparison: Comparison, split: str) -> list[Table]:
    results = comparison.results[split]
    graded = any(result.graded for result in results)
    outcomes = Table(
        f"{split}: {results[0].tasks} tasks, {comparison.panels[split]}",
        ("method", "seeds", "iterations", "before", "after", "95% interval", "by seed", *["score"] * graded, "turns"),
        [_row(result, graded) for result in results],
    )
    against = Table(
        f"{split}: against {results[0].method}, on the same tasks and seeds",
        ("method", "seeds", "difference", "95% interval", "p", "Holm", "p (tasks)"),
        [_against(result) for result in results if result.paired],
    )
    by_type = Table(
        f"{split}: by task type",
        ("task type", *(result.method for result in results)),
        [[name, *(f"{result.by_type[name]:.1%}" for result in results)] for name in results[0].by_type],
    )
    paired = [result for result in results if result.paired_by_type]
    against_by_type = Table(
        f"{split}: against {results[0].method}, by task type",
        ("task type", *(result.method for result in paired)),
        [_against_of_type(name, paired) for name in results[0].by_type if name != "all"],
    )
    several = len(results[0].by_type) > 2
    return [outcomes, *[against] * bool(paired), by_type, *[against_by_type] * (bool(paired) and several)]


def _settings(methods: Sequence[Method]) -> Table:
    trees = [method_settings(method.traces[0].config) for method in methods]
    return Table(
        "settings in which methods differ",
        ("setting", *(method.label for method in methods)),
        [[key, *(str(tree.get(key, "-")) for tree in trees)] for key in differing(trees) if key != "name"],
    )


def _row(result: Result, graded: bool) -> list[str]:
    return [
        result.method,
        str(len(result.seeds)),
        str(result.iterations),
        "-" if result.before is None else f"{result.before:.1%}",
        f"{result.success:.1%}",
        _interval(result.interval),
        f"{100 * min(result.by_seed):.0f} - {100 * max(result.by_seed):.0f}",
        *([f"{result.score:.3f}"] * graded),
        f"{result.turns:.1f}",
    ]


def _training_row(method: Method) -> list[str]:
    effort = [cell for p in method.training(SUCCESS.name)[-1:] for cell in (f"{p.episodes:,.0f}", f"{p.minutes:.1f}")]
    metrics = (shape.format(points[-1].mean) if (points := method.training(m)) else "-" for m, shape in LAST_ITERATION)
    return [method.label, *(effort or ("-", "-")), *metrics]


def _against(result: Result) -> list[str]:
    paired = result.paired
    assert paired is not None
    tests = ["-" if p is None else f"{p:.4f}" for p in (paired.p, paired.p_holm, paired.p_tasks)]
    return [result.method, str(paired.seeds), f"{100 * paired.difference:+.1f}", _interval(paired.interval), *tests]


def _against_of_type(name: str, paired: Sequence[Result]) -> list[str]:
    means = [result.paired_by_type[name] for result in paired]
    return [name, *(difference(mean.value, mean.interval) for mean in means)]


def difference(value: float, interval: tuple[float, float]) -> str:
    """Format a difference in points, with half the width of its interval if it has one."""
    low, high = interval
    return f"{100 * value:+.1f}" + (f" ± {50 * (high - low):.1f}" if high > low else "")


def _interval(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"[{100 * low:.1f}, {100 * high:.1f}]"
