"""The process, its values and its gradient, each against another way to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hiper.advantages import HAE, Credit
from hiper.analysis.proofs.tabular import (
    DecisionProcess,
    Trajectories,
    enumerate_trajectories,
    exact_gradient,
    exact_values,
)

BY_HAND = DecisionProcess(
    turns=2,
    gamma=0.5,
    start_S=np.ones(1),
    reward_SA=np.array([[0.0, 1.0]]),
    next_SAS=np.ones((1, 2, 1)),
    end_SA=np.zeros((1, 2)),
    switch_SH=np.zeros((1, 2)),
    subgoal_SG=np.zeros((1, 1)),
    action_SGA=np.array([[[0.0, np.log(3.0)]]]),
)
"""One state, one subgoal, two actions, of which the second pays 1; SWITCH is as likely as KEEP."""


@pytest.fixture(params=[(0, 0.0), (1, 0.0), (0, 0.5)], ids=lambda param: f"seed{param[0]}-ends{param[1]}")
def process(request: pytest.FixtureRequest) -> DecisionProcess:
    seed, ends = request.param
    return DecisionProcess.random(seed, turns=3, gamma=0.9, ends=ends)


def returns(trajectories: Trajectories, after: int = 0) -> np.ndarray:
    """Discounted return of each trajectory from a turn on."""
    reward_BT = trajectories.process.reward_SA[trajectories.state_BT, trajectories.action_BT] * trajectories.mask_BT
    return np.asarray(reward_BT[:, after:] @ trajectories.process.gamma ** np.arange(reward_BT.shape[1] - after))


def log_policy(trajectories: Trajectories, policy: DecisionProcess) -> np.ndarray:
    """Of all decisions of each trajectory together, under a policy whose logits may be complex."""
    chose = np.where(trajectories.switch_BT, policy.switch_SH[trajectories.state_BT, trajectories.previous_BT], 0.0)
    log_switch = chose - np.log(1 + np.exp(policy.switch_SH))[trajectories.state_BT, trajectories.previous_BT]
    log_subgoal = np.log(policy.subgoal_prob_SG)[trajectories.state_BT, trajectories.subgoal_BT]
    log_action = np.log(policy.action_prob_SGA)[trajectories.state_BT, trajectories.subgoal_BT, trajectories.action_BT]
    log_turn = log_switch + np.where(trajectories.boundary_BT, log_subgoal, 0.0) + log_action
    return np.asarray(np.where(trajectories.mask_BT, log_turn, 0.0).sum(axis=1))


def test_a_process_by_hand():
    process = BY_HAND
    trajectories = enumerate_trajectories(process)
    assert len(trajectories.prob_B) == 16  # said and played, twice
    np.testing.assert_allclose(np.unique(trajectories.prob_B), np.array([1, 3, 9]) / 64)
    assert trajectories.boundary_BT[:, 0].all()
    np.testing.assert_array_equal(trajectories.boundary_BT[:, 1], trajectories.switch_BT[:, 1])
    assert trajectories.previous_BT.tolist() == [[1, 0]] * 16
    assert trajectories.segment_turns == pytest.approx(2 / 1.5)
    values = exact_values(process)
    for part in (values.low_TSG[:, 0, 0], values.high_TS[:, 0], values.switch_TSH[:, 0, 0]):
        np.testing.assert_allclose(part, [0.75 * 1.5, 0.75])
    # Only the actions matter: d/dlogit of 1.5 * p is 1.5 * p * (1 - p).
    np.testing.assert_allclose(exact_gradient(process), [0, 0, 0, -1.5 * 3 / 16, 1.5 * 3 / 16], atol=1e-12)


def test_a_process_that_may_end_by_hand():
    """What pays ends the episode every other time."""
    process = replace(BY_HAND, end_SA=np.array([[0.0, 0.5]]))
    trajectories, values = enumerate_trajectories(process), exact_values(process)
    early_B = trajectories.mask_BT.sum(axis=1) == 1
    assert trajectories.prob_B.sum() == pytest.approx(1.0)
    assert trajectories.prob_B[early_B].sum() == pytest.approx(0.75 / 2)
    assert trajectories.ended_B[early_B].all()
    # Of the rest, those whose last action paid ended every other time as well.
    assert trajectories.prob_B[trajectories.ended_B].sum() == pytest.approx(0.375 + 0.625 * 0.375)
    np.testing.assert_allclose(values.high_TS[:, 0], [0.75 + 0.5 * 0.625 * 0.75, 0.75])
    assert trajectories.segment_turns == pytest.approx(1.625 / (1 + 0.625 / 2))
    turns = trajectories.turns(values)
    np.testing.assert_array_equal(turns.mask_BT, trajectories.mask_BT)
    assert turns.terminated_B.all()  # after two turns the process ends
    np.testing.assert_array_equal(trajectories.turns(values, cut=True).terminated_B, trajectories.ended_B)


def test_everything_that_can_happen_is_there_once(process: DecisionProcess):
    trajectories = enumerate_trajectories(process)
    assert trajectories.prob_B.sum() == pytest.approx(1.0)
    assert (trajectories.prob_B > 0).all()
    columns = [trajectories.state_BT, trajectories.switch_BT, trajectories.subgoal_BT, trajectories.action_BT]
    columns += [trajectories.mask_BT, trajectories.ended_B[:, None]]
    assert len(np.unique(np.concatenate(columns, axis=1), axis=0)) == len(trajectories.prob_B)
    kept = trajectories.mask_BT & ~trajectories.boundary_BT
    np.testing.assert_array_equal(trajectories.subgoal_BT[kept], trajectories.previous_BT[kept])
    later = trajectories.mask_BT[:, 1:]
    np.testing.assert_array_equal(trajectories.previous_BT[:, 1:][later], trajectories.subgoal_BT[:, :-1][later])
    # Two first states, twice two decisions and an action, then three ways to a subgoal: times two next states.
    decided = 2 * 8 * np.array([1, 2 * 6, (2 * 6) ** 2])
    # Where an action may end the episode, each of these may be its end, and the last may be none, too.
    assert len(trajectories.prob_B) == (decided.sum() + decided[-1] if process.end_SA.any() else decided[-1])


def test_values_are_conditional_expectations(process: DecisionProcess):
    trajectories, values = enumerate_trajectories(process), exact_values(process)
    for t in range(process.turns):
        togo, prob = returns(trajectories, t), trajectories.prob_B
        state, before, after = (
            x[:, t] for x in (trajectories.state_BT, trajectories.previous_BT, trajectories.subgoal_BT)
        )
        chose = trajectories.boundary_BT[:, t]
        played = trajectories.mask_BT[:, t]
        for s in set(state[played].tolist()):
            at = (state == s) & chose & played
            assert np.average(togo[at], weights=prob[at]) == pytest.approx(values.high_TS[t, s])
            for g in range(2):
                at = (state == s) & (after == g) & played
                assert np.average(togo[at], weights=prob[at]) == pytest.approx(values.low_TSG[t, s, g])
            for h in set(before[played].tolist()):
                at = (state == s) & (before == h) & played
                assert np.average(togo[at], weights=prob[at]) == pytest.approx(values.switch_TSH[t, s, h])


def test_the_gradient_is_the_limit_of_differences(process: DecisionProcess):
    gradient, step = exact_gradient(process), 1e-6
    assert np.abs(gradient).max() > 0.01

    def expected_return(parameters: np.ndarray) -> float:
        moved = process.with_parameters(parameters)
        trajectories = enumerate_trajectories(moved)
        return float(trajectories.prob_B @ returns(trajectories))

    for n in range(len(gradient)):
        move = step * np.eye(len(gradient))[n]
        difference = expected_return(process.parameters + move) - expected_return(process.parameters - move)
        assert difference / (2 * step) == pytest.approx(gradient[n], abs=1e-8)


def test_the_gradient_is_that_of_reinforce(process: DecisionProcess):
    """The return times the derivative of the log-probability of all decisions, without `Scores` and estimators."""
    trajectories, parameters = enumerate_trajectories(process), process.parameters.astype(complex)
    score_BN = np.stack(
        [
            log_policy(trajectories, process.with_parameters(parameters + 1e-30j * one)).imag / 1e-30
            for one in np.eye(len(parameters))
        ],
        axis=1,
    )
    reinforce = trajectories.prob_B @ (returns(trajectories)[:, None] * score_BN)
    np.testing.assert_allclose(reinforce, exact_gradient(process), atol=1e-12)
    # Scores are the same derivatives, decision by decision: advantages of one where a decision was made add them up.
    ones = trajectories.mask_BT.astype(float)
    credit = Credit(low_BT=ones, high_BT=ones * trajectories.boundary_BT, switch_BT=ones)
    np.testing.assert_allclose(trajectories.gradients(credit, discounted=False), score_BN, atol=1e-12)


def test_what_comes_after_the_last_turn():
    """Two turns and a rest of two more are four turns, of which the decisions of the first two are differentiated."""
    short, long = (DecisionProcess.random(0, turns=turns, gamma=0.9, ends=0.5) for turns in (2, 4))
    rest_SH = exact_values(short).switch_TSH[0]
    with_rest, whole = exact_values(short, rest_SH), exact_values(long)
    for part in ("low_TSG", "high_TS", "switch_TSH"):
        np.testing.assert_allclose(getattr(with_rest, part), getattr(whole, part)[:2])
    trajectories = enumerate_trajectories(long)
    credit = HAE(long.gamma)(trajectories.turns(whole))
    first_T = np.arange(4) < 2
    early = Credit(credit.low_BT * first_T, credit.high_BT * first_T, credit.switch_BT * first_T)
    mean = trajectories.prob_B @ trajectories.gradients(early)
    np.testing.assert_allclose(mean, exact_gradient(short, rest_SH), atol=1e-12)
    assert np.abs(mean - exact_gradient(short)).max() > 1e-3


def test_more_turns_leave_the_process_as_it_is():
    short, long = DecisionProcess.random(0, turns=2), DecisionProcess.random(0, turns=5, ends=0.5)
    np.testing.assert_array_equal(short.reward_SA, long.reward_SA)
    np.testing.assert_array_equal(short.parameters, long.parameters)


def test_settings_of_random_processes():
    process = DecisionProcess.random(0, branches=1, switch_rate=0.25)
    np.testing.assert_allclose(process.switch_prob_SH, 0.25)
    assert np.count_nonzero(process.next_SAS, axis=2).tolist() == [[1, 1]] * 3
    assert np.count_nonzero(process.start_S) == 1
    np.testing.assert_allclose(replace(process, turns=9).next_SAS.sum(axis=2), 1.0)
