"""Intervals and tests: numbers worked by hand, and what they must agree with."""

from __future__ import annotations

from math import comb, sqrt
from statistics import NormalDist

import numpy as np
import pytest

from hiper.compare.paired import bootstrap_interval, bootstrap_p, compare_paired, holm, sign_flip


def test_signs_of_three_differences():
    assert sign_flip(np.array([1.0, 1.0, 1.0])) == 2 / 8
    assert sign_flip(np.array([3.0, -1.0, 1.0])) == 6 / 8  # 5, 3, 3, and their negatives


def test_differences_of_zero_say_nothing():
    assert sign_flip(np.array([1.0, 0.0, 1.0, 1.0, 0.0])) == 2 / 8
    assert sign_flip(np.zeros(4)) == 1.0


def mcnemar(better: int, worse: int) -> float:
    """The exact test: of so many tasks that only one of two won, how they are shared out."""
    count = better + worse
    tail = sum(comb(count, k) for k in range(min(better, worse) + 1))
    return float(min(1.0, 2 * tail / 2**count))


@pytest.mark.parametrize(
    ("better", "worse", "tolerance"), [(9, 1, 1e-12), (7, 6, 1e-12), (15, 5, 0.008), (60, 40, 0.01)]
)
def test_outcomes_of_one_run_each_are_mcnemars(better: int, worse: int, tolerance: float):
    apart = np.array([1.0] * better + [-1.0] * worse + [0.0] * 30)
    assert sign_flip(apart) == pytest.approx(mcnemar(better, worse), abs=tolerance)


def test_drawn_and_enumerated_signs_agree(monkeypatch: pytest.MonkeyPatch):
    apart = np.random.default_rng(3).normal(0.3, 1.0, size=12)
    exact = sign_flip(apart)
    monkeypatch.setattr("hiper.compare.paired.EXACT_UP_TO", 0)
    assert 0.05 < exact < 0.95
    assert sign_flip(apart) == pytest.approx(exact, abs=0.02)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_with_one_seed_tasks_alone_are_chance():
    won_SN = np.array([[1.0] * 50 + [0.0] * 50])
    assert bootstrap_interval(won_SN) == pytest.approx((0.40, 0.60), abs=0.011)  # quantiles of Binomial(100, 1/2)


def test_where_only_seeds_differ_seeds_alone_are_chance():
    won_SN = np.repeat(np.array([[0.0], [1.0]]), 400, axis=1)
    assert bootstrap_interval(won_SN) == (0.0, 1.0)  # both seeds are the same one with a chance of 1/4 each
    same_SN = np.repeat(np.array([[1.0, 0.0] * 200]), 2, axis=0)
    assert bootstrap_interval(same_SN) == pytest.approx((0.45, 0.55), abs=0.01)  # two seeds alike are worth one


def test_with_one_seed_the_p_value_is_that_of_tasks():
    # 60 tasks are better, 40 worse: the mean of 100 draws is zero or less about as often as a normal variable is below
    # -0.2 / sqrt(0.96 / 100), with half a step for the zero itself.
    apart_SN = np.array([[1.0] * 60 + [-1.0] * 40])
    assert bootstrap_p(apart_SN) == pytest.approx(2 * NormalDist().cdf(-(0.2 - 0.01) / sqrt(0.96 / 100)), abs=0.01)


def test_the_p_value_and_the_interval_agree():
    rng = np.random.default_rng(5)
    for shift in (0.0, 0.05, 0.1, 0.2, 0.4):
        apart_SN = rng.normal(shift, 0.05, size=(4, 1)) + rng.choice([-0.5, 0.5], size=(4, 60))
        low, high = bootstrap_interval(apart_SN)
        assert (bootstrap_p(apart_SN) < 0.05) == (low > 0 or high < 0)


def test_the_p_value_of_seeds_that_disagree_is_not_that_of_tasks():
    """All tasks say the same of these seeds, and the seeds say nothing of others."""
    apart_SN = np.repeat([[0.5], [-0.1], [0.5]], 300, axis=1)
    paired = compare_paired(apart_SN, np.zeros_like(apart_SN))
    assert paired.p_tasks < 0.001
    assert paired.p == pytest.approx(2 / 27, abs=0.01)  # the chance that all three drawn are the worst one, twice
    assert bootstrap_p(np.zeros((3, 5))) == 1.0


def test_a_pair_is_compared_entry_by_entry():
    one_SN = np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    other_SN = np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]])
    paired = compare_paired(one_SN, other_SN)
    assert paired.seeds == 2
    assert paired.difference == pytest.approx(0.25)
    assert paired.p_tasks == 6 / 8  # tasks differ by 0, 1, -1/2, 1/2: sums of 2, 1, 1, and their negatives
    assert 0.05 < paired.p < 1.0
    assert paired.interval[0] < 0.25 < paired.interval[1]
    assert compare_paired(other_SN, one_SN).difference == -paired.difference


def test_what_is_not_paired_is_refused():
    with pytest.raises(ValueError, match="not paired"):
        compare_paired(np.ones((2, 3)), np.ones((1, 3)))
