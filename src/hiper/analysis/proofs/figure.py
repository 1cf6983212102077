"""The figure of `hiper verify`: how credit varies, and how wrong values bias it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hiper.advantages import Floats
from hiper.analysis.proofs.proofs import Bias, Quartiles, Variance
from hiper.display.plots import INK, colour_of, integer_axis, new_figure, plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_verification(path: Path, variances: Sequence[Variance], biases: Sequence[Bias]) -> None:
    """Draw four panels: variance over lambda, its ratio over horizons and over segment lengths, bias of wrong values.

    Lines are medians over processes, and bands reach from quartile to quartile. In processes of dashed lines, actions
    have random effects.
    """
    figure = new_figure(10.0, 7.4)
    axes = figure.subplots(2, 2)
    certain = [v for v in variances if v.branches == 1]
    longest = max(v.turns for v in variances)
    usual_rate = next(v.switch_rate for v in certain if v.turns == longest)
    usual = [v for v in certain if v.switch_rate == usual_rate]
    _draw_variance(axes[0, 0], [v for v in usual if v.turns == longest])
    ratio = "variance of HAE / of flat GAE"
    _label(axes[0, 1], "By horizon", "turns", ratio)
    _draw_ratios(axes[0, 1], usual, lambda v: v.turns)
    _draw_ratios(axes[0, 1], [v for v in variances if v.branches > 1], lambda v: v.turns, chance=True)
    integer_axis(axes[0, 1])
    (swept,) = {v.turns for v in certain if v.switch_rate != usual_rate}
    _label(axes[1, 0], f"By length of segments, {swept} turns", "turns of a segment", ratio)
    _draw_ratios(axes[1, 0], [v for v in certain if v.turns == swept], lambda v: v.segment_turns)
    for panel in (axes[0, 1], axes[1, 0]):
        panel.axhline(1.0, color=INK, linewidth=0.8, linestyle=":")
    _draw_bias(axes[1, 1], biases)
    for panel in axes.flat:
        panel.set_ylim(bottom=0)
        panel.legend(frameon=False, labelcolor=INK, fontsize=8, handlelength=3)
    save(figure, path)


def shown_lambdas(variances: Sequence[Variance]) -> list[float]:
    """Choose few enough lambdas for a table and a figure: the smallest, the third largest and the largest.

    There HAE varies more, about as much, and less than flat GAE.
    """
    lambdas = sorted({v.lambda_ for v in variances})
    return sorted({lambdas[0], *lambdas[-3::2]})


def _draw_variance(axes: Axes, variances: Sequence[Variance]) -> None:
    _label(axes, f"Variance of the gradient, {variances[0].turns} turns", "lambda", "HAE at lambda 1 = 1")
    rows = sorted(variances, key=lambda v: v.lambda_)
    lambdas, scale = [v.lambda_ for v in rows], rows[-1].hae_total
    _draw_line(axes, lambdas, [v.hae_total / scale for v in rows], colour_of(0), "HAE")
    _draw_line(axes, lambdas, [v.flat_total / scale for v in rows], colour_of(1), "flat GAE")


def _draw_bias(axes: Axes, biases: Sequence[Bias]) -> None:
    worst = max(bias.error for bias in biases)
    _label(axes, f"Bias, values off by {worst:g} (rewards vary by 1)", "lambda", "relative to the gradient")
    rows = sorted((bias for bias in biases if bias.error == worst), key=lambda bias: bias.lambda_)
    lambdas = [bias.lambda_ for bias in rows]
    _draw_line(axes, lambdas, [bias.hae for bias in rows], colour_of(0), "HAE")
    _draw_line(axes, lambdas, [bias.flat for bias in rows], colour_of(1), "flat GAE")


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    plain(axes, title)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)


def _draw_ratios(
    axes: Axes, variances: Sequence[Variance], at: Callable[[Variance], float], chance: bool = False
) -> None:
    for n, lambda_ in enumerate(shown_lambdas(variances)):
        rows = sorted((v for v in variances if v.lambda_ == lambda_), key=at)
        label = f"lambda {lambda_:g}" + (", with chance" if chance else "")
        _draw_line(axes, [at(v) for v in rows], [v.ratios for v in rows], colour_of(n), label, dashed=chance)


def _draw_line(
    axes: Axes,
    x: Sequence[float],
    by_process: Sequence[Sequence[float] | Floats],
    colour: str,
    label: str,
    dashed: bool = False,
) -> None:
    points = [Quartiles.of(numbers) for numbers in by_process]
    style = "--" if dashed else "-"
    axes.plot(x, [p.median for p in points], style, color=colour, marker="o", markersize=4, linewidth=1.8, label=label)
    if not dashed:
        axes.fill_between(x, [p.low for p in points], [p.high for p in points], color=colour, alpha=0.15, linewidth=0)
