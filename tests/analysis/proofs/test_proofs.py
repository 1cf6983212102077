"""What is proved holds, what is measured is measured right, and neither check can pass on what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from hiper.advantages import HAE, Estimator, TurnGAE, Turns
from hiper.analysis.proofs import proofs
from hiper.analysis.proofs.episodes import EpisodeCheck, Interval, check_episodes
from hiper.analysis.proofs.proofs import (
    TOLERANCE,
    Quartiles,
    Unbiased,
    Variance,
    check_unbiased,
    estimate,
    flat_gae,
    hae,
    measure_departures,
    moments,
    normalized_in_a_large_batch,
    sweep_bias,
    sweep_passing,
    sweep_variance,
    value_gap_share,
)
from hiper.analysis.proofs.report import Verification
from hiper.analysis.proofs.tabular import (
    DecisionProcess,
    Trajectories,
    Values,
    enumerate_trajectories,
    exact_gradient,
    exact_values,
)
from hiper.analysis.stored import Stored, read_stored
from hiper.commands import verify as command
from hiper.commands.output import write_results
from hiper.commands.verify import verify
from hiper.display.console import Display
from hiper.errors import UserError
from hiper.runs.folder import Run

PROCESS = DecisionProcess.random(0, turns=3)


@pytest.fixture(scope="module")
def trajectories() -> Trajectories:
    return enumerate_trajectories(PROCESS)


@pytest.fixture(scope="module")
def unbiased() -> list[Unbiased]:
    return check_unbiased(seeds=(3,))


def drawn(trajectories: Trajectories, number: int) -> Trajectories:
    """As a run would draw them: each as often as it is probable."""
    at = np.random.default_rng(0).choice(len(trajectories.prob_B), number, p=trajectories.prob_B)
    rows = {field.name: getattr(trajectories, field.name)[at] for field in fields(Trajectories)[1:]}
    return Trajectories(trajectories.process, **rows)


def test_hae_is_unbiased_for_any_lambda_and_the_value_gap_is_not(unbiased: list[Unbiased]):
    checks = {check.estimator: check for check in unbiased}
    assert {name for name, check in checks.items() if not check.holds} == {"HAE, value-gap"}
    assert {"HAE, termination-value", "HAE, one time scale", "turn-level GAE"} < set(checks)
    assert checks["HAE, cut episodes as ended"].holds
    assert checks["HAE, traces pass boundaries"].holds
    assert all(check.holds == check.claimed for check in checks.values())
    assert checks["HAE, value-gap"].largest_error > 1e-3
    np.testing.assert_allclose(value_gap_share(seed=3), 1.0, rtol=1e-9)  # and by how much is known
    assert checks["HAE, value-gap to the kept subgoal"].holds  # the same formula with the other reading of V_low


def test_the_check_has_episodes_of_many_lengths_and_notices_how_they_end():
    process = DecisionProcess.random(3, ends=proofs.ENDS)
    trajectories, values, exact_N = enumerate_trajectories(process), exact_values(process), exact_gradient(process)
    turns = trajectories.turns(values, cut=True)
    assert set(turns.length_B.tolist()) == {1, 2, 3, 4}
    assert set(turns.terminated_B[turns.length_B == 4].tolist()) == {True, False}

    def error(turns: Turns) -> float:
        return float(np.abs(moments(trajectories, HAE()(turns)).mean_N - exact_N).max())

    assert error(trajectories.turns(values)) < TOLERANCE
    assert error(turns) > 1e-3  # what ends after four turns must not be bootstrapped
    beyond = values.low_TSG[np.arange(4), trajectories.state_BT, trajectories.subgoal_BT]
    always = np.ones_like(turns.mask_BT)
    endless = replace(turns, mask_BT=always, terminated_B=always[:, 0], v_low_BT=beyond)
    assert error(endless) > 1e-3  # nothing is worth anything after an early end


@pytest.mark.parametrize("part", ["low_TSG", "high_TS", "switch_TSH"])
def test_the_check_notices_wrong_values(trajectories: Trajectories, part: str):
    """Values of the states after are off; a shift that is the same everywhere would be a mere baseline."""
    values = exact_values(PROCESS)
    wrong = replace(
        values, **{part: getattr(values, part) + np.random.default_rng(0).normal(size=getattr(values, part).shape)}
    )
    mean = estimate(trajectories, wrong, hae(PROCESS, 0.5)).mean_N
    error = np.abs(mean - exact_gradient(PROCESS)).max()
    # V_switch is a baseline and nothing else; the two others are bootstrapped from.
    assert (error > 1e-3) == (part != "switch_TSH")
    assert (error < TOLERANCE) == (part == "switch_TSH")


@pytest.mark.parametrize("estimator", [HAE(lambda_turn=0.7), TurnGAE(lambda_turn=0.7, normalize=False)])
def test_sampled_trajectories_agree_with_the_enumeration(trajectories: Trajectories, estimator: Estimator):
    values = exact_values(PROCESS)
    exact = estimate(trajectories, values, estimator)
    turns = trajectories.turns(values)
    gradient_BN = trajectories.gradients(estimator(turns))
    drawn = np.random.default_rng(0).choice(len(gradient_BN), 20_000, p=trajectories.prob_B)
    sampled = gradient_BN[drawn]
    standard_error = np.sqrt(exact.variance_N / len(drawn))
    assert (np.abs(sampled.mean(axis=0) - exact.mean_N) <= 4.5 * standard_error + 1e-12).all()
    assert sampled.var(axis=0).sum() == pytest.approx(exact.variance, rel=0.05)


def test_variances_and_what_they_are_made_of():
    rows = sweep_variance(horizons=(1, 3), switch_rates=(0.8, 0.4), lambdas=(0.0, 1.0), seeds=(0, 1))
    settings = ((1, 1, 0.4), (3, 1, 0.4), (1, 2, 0.4), (3, 2, 0.4), (1, 1, 0.8))
    assert [(row.turns, row.branches, row.switch_rate, row.lambda_) for row in rows] == [
        (*setting, lambda_) for setting in settings for lambda_ in (0.0, 1.0)
    ]
    # In one turn nothing is cut, and lambda does not matter; on the switch, which decides nothing, HAE's variance is
    # flat GAE's.
    first, second = rows[:2]
    np.testing.assert_allclose([first.hae, first.flat], [second.hae, second.flat])
    assert first.hae[0][0] == pytest.approx(first.flat[0][0])
    assert first.segment_turns == 1.0
    assert rows[2].segment_turns == pytest.approx(3 / 1.8)  # 1 + 2 * 0.4 segments
    # Two rows by hand, without and with chance: each process on its own.
    for row, branches in ((rows[3], 1), (rows[7], 2)):
        for seed in (0, 1):
            process = DecisionProcess.random(seed, turns=3, branches=branches, switch_rate=0.4)
            trajectories, values = enumerate_trajectories(process), exact_values(process)
            ours, theirs = (estimate(trajectories, values, e(process, 1.0)).variance for e in (hae, flat_gae))
            # Python 3.12 adds floats more exactly than 3.11 and numpy.
            assert row.hae_total[seed] == pytest.approx(sum(row.hae[seed]), rel=1e-12)
            assert row.flat_total[seed] == pytest.approx(sum(row.flat[seed]), rel=1e-12)
            assert (row.hae_total[seed], row.flat_total[seed]) == pytest.approx((ours, theirs))
            assert row.ratios[seed] == pytest.approx(ours / theirs)


def test_no_process_stands_for_the_others():
    """The scale of a process, which a sum of variances would be ruled by, says nothing of its ratio."""
    small, large = (1.0, 0.0, 0.0), (50.0, 30.0, 20.0)
    flat = ((2.0, 0.0, 0.0), (0.0, 4.0, 0.0), (0.0, 0.0, 80.0))
    row = Variance(2, 1, 0.5, 1.3, 1.0, (small, small, large), flat)
    np.testing.assert_allclose(row.ratios, [0.5, 0.25, 1.25])
    assert Quartiles.of(row.ratios) == pytest.approx((0.5, 0.375, 0.875))


def test_wrong_values_bias_hae_but_not_flat_monte_carlo():
    found = sweep_bias(errors=(0.0, 0.5, 1.0), lambdas=(0.0, 1.0), seeds=(0, 1))
    biases = {(bias.error, bias.lambda_): bias for bias in found}
    np.testing.assert_allclose(biases[0.0, 0.0].hae, 0.0, atol=TOLERANCE)
    for error in (0.0, 0.5):
        np.testing.assert_allclose(biases[error, 1.0].flat, 0.0, atol=TOLERANCE)  # nothing is bootstrapped
    assert min(biases[0.5, 1.0].hae) > 1e-3
    assert min(biases[0.5, 0.0].flat) > max(biases[0.5, 1.0].flat)
    np.testing.assert_allclose(np.array(biases[1.0, 0.0].flat), 2 * np.array(biases[0.5, 0.0].flat))  # in proportion


def test_the_more_of_a_trace_passes_the_less_is_the_bias_and_the_more_the_variance():
    nothing, half, everything = sweep_passing(lambdas=(0.0, 0.5, 1.0), turns=4, seeds=(0, 1, 2))
    for less, more in ((nothing, half), (half, everything)):
        assert np.median(less.ratios) < np.median(more.ratios)
        assert np.median(less.biases) > np.median(more.biases)
    # The first row by hand; the last: actions and switches rest on returns, and subgoals are biased as they were.
    process = DecisionProcess.random(1, turns=4, branches=1)
    trajectories, values, exact_N = enumerate_trajectories(process), exact_values(process), exact_gradient(process)
    flat = estimate(trajectories, values, flat_gae(process, 1.0))
    published = HAE(process.gamma)
    assert nothing.ratios[1] == pytest.approx(estimate(trajectories, values, published).variance / flat.variance)
    wrong = values.disturbed(1, 1.0)
    passed, cut = (estimate(trajectories, wrong, replace(published, lambda_boundary=b)).mean_N for b in (1.0, 0.0))
    switches, subgoals = process.switch_SH.size, process.subgoal_SG.size
    planner = slice(switches, switches + subgoals)
    np.testing.assert_allclose(np.delete(passed, planner), np.delete(exact_N, planner), atol=TOLERANCE)
    np.testing.assert_allclose(passed[planner], cut[planner], atol=TOLERANCE)
    assert everything.biases[1] == pytest.approx(np.linalg.norm(passed - exact_N) / np.linalg.norm(exact_N))


def test_where_training_departs_the_gradient_turns_a_little():
    departures = {departure.what: departure.cosines for departure in measure_departures(seeds=(0, 1))}
    assert list(departures) == [
        "gamma^t left out", "three advantages normalised", "cut episodes bootstrapped", "cut episodes as ended"
    ]  # fmt: skip
    for cosines in departures.values():
        assert len(cosines) == 2
        assert all(0.9 < cosine < 1 - 1e-6 for cosine in cosines)


def test_normalising_in_a_large_batch_is_what_the_library_does():
    process = DecisionProcess.random(1, turns=3, ends=0.5)
    trajectories, values = enumerate_trajectories(process), exact_values(process)
    credit = normalized_in_a_large_batch(trajectories, HAE()(trajectories.turns(values)))
    expected_N = moments(trajectories, credit).mean_N
    sampled = drawn(trajectories, 200_000)
    found_N = sampled.gradients(HAE(normalize=True)(sampled.turns(values))).mean(axis=0)
    assert np.linalg.norm(found_N - expected_N) < 0.02 * np.linalg.norm(expected_N)


class TestEpisodes:
    """Drawn as a run would draw them."""

    process = DecisionProcess.random(1, turns=4)
    values = exact_values(process)
    sampled = drawn(enumerate_trajectories(process), 400)
    like = HAE(lambda_turn=1.0)

    def test_right_values(self) -> None:
        check = check_episodes(self.sampled.turns(self.values), replace(self.like, normalize=True))
        assert (check.episodes, check.turns) == (400, 1600)
        assert 0.0 in check.target_difference
        assert (check.target_verdict, check.variance_verdict) == ("no difference seen", "smaller")
        assert check == check_episodes(self.sampled.turns(self.values), self.like)  # seeded

    @pytest.mark.parametrize("passing", [0.0, 1.0])
    def test_a_high_value_that_promises_too_much(self, passing: float) -> None:
        """Seen by an estimator that hardly rests on it, too."""
        promising = replace(self.values, high_TS=self.values.high_TS + 0.5)
        like = replace(self.like, lambda_boundary=passing)
        off = check_episodes(self.sampled.turns(promising), like)
        assert off.target_difference.low > 0.1
        assert off.target_verdict == "differs"

    def test_where_no_boundary_follows_there_is_no_difference(self) -> None:
        """Whatever the values are, and though the episodes were cut: both go on with the same value at hand."""
        one_segment = replace(
            self.sampled.turns(self.values),
            boundary_BT=np.eye(1, 4, dtype=bool).repeat(400, axis=0),
            terminated_B=np.zeros(400, dtype=bool),
        )
        check = check_episodes(one_segment, self.like)
        assert check.truncated == 400
        assert check.target_difference == Interval(0.0, 0.0, 0.0)

    def test_episodes_of_a_group_are_drawn_together(self) -> None:
        """Each episode four times over is no more evidence than once."""
        turns = self.sampled.turns(self.values)
        once = check_episodes(turns, self.like).target_difference
        four = _repeated(turns, 4)
        together = check_episodes(replace(four, group_B=np.arange(400).repeat(4)), self.like).target_difference
        apart = check_episodes(four, self.like).target_difference
        assert (together.value, together.low, together.high) == pytest.approx((once.value, once.low, once.high))
        assert apart.high - apart.low < 0.6 * (once.high - once.low)

    def test_one_task_alone_is_refused(self) -> None:
        alone = replace(self.sampled.turns(self.values), group_B=np.zeros(400, dtype=int))
        with pytest.raises(UserError, match="all episodes are of one task"):
            check_episodes(alone, self.like)

    @pytest.mark.parametrize("paid", [0, 2])
    def test_too_few_advantages_are_refused(self, paid: int) -> None:
        """With no advantage but zero, or with so few that resampling misses them, there is no ratio."""
        nothing = Values(*(np.zeros_like(getattr(self.values, field.name)) for field in fields(Values)))
        turns = replace(self.sampled.turns(nothing), reward_BT=np.eye(400, 4) * (np.arange(4) < paid))
        with pytest.raises(UserError, match=f"zero in {400 - paid} of 400 episodes: .*; train longer"):
            check_episodes(turns, self.like)

    @pytest.mark.parametrize(
        ("low", "high", "verdict"),
        [(0.5, 0.9, "smaller"), (0.9, 3.0, "cannot tell"), (1.1, 1.4, "larger"), (0.9, 1.0, "cannot tell")],
    )
    def test_only_an_interval_on_one_side_says_something(self, low: float, high: float, verdict: str) -> None:
        assert EpisodeCheck(8, 40, 0, Interval(0.0, -1.0, 1.0), Interval(1.0, low, high)).variance_verdict == verdict


def _repeated(turns: Turns, times: int) -> Turns:
    """Each episode so many times."""
    arrays = {field.name: getattr(turns, field.name) for field in fields(turns)}
    return replace(turns, **{name: x.repeat(times, axis=0) for name, x in arrays.items() if x is not None})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, unbiased: list[Unbiased]) -> None:
    """Small sweeps."""
    small: dict[str, Callable[[], Any]] = {
        "check_unbiased": lambda: unbiased,
        "sweep_variance": lambda: sweep_variance((2, 3), (0.8, 0.5), proofs.LAMBDAS, (0,)),
        "sweep_bias": lambda: sweep_bias((1.0,), proofs.LAMBDAS, (0,)),
        "sweep_passing": lambda: sweep_passing(turns=3, seeds=(0,)),
        "measure_departures": lambda: measure_departures((0,)),
    }
    for name, work in small.items():
        monkeypatch.setattr(command, name, work)


@pytest.mark.usefixtures("quick")
def test_the_command_shows_and_writes_everything(tiny_run: Path, tmp_path: Path):
    shown = StringIO()
    found = verify(tmp_path, Display(console=Console(file=shown, width=120)), run=tiny_run)
    assert found.failed == []
    assert found.episodes is not None
    assert found.episodes.episodes == 16
    text = shown.getvalue()
    assert "HAE, termination-value" in text
    assert "Variance of HAE's gradient" in text
    assert "On 16 episodes of iteration 2 (" in text
    assert (tmp_path / "verify.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((tmp_path / "verify.json").read_text())
    assert all(row["holds"] == row["claimed"] for row in written["unbiased"])
    assert [len(row["ratios"]) for row in written["variances"]] == [1] * len(found.variances)
    assert written["episodes"]["iteration"] == 2
    assert written["episodes"]["variance_verdict"] == found.episodes.variance_verdict
    assert found.episodes.target_verdict in text
    assert "gamma^t left out" in text
    assert "traces pass boundaries" in text
    assert [row["lambda_boundary"] for row in written["passing"]] == list(proofs.BOUNDARY_LAMBDAS)


@pytest.mark.usefixtures("quick")
def test_an_earlier_iteration_is_checked(tiny_run: Path, tmp_path: Path):
    first, last = (
        verify(tmp_path / str(n), Display(console=Console(file=StringIO())), tiny_run, n).episodes for n in (1, None)
    )
    stored = read_stored(Run.open(tiny_run), 1)
    assert first == check_episodes(stored.turns, Run.open(tiny_run).config.advantages)
    assert first != last
    with pytest.raises(UserError, match="has no episodes of iteration 3; there are 1 to 2"):
        verify(tmp_path, Display(console=Console(file=StringIO())), tiny_run, 3)


@pytest.mark.usefixtures("quick")
def test_a_narrow_terminal_shows_every_number(tmp_path: Path):
    shown = StringIO()
    verify(tmp_path, Display(console=Console(file=shown, width=80)))
    assert "…" not in shown.getvalue()


def test_a_run_without_a_switch_value_is_refused(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As one trained with the value-gap form."""

    def without(run: Run, iteration: int | None) -> Stored:
        stored = read_stored(run, iteration)
        return replace(stored, turns=replace(stored.turns, v_switch_BT=None))

    monkeypatch.setattr(command, "read_stored", without)
    with pytest.raises(UserError, match=r"learned no V_switch; name a run trained with .*termination-value"):
        verify(tmp_path, Display(console=Console(file=StringIO())), run=tiny_run)


def test_nan_is_never_written(tmp_path: Path):
    nothing = Interval(float("nan"), float("nan"), float("nan"))
    found = Verification([], (1.0, 1.0), [], [], [], [], EpisodeCheck(1, 1, 0, nothing, nothing))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(tmp_path, "verify", Display(console=Console(file=StringIO())), found.to_json(), Path.touch)
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_fails_is_named():
    broken = Unbiased("HAE, termination-value", 1, 0.1, claimed=True)
    gap = Unbiased("HAE, value-gap", 1, 0.1, claimed=False)
    assert Verification([broken, gap], (1.0, 1.0), [], [], [], [], None).failed == ["HAE, termination-value"]


def test_both_lambdas_are_those_asked_for():
    assert hae(PROCESS, 0.3) == HAE(1.0, 0.3, 0.3)
    assert hae(PROCESS, 0.3, 0.9) == HAE(1.0, 0.3, 0.9)
    assert flat_gae(PROCESS, 0.3) == TurnGAE(1.0, 0.3, normalize=False)
