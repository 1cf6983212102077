"""The outcome of a sweep: success after training against the setting that varied, with a line per method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from hiper.analysis.comparison.comparison import Comparison, Result
from hiper.analysis.comparison.report import difference
from hiper.display.plots import INK, colour_of, new_figure, percent_axis, plain, save
from hiper.display.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = Mapping[str, Sequence[Result]]
"""Results of all methods by the value of the setting."""


@dataclass(frozen=True)
class SweepReport:
    """Results of a sweep."""

    setting: str
    """The setting that varied."""
    splits: Mapping[str, Points]
    """Results by split."""

    @classmethod
    def of(cls, setting: str, comparisons: Mapping[str, Comparison]) -> SweepReport:
        """Collect the results of a sweep's comparisons, which are given by the value of the setting."""
        splits = dict.fromkeys(split for comparison in comparisons.values() for split in comparison.panels)
        return cls(
            setting,
            {
                split: {value: c.results[split] for value, c in comparisons.items() if split in c.results}
                for split in splits
            },
        )

    def tables(self) -> list[Table]:
        """Build the tables of each split: success, and with several methods the differences from the first one."""
        return [table for split, points in self.splits.items() for table in _tables(self.setting, split, points)]

    def to_json(self) -> dict[str, Any]:
        """Return all results as a tree for JSON."""
        success = {
            split: {value: {result.method: _tree(result) for result in results} for value, results in points.items()}
            for split, points in self.splits.items()
        }
        return {"setting": self.setting, "success": success}

    def markdown(self, figure: str) -> str:
        """Return the tables as a document, with the figure of that name."""
        parts = [f"# {self.setting}", f"![success after training]({figure})"]
        return "\n\n".join([*parts, *(table.section() for table in self.tables())]) + "\n"

    def draw(self, path: Path) -> None:
        """Draw a panel per split, with a line per method and 95% intervals."""
        figure = new_figure(5.6 * len(self.splits) + 0.4, 4.2, dpi=160)
        panels = figure.subplots(1, len(self.splits), squeeze=False)[0]
        for axes, (split, points) in zip(panels, self.splits.items(), strict=True):
            plain(axes, f"{split}: success after training")
            _draw_points(axes, points)
            axes.set_xlabel(self.setting, color=INK)
            percent_axis(axes)
        panels[0].legend(loc="best", frameon=False, labelcolor=INK, fontsize=9)
        save(figure, path)


def _tree(result: Result) -> dict[str, Any]:
    paired = result.paired
    against = None if paired is None else {"difference": paired.difference, "interval": paired.interval, "p": paired.p}
    return {"before": result.before, "success": result.success, "interval": result.interval, "paired": against}


def _tables(setting: str, split: str, points: Points) -> list[Table]:
    methods = _methods(points)
    reference, *others = methods
    success = Table(
        f"{split}: success before, and after with 95% intervals",
        (setting, "before", *methods),
        [
            [value, _before(results), *(_after(results, method) for method in methods)]
            for value, results in points.items()
        ],
    )
    against = Table(
        f"{split}: against {reference}, on the same tasks and seeds, with half the width of 95% intervals",
        (setting, *others),
        [[value, *(_against(results, reference, method) for method in others)] for value, results in points.items()],
    )
    return [success, *[against] * bool(others)]


def _methods(points: Points) -> list[str]:
    return list(dict.fromkeys(result.method for results in points.values() for result in results))


def _before(results: Sequence[Result]) -> str:
    """Format success before training; methods with a warm start of their own may have begun differently."""
    return ", ".join(dict.fromkeys("-" if r.before is None else f"{r.before:.1%}" for r in results))


def _after(results: Sequence[Result], method: str) -> str:
    own = [r for r in results if r.method == method]
    return f"{own[0].success:.1%} [{100 * own[0].interval[0]:.0f}, {100 * own[0].interval[1]:.0f}]" if own else "-"


def _against(results: Sequence[Result], reference: str, method: str) -> str:
    """Format the difference from the reference; a dash where the reference failed and was replaced by another."""
    paired = [r.paired for r in results if r.method == method and r.paired and results[0].method == reference]
    return difference(paired[0].difference, paired[0].interval) if paired else "-"


def _draw_points(axes: Axes, points: Points) -> None:
    places = {value: x for x, value in enumerate(points)}
    methods = _methods(points)
    for n, method in enumerate(methods):
        # Methods stand side by side, so that their intervals do not hide each other.
        shift = 0.06 * (n - (len(methods) - 1) / 2)
        own = [(places[value] + shift, r) for value, results in points.items() for r in results if r.method == method]
        axes.errorbar(
            [x for x, _ in own],
            [r.success for _, r in own],
            yerr=[[r.success - r.interval[0] for _, r in own], [r.interval[1] - r.success for _, r in own]],
            color=colour_of(n), marker="o", linewidth=1.8, elinewidth=1.1, capsize=3, clip_on=False, label=method,
        )  # fmt: skip
    known = {place: [r.before for r in points[v] if r.before is not None] for v, place in places.items()}
    before = {place: fmean(successes) for place, successes in known.items() if successes}
    axes.plot([*before], [*before.values()], color=INK, linestyle=":", linewidth=1.4, label="warm start")
    axes.set_xticks(list(places.values()), list(places))
