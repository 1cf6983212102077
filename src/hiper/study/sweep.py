"""The end of a sweep: success after training against the setting that varied, a line per method."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from hiper.analysis.comparison.comparison import Comparison, Result
from hiper.analysis.comparison.report import difference
from hiper.display.console import Display
from hiper.display.plots import INK, colour_of, percent_axis, plain, save
from hiper.display.tables import Table
from hiper.files import write_text

JSON, MARKDOWN, FIGURE = "sweep.json", "sweep.md", "sweep.png"


def show_sweep(setting: str, comparisons: Mapping[str, Comparison], folder: Path, display: Display) -> None:
    """Show a table per split; write them, JSON and a figure into ``folder``.

    Args:
        setting: what varied.
        comparisons: by its value, of the points at which anything was done.
        folder: the study's.
        display: where the tables are shown.
    """
    splits = list(dict.fromkeys(split for comparison in comparisons.values() for split in comparison.panels))
    by_split = {
        split: {value: c.results[split] for value, c in comparisons.items() if split in c.results} for split in splits
    }
    tables = [table for split, results in by_split.items() for table in _tables(setting, split, results)]
    for table in tables:
        display.table(*table)
    tree = {
        split: {value: {result.method: _told(result) for result in of} for value, of in results.items()}
        for split, results in by_split.items()
    }
    write_text(folder / JSON, json.dumps({"setting": setting, "success": tree}, indent=1) + "\n")
    if by_split:
        parts = [f"# {setting}", f"![success after training]({FIGURE})", *(table.section() for table in tables)]
        write_text(folder / MARKDOWN, "\n\n".join(parts) + "\n")
        _draw(folder / FIGURE, setting, by_split)
        display.note(f"\nall of it: {folder / MARKDOWN}, .json, .png")


def _told(result: Result) -> dict[str, Any]:
    paired = result.paired
    against = None if paired is None else {"difference": paired.difference, "interval": paired.interval, "p": paired.p}
    return {"before": result.before, "success": result.success, "interval": result.interval, "paired": against}


def _tables(setting: str, split: str, results: Mapping[str, Sequence[Result]]) -> list[Table]:
    """Success of all methods and, if there are several, how far each is from the first."""
    methods = _methods(results)
    reference, *others = methods
    success = Table(
        f"{split}: success before, and after with 95% intervals",
        (setting, "before", *methods),
        [[value, _before(of), *(_after(of, method) for method in methods)] for value, of in results.items()],
    )
    against = Table(
        f"{split}: against {reference}, on the same tasks and seeds, with half the width of 95% intervals",
        (setting, *others),
        [[value, *(_against(of, reference, method) for method in others)] for value, of in results.items()],
    )
    return [success, *[against] * bool(others)]


def _methods(results: Mapping[str, Sequence[Result]]) -> list[str]:
    return list(dict.fromkeys(result.method for of in results.values() for result in of))


def _before(results: Sequence[Result]) -> str:
    """All methods began alike, unless some have a warm start of their own."""
    return ", ".join(dict.fromkeys("-" if r.before is None else f"{r.before:.1%}" for r in results))


def _after(results: Sequence[Result], method: str) -> str:
    of = [r for r in results if r.method == method]
    return f"{of[0].success:.1%} [{100 * of[0].interval[0]:.0f}, {100 * of[0].interval[1]:.0f}]" if of else "-"


def _against(results: Sequence[Result], reference: str, method: str) -> str:
    """Where the reference failed, methods were paired with another."""
    paired = [r.paired for r in results if r.method == method and r.paired and results[0].method == reference]
    return difference(paired[0].difference, paired[0].interval) if paired else "-"


def _draw(path: Path, setting: str, by_split: Mapping[str, Mapping[str, Sequence[Result]]]) -> None:
    """A panel per split."""
    figure = Figure(figsize=(5.6 * len(by_split) + 0.4, 4.2), dpi=160, layout="constrained")
    panels = figure.subplots(1, len(by_split), squeeze=False)[0]
    for axes, (split, results) in zip(panels, by_split.items(), strict=True):
        plain(axes, f"{split}: success after training")
        places = {value: x for x, value in enumerate(results)}
        methods = _methods(results)
        for n, method in enumerate(methods):
            # Side by side, so that intervals can be told apart.
            shift = 0.06 * (n - (len(methods) - 1) / 2)
            points = [(places[v] + shift, r) for v, of in results.items() for r in of if r.method == method]
            axes.errorbar(
                [x for x, _ in points],
                [r.success for _, r in points],
                yerr=[
                    [r.success - r.interval[0] for _, r in points],
                    [r.interval[1] - r.success for _, r in points],
                ],
                color=colour_of(n), marker="o", linewidth=1.8, elinewidth=1.1, capsize=3, clip_on=False, label=method,
            )  # fmt: skip
        known = {place: [r.before for r in results[v] if r.before is not None] for v, place in places.items()}
        before = {place: fmean(of) for place, of in known.items() if of}
        axes.plot([*before], [*before.values()], color=INK, linestyle=":", linewidth=1.4, label="warm start")
        axes.set_xticks(list(places.values()), list(places))
        axes.set_xlabel(setting, color=INK)
        percent_axis(axes)
    panels[0].legend(loc="best", frameon=False, labelcolor=INK, fontsize=9)
    save(figure, path)
