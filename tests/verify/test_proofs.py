"""What is proved holds, what is measured is measured right, and neither check can pass on what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from hiper.advantages import HAE, Estimator, TurnGAE
from hiper.console import Display
from hiper.verify import command, proofs
from hiper.verify.command import verify
from hiper.verify.episodes import check_episodes
from hiper.verify.proofs import (
    TOLERANCE,
    Unbiased,
    check_unbiased,
    estimate,
    flat_gae,
    hae,
    sweep_bias,
    sweep_variance,
    value_gap_share,
)
from hiper.verify.report import Verification
from hiper.verify.tabular import Process, Trajectories, enumerate_trajectories, exact_gradient, exact_values

PROCESS = Process.random(0, turns=3)


@pytest.fixture(scope="module")
def trajectories() -> Trajectories:
    return enumerate_trajectories(PROCESS)


def test_hae_is_unbiased_for_any_lambda_and_the_value_gap_is_not():
    checks = {check.estimator: check for check in check_unbiased(seeds=(3,))}
    assert {name for name, check in checks.items() if check.holds} == {
        "HAE, termination-value", "HAE, one time scale", "turn-level GAE"
    }  # fmt: skip
    assert all(check.holds == check.claimed for check in checks.values())
    assert checks["HAE, value-gap"].largest_error > 1e-3
    np.testing.assert_allclose(value_gap_share(seed=3), 1.0, rtol=1e-9)  # and by how much is known


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
    turns = trajectories.turns(values, flat=estimator.type == "turn-gae")
    gradient_BN = trajectories.gradients(estimator(turns))
    drawn = np.random.default_rng(0).choice(len(gradient_BN), 20_000, p=trajectories.prob_B)
    sampled = gradient_BN[drawn]
    standard_error = np.sqrt(exact.variance_N / len(drawn))
    assert (np.abs(sampled.mean(axis=0) - exact.mean_N) <= 4.5 * standard_error + 1e-12).all()
    assert sampled.var(axis=0).sum() == pytest.approx(exact.variance, rel=0.05)


def test_variances_and_what_they_are_made_of():
    rows = sweep_variance(horizons=(1, 3), switch_rates=(0.8, 0.4), lambdas=(0.0, 1.0), seeds=(0, 1))
    assert [(row.turns, row.switch_rate, row.lambda_) for row in rows] == [
        (turns, rate, lambda_) for turns, rate in ((1, 0.4), (3, 0.8), (3, 0.4)) for lambda_ in (0.0, 1.0)
    ]
    for row in rows:
        assert row.hae == pytest.approx(sum(row.hae_by_decision))
        assert row.flat == pytest.approx(sum(row.flat_by_decision))
    # In one turn nothing is cut, and lambda does not matter; on the switch, which decides nothing, HAE's variance is
    # flat GAE's.
    first, second = rows[:2]
    assert (first.hae, first.flat) == pytest.approx((second.hae, second.flat))
    assert first.hae_by_decision[0] == pytest.approx(first.flat_by_decision[0])
    assert first.segment_turns == 1.0
    assert rows[2].segment_turns == pytest.approx(3 / 2.6)  # 1 + 2 * 0.8 segments
    # One row by hand: two processes, each on its own.
    total = 0.0
    for seed in (0, 1):
        process = Process.random(seed, turns=3, branches=1, switch_rate=0.4)
        total += estimate(enumerate_trajectories(process), exact_values(process), hae(process, 1.0)).variance
    assert rows[-1].hae == pytest.approx(total)


def test_wrong_values_bias_hae_but_not_flat_monte_carlo():
    biases = {
        (bias.error, bias.lambda_): bias for bias in sweep_bias(errors=(0.0, 0.5), lambdas=(0.0, 1.0), seeds=(0,))
    }
    assert biases[0.0, 0.0].hae == pytest.approx(0.0, abs=TOLERANCE)
    assert biases[0.0, 1.0].flat == pytest.approx(0.0, abs=TOLERANCE)
    assert biases[0.5, 1.0].flat == pytest.approx(0.0, abs=TOLERANCE)  # nothing is bootstrapped
    assert biases[0.5, 1.0].hae > 1e-3
    assert biases[0.5, 0.0].flat > biases[0.5, 1.0].flat


def test_episodes_of_a_process_agree_while_its_values_are_right():
    """Drawn as a run would draw them; then with a V_high that promises too much."""
    process = Process.random(1, turns=4)
    trajectories, values = enumerate_trajectories(process), exact_values(process)
    drawn = np.random.default_rng(0).choice(len(trajectories.prob_B), 400, p=trajectories.prob_B)
    sampled = Trajectories(
        process, *(getattr(trajectories, name)[drawn] for name in
                   ("prob_B", "state_BT", "previous_BT", "switch_BT", "subgoal_BT", "action_BT"))
    )  # fmt: skip
    flat = sampled.turns(values, flat=True)
    check = check_episodes(sampled.turns(values), flat, HAE(lambda_turn=1.0, normalize=True))
    assert (check.episodes, check.turns) == (400, 1600)
    assert 0.0 in check.target_difference
    assert check.agrees
    assert check == check_episodes(sampled.turns(values), flat, HAE(lambda_turn=1.0))  # seeded
    promising = replace(values, high_TS=values.high_TS + 0.5)
    off = check_episodes(sampled.turns(promising), flat, HAE(lambda_turn=1.0))
    assert off.target_difference.low > 0.1
    assert not off.agrees


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small sweeps."""
    small: dict[str, Callable[[], Any]] = {
        "check_unbiased": lambda: check_unbiased(seeds=(0,)),
        "sweep_variance": lambda: sweep_variance((2, 3), (0.8, 0.5), proofs.LAMBDAS, (0,)),
        "sweep_bias": lambda: sweep_bias((0.0, 1.0), proofs.LAMBDAS, (0,)),
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
    assert "On 16 episodes of the run" in text
    assert (tmp_path / "verify.png").read_bytes().startswith(b"\x89PNG")
    assert '"holds": true' in (tmp_path / "verify.json").read_text()


def test_a_claim_that_fails_is_named():
    broken = Unbiased("HAE, termination-value", 1, 0.1, claimed=True)
    gap = Unbiased("HAE, value-gap", 1, 0.1, claimed=False)
    assert Verification([broken, gap], (1.0, 1.0), [], [], None).failed == ["HAE, termination-value"]


def test_both_lambdas_are_those_asked_for():
    assert hae(PROCESS, 0.3) == HAE(1.0, 0.3, 0.3)
    assert hae(PROCESS, 0.3, 0.9) == HAE(1.0, 0.3, 0.9)
    assert flat_gae(PROCESS, 0.3) == TurnGAE(1.0, 0.3, normalize=False)
