"""`hiper verify`: prove what can be proved, measure the rest, and show both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from hiper.advantages import Floats
from hiper.analysis.proofs.episodes import EpisodeCheck, Interval, check_episodes
from hiper.analysis.proofs.figure import draw_verification, shown_lambdas
from hiper.analysis.proofs.proofs import (
    TOLERANCE,
    Bias,
    Quartiles,
    Unbiased,
    Variance,
    check_unbiased,
    measure_departures,
    sweep_bias,
    sweep_passing,
    sweep_variance,
    value_gap_share,
)
from hiper.analysis.proofs.report import Verification
from hiper.analysis.stored import read_stored, two_scales
from hiper.commands.output import write_results
from hiper.display.console import Display
from hiper.display.tables import Table
from hiper.errors import UserError
from hiper.runs.folder import Run


def verify(
    folder: Path, display: Display, run: Path | None = None, iteration: int | None = None, seed: int = 0
) -> Verification:
    """Run every check, show the outcome, and write numbers and a figure into ``folder``.

    Args:
        folder: where to write.
        display: where to show the tables.
        run: a run whose training episodes are checked as well; None: none.
        iteration: the iteration of these episodes; None: the last one.
        seed: seed of the bootstrap over these episodes.

    Raises:
        UserError: the run holds no episodes, or none with the values that HAE needs.
    """
    # The run comes first, because it may be refused.
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
    display.show(*_proofs(found), *_measurements(found))
    if found.episodes is not None:
        display.show(*_episodes(found.episodes, found.iteration))
    draw = partial(draw_verification, variances=found.variances, biases=found.biases)
    write_results(folder, "verify", display, found.to_json(), draw)
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


def _proofs(found: Verification) -> Iterator[str | Table]:
    yield Table(
        f"Expected gradient, with exact values, against the exact gradient (within {TOLERANCE:g})",
        ("estimator", "cases", "largest error", "unbiased"),
        [
            (check.estimator, str(check.cases), f"{check.largest_error:.1e}", _verdict(check))
            for check in found.unbiased
        ],
    )
    low, high = found.value_gap_share
    yield (
        f"The value-gap form expects {low:.3f} to {high:.3f} times beta of each switch parameter's gradient. On "
        "SWITCH its V_low is that of the new subgoal, so the gap does not contain the old subgoal's value."
    )


def _verdict(check: Unbiased) -> str:
    if check.holds:
        return "yes"
    return "NO" if check.claimed else "no, see below"


def _measurements(found: Verification) -> Iterator[Table]:
    yield _variance_table(found.variances)
    yield _bias_table(found.biases)
    yield Table(
        "HAE whose traces pass boundaries: median and quartiles",
        ("λ at boundaries", "variance, over flat GAE's at λ 1", "bias with wrong values"),
        [(f"{p.lambda_boundary:g}", _quartiles(p.ratios), _quartiles(p.biases)) for p in found.passing],
    )
    yield Table(
        "Where training departs from the proofs: cosine of expectation and gradient",
        ("", "least", "median", "largest"),
        [
            (d.what, f"{min(d.cosines):.4f}", f"{Quartiles.of(d.cosines).median:.4f}", f"{max(d.cosines):.4f}")
            for d in found.departures
        ],
    )


def _bias_table(biases: Sequence[Bias]) -> Table:
    lambdas, errors = sorted({b.lambda_ for b in biases}), sorted({b.error for b in biases})
    bias_at = {(bias.error, bias.lambda_): bias for bias in biases}
    return Table(
        "Bias by the error of values, relative to the gradient: median and quartiles",
        ("error", "", *(f"λ {lambda_:g}" for lambda_ in lambdas)),
        [
            (f"{e:g}", shown, *(_quartiles(getattr(bias_at[e, lambda_], name)) for lambda_ in lambdas))
            for e in errors
            for shown, name in (("HAE", "hae"), ("flat GAE", "flat"))
        ],
    )


def _variance_table(variances: Sequence[Variance]) -> Table:
    lambdas = shown_lambdas(variances)
    settings = dict.fromkeys((v.turns, v.branches, v.switch_rate, v.segment_turns) for v in variances)
    ratios = {(v.turns, v.branches, v.switch_rate, v.lambda_): v.ratios for v in variances}
    return Table(
        f"Variance of HAE's gradient over flat GAE's: median and quartiles of {len(variances[0].ratios)} processes",
        ("turns", "leads to", "P(SWITCH)", "segment", *(f"λ {lambda_:g}" for lambda_ in lambdas)),
        [
            (
                f"{turns}",
                f"{branches} state{'s' * (branches > 1)}",
                f"{rate:g}",
                f"{segment:.2f}",
                *(_quartiles(ratios[turns, branches, rate, lambda_]) for lambda_ in lambdas),
            )
            for turns, branches, rate, segment in settings
        ],
    )


def _quartiles(numbers: Sequence[float] | Floats) -> str:
    median, low, high = Quartiles.of(numbers)
    return f"{median:.2f}\n{low:.2f}–{high:.2f}"


def _episodes(check: EpisodeCheck, iteration: int | None) -> Iterator[str | Table]:
    yield Table(
        f"On {check.episodes} episodes of iteration {iteration} ({check.truncated} truncated), {check.turns} turns",
        ("", "estimate", "95% interval", "verdict"),
        [
            ("target of a segment minus return to the end", *_interval(check.target_difference), check.target_verdict),
            ("square of HAE's advantages over flat GAE's", *_interval(check.variance_ratio), check.variance_verdict),
        ],
    )
    if check.target_verdict == "differs":
        yield "V_high is wrong on average, and advantages computed from it are biased: the critic is not accurate yet."
        if check.truncated:
            yield "(Truncated episodes may cause it too: they are bootstrapped from a value that is not exact.)"


def _interval(interval: Interval) -> tuple[str, str]:
    return f"{interval.value:.4f}", f"{interval.low:.4f} to {interval.high:.4f}"
