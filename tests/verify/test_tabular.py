"""The process, its values and its gradient, each against another way to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hiper.verify.tabular import Process, Trajectories, enumerate_trajectories, exact_gradient, exact_values


@pytest.fixture(params=[0, 1])
def process(request: pytest.FixtureRequest) -> Process:
    return Process.random(request.param, turns=3, gamma=0.9)


def returns(trajectories: Trajectories, after: int = 0) -> np.ndarray:
    """Discounted return of each trajectory from a turn on."""
    reward_BT = trajectories.process.reward_SA[trajectories.state_BT, trajectories.action_BT][:, after:]
    return np.asarray(reward_BT @ trajectories.process.gamma ** np.arange(reward_BT.shape[1]))


def test_a_process_by_hand():
    """One state, one subgoal, two actions, of which the second pays 1; SWITCH is as likely as KEEP."""
    process = Process(
        turns=2,
        gamma=0.5,
        start_S=np.ones(1),
        reward_SA=np.array([[0.0, 1.0]]),
        next_SAS=np.ones((1, 2, 1)),
        switch_SH=np.zeros((1, 2)),
        subgoal_SG=np.zeros((1, 1)),
        action_SGA=np.array([[[0.0, np.log(3.0)]]]),
    )
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


def test_everything_that_can_happen_is_there_once(process: Process):
    trajectories = enumerate_trajectories(process)
    assert trajectories.prob_B.sum() == pytest.approx(1.0)
    assert (trajectories.prob_B > 0).all()
    columns = [trajectories.state_BT, trajectories.switch_BT, trajectories.subgoal_BT, trajectories.action_BT]
    assert len(np.unique(np.concatenate(columns, axis=1), axis=0)) == len(trajectories.prob_B)
    kept = ~trajectories.boundary_BT
    np.testing.assert_array_equal(trajectories.subgoal_BT[kept], trajectories.previous_BT[kept])
    np.testing.assert_array_equal(trajectories.previous_BT[:, 1:], trajectories.subgoal_BT[:, :-1])
    # Two first states, twice two decisions and an action, then three ways to a subgoal: times two next states.
    assert len(trajectories.prob_B) == 2 * 8 * (2 * 6) ** 2


def test_values_are_conditional_expectations(process: Process):
    trajectories, values = enumerate_trajectories(process), exact_values(process)
    for t in range(process.turns):
        togo, prob = returns(trajectories, t), trajectories.prob_B
        state, before, after = (
            x[:, t] for x in (trajectories.state_BT, trajectories.previous_BT, trajectories.subgoal_BT)
        )
        chose = trajectories.boundary_BT[:, t]
        for s in set(state.tolist()):
            at = (state == s) & chose
            assert np.average(togo[at], weights=prob[at]) == pytest.approx(values.high_TS[t, s])
            for g in range(2):
                at = (state == s) & (after == g)
                assert np.average(togo[at], weights=prob[at]) == pytest.approx(values.low_TSG[t, s, g])
            for h in set(before.tolist()):
                at = (state == s) & (before == h)
                assert np.average(togo[at], weights=prob[at]) == pytest.approx(values.switch_TSH[t, s, h])


def test_the_gradient_is_the_limit_of_differences_and_that_of_reinforce(process: Process):
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


def test_more_turns_leave_the_process_as_it_is():
    short, long = Process.random(0, turns=2), Process.random(0, turns=5)
    np.testing.assert_array_equal(short.reward_SA, long.reward_SA)
    np.testing.assert_array_equal(short.parameters, long.parameters)


def test_settings_of_random_processes():
    process = Process.random(0, branches=1, switch_rate=0.25)
    np.testing.assert_allclose(process.switch_prob_SH, 0.25)
    assert np.count_nonzero(process.next_SAS, axis=2).tolist() == [[1, 1]] * 3
    assert np.count_nonzero(process.start_S) == 1
    np.testing.assert_allclose(replace(process, turns=9).next_SAS.sum(axis=2), 1.0)
