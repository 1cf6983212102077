"""`hiper verify`: prove what can be proved, measure the rest, and say both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hiper.advantages import Floats
from hiper.analysis.proofs.episodes import EpisodeCheck, Interval, check_episodes
from hiper.analysis.proofs.proofs import (
    TOLERANCE,
    Spread,
    Variance,
    check_unbiased,
    measure_departures,
    sweep_bias,
    sweep_passing,
    sweep_variance,
    value_gap_share,
)
from hiper.analysis.proofs.report import FIGURE, JSON, Verification, shown_lambdas
from hiper.analysis.stored import read_stored, two_scales
from hiper.display.console import Display
from hiper.errors import UserError
from hiper.runs.folder import Run


def verify(
    folder: Path, display: Display, run: Path | None = None, iteration: int | None = None, seed: int = 0
) -> Verification:
    """Run every check, show the outcome, and write it to ``folder``.

    Args:
        folder: where JSON and figure go.
        display: where tables go.
        run: whose training episodes are checked as well.
        iteration: of which iteration; None: of the last.
        seed: of the bootstrap over these.

    Raises:
        UserError: the run holds no episodes, or none with values that HAE can be asked about.
    """
    # First, as it may be refused.
    episodes, checked = (None, None) if run is None else _check_run(Run.open(run), iteration, seed)
    with display.bar("enumerating", 6) as advance:
        unbiased = check_unbiased()
        advance()
        share = value_gap_share()
        advance()
        variances = sweep_variance()
        advance()
        biases = sweep_bias()
        advance()
        passing = sweep_passing()
        advance()
        departures = measure_departures()
        advance()
    beta_share = float(share.min()), float(share.max())
    found = Verification(unbiased, beta_share, variances, biases, passing, departures, episodes, checked)
    _show(found, display)
    found.write(folder)
    display.note(f"\nall of it: {folder / JSON}, {folder / FIGURE}")
    return found


def _check_run(run: Run, iteration: int | None, seed: int) -> tuple[EpisodeCheck, int]:
    stored = read_stored(run, iteration)
    if reason := stored.why_not(two_scales(run.config.advantages)):
        raise UserError(
            f"{run.path} cannot be checked: {reason}; name a run trained with advantages.type=hae and "
            "advantages.switch_form=termination-value"
        )
    check = check_episodes(stored.turns, run.config.advantages, seed)
    return check, stored.iteration


def _show(found: Verification, display: Display) -> None:
    rows: list[Sequence[str]] = []
    for check in found.unbiased:
        verdict = ("yes" if check.holds else "NO") if check.claimed else ("yes" if check.holds else "no, see below")
        rows.append((check.estimator, str(check.cases), f"{check.largest_error:.1e}", verdict))
    title = f"Expected gradient, with exact values, against the exact gradient (within {TOLERANCE:g})"
    display.table(title, ("estimator", "cases", "largest error", "unbiased"), rows)
    low, high = found.value_gap_share
    display.note(
        f"The value-gap form expects {low:.3f} to {high:.3f} times beta of each switch parameter's gradient: on "
        "SWITCH, V_low is that of the new subgoal, and the gap says nothing about the old one."
    )
    _show_variances(found.variances, display)
    lambdas, errors = (sorted({getattr(b, name) for b in found.biases}) for name in ("lambda_", "error"))
    bias_at = {(bias.error, bias.lambda_): bias for bias in found.biases}
    display.table(
        "Bias by the error of values, relative to the gradient: median and quartiles",
        ("error", "", *(f"λ {lambda_:g}" for lambda_ in lambdas)),
        (
            (f"{e:g}", shown, *(_spread(getattr(bias_at[e, lambda_], name)) for lambda_ in lambdas))
            for e in errors
            for shown, name in (("HAE", "hae"), ("flat GAE", "flat"))
        ),
    )
    display.table(
        "HAE whose traces pass boundaries: median and quartiles",
        ("λ at boundaries", "variance, over flat GAE's at λ 1", "bias with wrong values"),
        ((f"{p.lambda_boundary:g}", _spread(p.ratios), _spread(p.biases)) for p in found.passing),
    )
    display.table(
        "Where training departs from it: cosine of expectation and gradient",
        ("", "least", "median", "largest"),
        (
            (d.what, f"{min(d.cosines):.4f}", f"{Spread.of(d.cosines).median:.4f}", f"{max(d.cosines):.4f}")
            for d in found.departures
        ),
    )
    if found.episodes is not None:
        _show_episodes(found.episodes, found.iteration, display)


def _show_variances(variances: Sequence[Variance], display: Display) -> None:
    lambdas = shown_lambdas(variances)
    settings = dict.fromkeys((v.turns, v.branches, v.switch_rate, v.segment_turns) for v in variances)
    ratios = {(v.turns, v.branches, v.switch_rate, v.lambda_): v.ratios for v in variances}
    display.table(
        f"Variance of HAE's gradient over flat GAE's: median and quartiles of {len(variances[0].ratios)} processes",
        ("turns", "leads to", "P(SWITCH)", "segment", *(f"λ {lambda_:g}" for lambda_ in lambdas)),
        (
            (
                f"{turns}",
                f"{branches} state{'s' * (branches > 1)}",
                f"{rate:g}",
                f"{segment:.2f}",
                *(_spread(ratios[turns, branches, rate, lambda_]) for lambda_ in lambdas),
            )
            for turns, branches, rate, segment in settings
        ),
    )


def _spread(numbers: Sequence[float] | Floats) -> str:
    median, low, high = Spread.of(numbers)
    return f"{median:.2f}\n{low:.2f}–{high:.2f}"


def _show_episodes(check: EpisodeCheck, iteration: int | None, display: Display) -> None:
    display.table(
        f"On {check.episodes} episodes of iteration {iteration} ({check.truncated} truncated), {check.turns} turns",
        ("", "estimate", "95% interval", "which says"),
        (
            ("target of a segment minus return to the end", *_interval(check.target_difference), check.target_verdict),
            ("square of HAE's advantages over flat GAE's", *_interval(check.variance_ratio), check.variance_verdict),
        ),
    )
    if check.target_verdict == "differs":
        display.note("V_high is off on average, and what rests on it is biased: the critic is not there yet.")
        if check.truncated:
            display.note("(Or it is the truncated episodes, whose value at hand is not exactly what comes next.)")


def _interval(interval: Interval) -> tuple[str, str]:
    return f"{interval.value:.4f}", f"{interval.low:.4f} to {interval.high:.4f}"
