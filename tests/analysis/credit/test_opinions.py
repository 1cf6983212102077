"""Statistics of credit, by hand and by identities."""

from __future__ import annotations

import numpy as np
import pytest

from hiper.advantages import Credit, TokenCredit, Turns
from hiper.analysis.credit.opinions import Opinion, correlations, disagreement, rank_correlation, ranks, summaries

TURNS = Turns(
    mask_BT=np.array([[True, True, True], [True, False, False]]),
    reward_BT=np.zeros((2, 3)),
    boundary_BT=np.array([[True, False, True], [True, False, False]]),
    terminated_B=np.array([True, True]),
)


def opinion(*rows: tuple[list[float], list[bool]], credit: Credit | None = None) -> Opinion:
    tokens = [TokenCredit(np.array(advantages), np.array(mask)) for advantages, mask in rows]
    return Opinion(credit or Credit(*np.zeros((3, 2, 3))), tokens)


def test_turns_are_means_over_the_tokens_that_carry_credit():
    said = opinion(([1.0, 3.0, 9.0], [True, True, False]), ([-2.0], [True]), ([0.0], [False]))
    assert said.turn_N.tolist() == [2.0, -2.0, 0.0]
    np.testing.assert_array_equal(said.token_K, [1.0, 3.0, np.nan, -2.0, np.nan])


def test_summaries_of_decisions():
    credit = Credit(
        low_BT=np.array([[1.0, 2.0, 3.0], [6.0, 0.0, 0.0]]),
        high_BT=np.array([[1.0, 0.0, -1.0], [3.0, 0.0, 0.0]]),
        switch_BT=np.array([[5.0, 5.0, 5.0], [1.0, 0.0, 0.0]]),
    )
    switch, subgoal, action = summaries(opinion(credit=credit), TURNS)
    # Within episodes: 1, 2, 3 about 2 has 2 / 4; in all 1, 2, 3, 6 about 3 has 14 / 4.
    assert (action.count, action.mean, action.variance, action.positive) == (4, 3.0, 3.5, 1.0)
    assert action.within == pytest.approx(2 / 14)
    assert (subgoal.count, subgoal.mean) == (3, 1.0)
    assert subgoal.positive == pytest.approx(2 / 3)
    assert (switch.variance, switch.within) == (3.0, 0.0)
    whole = Credit.of_responses(TURNS, credit.low_BT)
    (response,) = summaries(opinion(credit=whole), TURNS)
    assert response.decision == "response"
    assert response.variance == 3.5


def test_what_is_rounding_is_nothing():
    noise = np.array([[3e-12, -2e-12, 1e-12], [0.0, 0.0, 0.0]])
    (response,) = summaries(opinion(credit=Credit.of_responses(TURNS, noise)), TURNS)
    assert (response.positive, response.variance, response.within) == (0.0, 0.0, 0.0)
    assert ranks(noise[0]).tolist() == [0.5, 0.5, 0.5]


def test_ranks_share_ties():
    assert ranks(np.array([5.0, 1.0, 5.0, 9.0])).tolist() == [0.5, 0.0, 0.5, 1.0]
    assert ranks(np.array([7.0])).tolist() == [0.5]
    assert ranks(np.array([2.0, 2.0])).tolist() == [0.5, 0.5]


def test_rank_correlation_by_hand():
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    # 1 - 6 * sum of squared rank differences / (n^3 - n): differences 1, 1, 0, 1, 1.
    assert rank_correlation(x, np.array([2.0, 1.0, 3.0, 5.0, 4.0])) == pytest.approx(1 - 6 * 4 / 120)
    assert rank_correlation(x, np.exp(x)) == pytest.approx(1.0)
    assert rank_correlation(x, -(x**3)) == pytest.approx(-1.0)
    assert np.isnan(rank_correlation(x, np.ones(5)))
    gaps = np.array([1.0, np.nan, 3.0, np.nan, 0.0])
    assert rank_correlation(x, gaps) == pytest.approx(rank_correlation(x[[0, 2, 4]], gaps[[0, 2, 4]]))
    assert np.isnan(rank_correlation(x, np.full(5, np.nan)))


def test_correlations_are_symmetric_with_ones_on_the_diagonal():
    rng = np.random.default_rng(0)
    matrix = correlations({name: rng.normal(size=50) for name in "abc"})
    np.testing.assert_allclose(np.diag(matrix), 1.0)
    np.testing.assert_allclose(matrix, matrix.T)
    assert np.abs(matrix[~np.eye(3, dtype=bool)]).max() < 0.5


def test_disagreement_is_about_ranks():
    first = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    assert disagreement(np.array([first, 100 * first - 7])).tolist() == [0.0] * 5
    assert disagreement(np.array([first, -first])).tolist() == [1.0, 0.5, 0.0, 0.5, 1.0]
