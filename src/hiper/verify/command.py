"""`hiper verify`: prove what can be proved, measure the rest, and say both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hiper.console import Display
from hiper.errors import UserError
from hiper.evaluation.stored import read_stored
from hiper.training.run import Run
from hiper.verify.episodes import EpisodeCheck, Interval, check_episodes
from hiper.verify.proofs import TOLERANCE, check_unbiased, sweep_bias, sweep_variance, value_gap_share
from hiper.verify.report import FIGURE, JSON, Verification


def verify(folder: Path, display: Display, run: Path | None = None, seed: int = 0) -> Verification:
    """Run every check, show the outcome, and write it to ``folder``.

    Args:
        folder: where JSON and figure go.
        display: where tables go.
        run: whose last training episodes are checked as well.
        seed: of the bootstrap over these.

    Raises:
        UserError: the run holds no episodes, or none with values of decisions.
    """
    episodes = None if run is None else _check_run(Run.open(run), seed)  # first, as it may be refused
    with display.bar("enumerating", 4) as advance:
        unbiased = check_unbiased()
        advance()
        share = value_gap_share()
        advance()
        variances = sweep_variance()
        advance()
        biases = sweep_bias()
        advance()
    found = Verification(unbiased, (float(share.min()), float(share.max())), variances, biases, episodes)
    _show(found, display)
    found.write(folder)
    display.note(f"\nall of it: {folder / JSON}, {folder / FIGURE}")
    return found


def _check_run(run: Run, seed: int) -> EpisodeCheck:
    stored = read_stored(run)
    if "decisions" not in stored.views:
        raise UserError(
            f"{run.path} was trained without values of decisions; name a run trained with advantages.type=hae"
        )
    return check_episodes(stored.views["decisions"], stored.views["turn"], run.config.advantages, seed)


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
    lambdas = sorted({v.lambda_ for v in found.variances})
    settings = list(dict.fromkeys((v.turns, v.switch_rate, v.segment_turns) for v in found.variances))
    ratio = {((v.turns, v.switch_rate, v.segment_turns), v.lambda_): v.ratio for v in found.variances}
    display.table(
        "Variance of HAE's gradient over that of flat GAE",
        ("turns", "P(SWITCH)", "segment", *(f"λ {lambda_:g}" for lambda_ in lambdas)),
        (
            (f"{s[0]}", f"{s[1]:g}", f"{s[2]:.2f}", *(f"{ratio[s, lambda_]:.3f}" for lambda_ in lambdas))
            for s in settings
        ),
    )
    lambdas, errors = (sorted({getattr(b, name) for b in found.biases}) for name in ("lambda_", "error"))
    bias_at = {(bias.error, bias.lambda_): bias for bias in found.biases}
    display.table(
        "Bias by the error of values, relative to the gradient: HAE | flat GAE",
        ("error", *(f"λ {lambda_:g}" for lambda_ in lambdas)),
        (
            (f"{e:g}", *(f"{bias_at[e, lambda_].hae:.3f} | {bias_at[e, lambda_].flat:.3f}" for lambda_ in lambdas))
            for e in errors
        ),
    )
    if found.episodes is not None:
        _show_episodes(found.episodes, display)


def _show_episodes(check: EpisodeCheck, display: Display) -> None:
    display.table(
        f"On {check.episodes} episodes of the run, {check.turns} turns",
        ("", "estimate", "95% interval", "expected"),
        (
            ("target of a segment minus return to the end", *_interval(check.target_difference), "0 inside"),
            ("square of HAE's advantages over flat GAE's", *_interval(check.variance_ratio), "below 1"),
        ),
    )
    display.note(
        "Nothing in them speaks against the proofs."
        if check.agrees
        else "They speak against the proofs' assumptions: the critic is not there yet."
    )


def _interval(interval: Interval) -> tuple[str, str]:
    return f"{interval.value:.4f}", f"{interval.low:.4f} to {interval.high:.4f}"
