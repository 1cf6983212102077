"""Metrics, worked by hand: each is averaged over what it is about."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from helpers.made import episode, scored, turn
from hiper.advantages import HAE, ReinforcePP, Shaping, TokenGAE
from hiper.training.assign import assign_credit
from hiper.training.metrics import (
    credit_metrics,
    explained_variance,
    mismatch_metrics,
    rollout_metrics,
    time_metrics,
)

EPISODES = [
    episode(turn(action="look"), turn(switch=False, action="look"), turn(switch=False, action="wait", reward=10.0)),
    episode(
        turn(switch=False, boundary=True),
        turn(switch=False, copy_differs=True, observation="You see more."),
        turn(observation="You see less.", prompt_cut=True, prompt_ids=(2, 8, 2, 9)),
        turn(switch=False, boundary=False, invalid="missing_block", observation="You see nothing at all.", action=""),
        won=False,
        task_type="chore",
    ),
    episode(turn(reward=10.0), task_type="chore"),
]


def test_rollout_metrics():
    metrics = rollout_metrics(EPISODES, unknown_id=2)
    assert metrics["success/all"] == pytest.approx(2 / 3)
    assert (metrics["success/errand"], metrics["success/chore"]) == (1.0, 0.5)
    assert metrics["episode/return"] == pytest.approx(20 / 3)
    assert metrics["episode/turns"] == pytest.approx(8 / 3)
    assert metrics["episode/truncated"] == pytest.approx(1 / 3)
    assert metrics["invalid/all"] == metrics["invalid/missing_block"] == pytest.approx(1 / 8)
    # Of five turns after a first one, one is invalid and says nothing; of the other four, one switches.
    assert metrics["plan/switch_rate"] == pytest.approx(1 / 4)
    assert metrics["plan/segment_turns"] == pytest.approx(8 / 4)
    # An episode of one turn had no chance to switch.
    assert metrics["plan/never_switched"] == pytest.approx(1 / 2)
    assert metrics["plan/copies_that_differ"] == pytest.approx(1 / 3)
    # Of the first episode's turns, one repeats an action on the same observation; of the others, none.
    assert metrics["plan/repeated_actions"] == pytest.approx((1 / 3 + 0 + 0) / 3)
    assert metrics["prompt/cut"] == pytest.approx(1 / 8)
    assert metrics["prompt/unknown"] == pytest.approx(2 / 25)
    assert metrics["tokens/prompt"] == pytest.approx(25 / 8)
    assert metrics["tokens/response"] == 10.0


def test_thinking_is_counted_where_there_is_any():
    assert "tokens/thinking" not in rollout_metrics(EPISODES)
    thoughtful = turn(kinds=(4, 4, 4, 4, 1, 2, 2, 3, 3, 3), thinking=20)
    assert rollout_metrics([episode(thoughtful, turn())])["tokens/thinking"] == 2.0


def test_a_tokenizer_that_knows_every_word_has_no_unknown_ones():
    assert rollout_metrics(EPISODES)["prompt/unknown"] == 0.0


def test_credit_metrics_leave_padding_and_other_turns_out():
    turns = [t for e in EPISODES for t in e.turns]
    scores = [scored(t, low=float(n), high=2.0 * n, switch=1.0) for n, t in enumerate(turns)]
    plain = credit_metrics(assign_credit(EPISODES, scores, Shaping(keep_penalty=-0.2), HAE()))
    normalised = credit_metrics(assign_credit(EPISODES, scores, Shaping(keep_penalty=-0.2), HAE(normalize=True)))
    assert plain == normalised  # they tell what credit was before it was normalised
    assert plain["reward/environment"] == pytest.approx(20 / 3)
    assert plain["reward/keep"] == pytest.approx(-0.2 * 4 / 3)
    assert plain["critic/value_low"] == pytest.approx(np.mean(range(8)))
    assert plain["critic/value_high"] == pytest.approx(2 * np.mean([0, 3, 5, 7]))  # boundaries only
    credit = assign_credit(EPISODES, scores, Shaping(keep_penalty=-0.2), HAE()).credit
    lows = [*credit.low_BT[0, :3], *credit.low_BT[1, :4], credit.low_BT[2, 0]]
    assert plain["advantage/low_mean"] == pytest.approx(np.mean(lows))
    assert plain["advantage/low_std"] == pytest.approx(np.std(lows))
    highs = [credit.high_BT[0, 0], credit.high_BT[1, 0], credit.high_BT[1, 2], credit.high_BT[2, 0]]
    assert plain["advantage/high_mean"] == pytest.approx(np.mean(highs))


def test_heads_without_targets_have_no_explained_variance():
    turns = [t for e in EPISODES for t in e.turns]
    assigned = assign_credit(EPISODES, [scored(t) for t in turns], Shaping(), HAE(switch_form="value-gap"))
    metrics = credit_metrics(assigned)
    assert "critic/explained_variance_switch" not in metrics
    assert "critic/explained_variance_low" in metrics
    assert metrics["advantage/switch_mean"] == 0.0  # all values are zero, and so is their gap


def test_only_what_a_critic_valued_is_measured():
    turns = [t for e in EPISODES for t in e.turns]
    scores = [
        dataclasses.replace(scored(t), values=np.linspace(n, n + 0.9, 10, dtype=np.float32))
        for n, t in enumerate(turns)
    ]
    assigned = assign_credit(EPISODES, scores, Shaping(), TokenGAE(lambda_token=0.5))
    metrics = credit_metrics(assigned)
    assert metrics["critic/value_token"] == pytest.approx(np.mean([s.values for s in scores]))
    targets = np.concatenate([row.targets for row in assigned.rows])
    values = np.concatenate([s.values for s in scores])
    assert metrics["critic/explained_variance_token"] == pytest.approx(1 - np.var(targets - values) / np.var(targets))
    assert not any(name.endswith(("_low", "_high", "_switch")) for name in metrics)

    none = [dataclasses.replace(scored(t), values=np.zeros(0, dtype=np.float32)) for t in turns]
    metrics = credit_metrics(assign_credit(EPISODES, none, Shaping(), ReinforcePP()))
    assert metrics["advantage/low_mean"] == pytest.approx(0.0, abs=1e-9)
    assert not any(name.startswith("critic/") for name in metrics)
    assert {name for name in metrics if name.startswith("advantage/")} == {"advantage/low_mean", "advantage/low_std"}


def test_explained_variance():
    returns, used = np.array([[1.0, 2.0, 3.0, 99.0]]), np.array([[True, True, True, False]])
    assert explained_variance(returns.copy(), returns, used) == 1.0
    assert explained_variance(np.zeros_like(returns), returns, used) == 0.0
    assert explained_variance(returns + 5.0, returns, used) == pytest.approx(1.0)  # a constant error explains as much
    assert explained_variance(-returns, returns, used) == pytest.approx(-3.0)
    assert explained_variance(returns, np.ones_like(returns), used) == 0.0


def test_mismatch():
    score = scored(turn(logprobs=(-0.5,) * 9 + (-1.5,)))
    score = dataclasses.replace(score, logprobs=np.full(10, -0.5, dtype=np.float32))
    metrics = mismatch_metrics([score])
    assert metrics["mismatch/mean_abs"] == pytest.approx(0.1)
    assert metrics["mismatch/max_abs"] == pytest.approx(1.0)
    assert metrics["mismatch/kl"] == pytest.approx((np.e - 1 - 1.0) / 10)


def test_time():
    metrics = time_metrics(
        {"generation": 2.0, "update": 6.0, "environment": 0.0}, tokens=1200, generated=50, generation=2.0
    )
    assert metrics["time/iteration"] == 8.0
    assert metrics["time/update_share"] == 0.75
    assert metrics["speed/generated_tokens"] == 25.0
    assert metrics["speed/update_tokens"] == 200.0
