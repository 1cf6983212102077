"""What was proved and measured, in one place: JSON, and a figure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hiper.advantages import Floats
from hiper.analysis.proofs.episodes import EpisodeCheck
from hiper.analysis.proofs.proofs import Bias, Departure, Passing, Spread, Unbiased, Variance
from hiper.display.plots import INK, colour_of, plain, save
from hiper.files import write_text

JSON, FIGURE = "verify.json", "verify.png"


@dataclass(frozen=True)
class Verification:
    """Everything that `hiper verify` finds out."""

    unbiased: Sequence[Unbiased]
    value_gap_share: tuple[float, float]
    """Least and largest share of beta times the gradient that the value-gap form expects of switches."""
    variances: Sequence[Variance]
    biases: Sequence[Bias]
    passing: Sequence[Passing]
    departures: Sequence[Departure]
    episodes: EpisodeCheck | None
    iteration: int | None = None
    """Which one of the run those episodes are of."""

    @property
    def failed(self) -> list[str]:
        """Estimators that are claimed to be unbiased, and are not."""
        return [check.estimator for check in self.unbiased if check.claimed and not check.holds]

    def write(self, folder: Path) -> None:
        """``verify.json`` and ``verify.png``."""
        tree: dict[str, Any] = {"unbiased": [dataclasses.asdict(u) | {"holds": u.holds} for u in self.unbiased]}
        tree["value_gap_share_of_beta"] = self.value_gap_share
        tree["variances"] = [dataclasses.asdict(v) | {"ratios": v.ratios.tolist()} for v in self.variances]
        tree["biases"] = [dataclasses.asdict(bias) for bias in self.biases]
        tree["passing"] = [dataclasses.asdict(passing) for passing in self.passing]
        tree["departures"] = [dataclasses.asdict(departure) for departure in self.departures]
        if (check := self.episodes) is not None:
            verdicts = {"target_verdict": check.target_verdict, "variance_verdict": check.variance_verdict}
            tree["episodes"] = {"iteration": self.iteration} | dataclasses.asdict(check) | verdicts
        write_text(folder / JSON, json.dumps(tree, indent=2, allow_nan=False) + "\n")
        draw(folder / FIGURE, self.variances, self.biases)


def draw(path: Path, variances: Sequence[Variance], biases: Sequence[Bias]) -> None:
    """Four panels: variance over lambda; the ratio over horizons and over segment lengths; bias of wrong values.

    Lines are medians over processes, bands reach from quartile to quartile; dashed lines are those with chance.
    """
    figure = Figure(figsize=(10.0, 7.4), dpi=150, layout="constrained")
    axes = figure.subplots(2, 2)
    longest = max(v.turns for v in variances)
    certain = [v for v in variances if v.branches == 1]
    usual_rate = next(v.switch_rate for v in certain if v.turns == longest)
    usual = [v for v in certain if v.switch_rate == usual_rate]

    _panel(axes[0, 0], f"Variance of the gradient, {longest} turns", "lambda", "HAE at lambda 1 = 1")
    at_longest = sorted((v for v in usual if v.turns == longest), key=lambda v: v.lambda_)
    lambdas = [v.lambda_ for v in at_longest]
    scale = at_longest[-1].hae_total
    _line(axes[0, 0], lambdas, [v.hae_total / scale for v in at_longest], colour_of(0), "HAE")
    _line(axes[0, 0], lambdas, [v.flat_total / scale for v in at_longest], colour_of(1), "flat GAE")

    ratio = "variance of HAE / of flat GAE"
    _panel(axes[0, 1], "By horizon", "turns", ratio)
    _ratios(axes[0, 1], usual, lambda v: v.turns)
    _ratios(axes[0, 1], [v for v in variances if v.branches > 1], lambda v: v.turns, chance=True)
    axes[0, 1].xaxis.set_major_locator(MaxNLocator(integer=True))
    (swept,) = {v.turns for v in certain if v.switch_rate != usual_rate}
    _panel(axes[1, 0], f"By length of segments, {swept} turns", "turns of a segment", ratio)
    _ratios(axes[1, 0], [v for v in certain if v.turns == swept], lambda v: v.segment_turns)
    for panel in (axes[0, 1], axes[1, 0]):
        panel.axhline(1.0, color=INK, linewidth=0.8, linestyle=":")

    worst = max(bias.error for bias in biases)
    title = f"Bias, values off by {worst:g} (rewards vary by 1)"
    _panel(axes[1, 1], title, "lambda", "relative to the gradient")
    wrong = sorted((bias for bias in biases if bias.error == worst), key=lambda bias: bias.lambda_)
    lambdas = [bias.lambda_ for bias in wrong]
    _line(axes[1, 1], lambdas, [bias.hae for bias in wrong], colour_of(0), "HAE")
    _line(axes[1, 1], lambdas, [bias.flat for bias in wrong], colour_of(1), "flat GAE")
    for panel in axes.flat:
        panel.set_ylim(bottom=0)
        panel.legend(frameon=False, labelcolor=INK, fontsize=8, handlelength=3)
    save(figure, path)


def shown_lambdas(variances: Sequence[Variance]) -> list[float]:
    """Few enough for a table and a figure: the least, the last but two and the largest, where HAE varies more, about as
    much, and less than flat GAE."""
    lambdas = sorted({v.lambda_ for v in variances})
    return sorted({lambdas[0], *lambdas[-3::2]})


def _panel(axes: Axes, title: str, x: str, y: str) -> None:
    plain(axes, title)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)


def _ratios(axes: Axes, variances: Sequence[Variance], at: Callable[[Variance], float], chance: bool = False) -> None:
    for n, lambda_ in enumerate(shown_lambdas(variances)):
        rows = sorted((v for v in variances if v.lambda_ == lambda_), key=at)
        label = f"lambda {lambda_:g}" + (", with chance" if chance else "")
        _line(axes, [at(v) for v in rows], [v.ratios for v in rows], colour_of(n), label, dashed=chance)


def _line(
    axes: Axes,
    x: Sequence[float],
    of_processes: Sequence[Sequence[float] | Floats],
    colour: str,
    label: str,
    dashed: bool = False,
) -> None:
    spreads = [Spread.of(numbers) for numbers in of_processes]
    style = "--" if dashed else "-"
    axes.plot(x, [s.median for s in spreads], style, color=colour, marker="o", markersize=4, linewidth=1.8, label=label)
    if not dashed:
        axes.fill_between(x, [s.low for s in spreads], [s.high for s in spreads], color=colour, alpha=0.15, linewidth=0)
