"""Intervals and tests: numbers worked by hand, and what they must agree with."""

from __future__ import annotations

from math import comb, sqrt

import numpy as np
import pytest
from scipy import stats

from hiper.advantages import Floats
from hiper.analysis.comparison.paired import Mean, compare_paired, crossed_mean, holm, sign_flip


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
    monkeypatch.setattr("hiper.analysis.comparison.paired.EXACT_UP_TO", 0)
    assert 0.05 < exact < 0.95
    assert sign_flip(apart) == pytest.approx(exact, abs=0.02)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_table_worked_by_hand():
    """Rows deviate from the mean of 6 by 1 and -1, columns by -2, 0 and 2, and what is left by 1 or not at all."""
    x_SN = np.array([[4.0, 7.0, 10.0], [4.0, 5.0, 6.0]])
    mean = crossed_mean(x_SN)
    assert mean.value == 6.0
    # Squares: seeds 3 * (1 + 1) / 1 = 6, tasks 2 * (4 + 0 + 4) / 2 = 8, rest 4 * 1 / 2 = 2.
    error, freedom = sqrt((6 + 8 - 2) / 6), (6 + 8 - 2) ** 2 / (36 / 1 + 64 / 2)
    assert mean.interval == pytest.approx(stats.t.interval(0.95, freedom, loc=6, scale=error))
    assert mean.p == pytest.approx(2 * stats.t.cdf(-6 / error, freedom))


def test_a_square_of_seeds_that_is_small_by_chance_narrows_nothing():
    """Seeds have the same mean, so that theirs alone would say that there is no chance at all."""
    x_SN = np.array([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]])
    low, high = crossed_mean(x_SN).interval
    rest = 8 * 0.25 / 3
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, rest**2 / (rest**2 / 1 + rest**2 / 3)) * sqrt(rest / 8))


def test_one_task_is_students_test_over_seeds():
    x_S = np.array([0.3, -0.1, 0.4, 0.2])
    mean, known = crossed_mean(x_S[:, None]), stats.ttest_1samp(x_S, 0.0)
    assert mean.p == pytest.approx(known.pvalue)
    assert mean.interval == pytest.approx(tuple(known.confidence_interval()))


def test_with_one_seed_tasks_alone_are_chance_and_nothing_is_said_of_methods():
    x_N = np.array([1.0, 0.0, 0.0, -1.0, 1.0])
    mean = crossed_mean(x_N[None])
    assert mean.interval == pytest.approx(tuple(stats.ttest_1samp(x_N, 0.0).confidence_interval()))
    assert mean.p is None


def test_where_nothing_varies_nothing_is_known_of_chance():
    assert crossed_mean(np.zeros((3, 5))) == Mean(0.0, (0.0, 0.0), None)
    assert crossed_mean(np.ones((1, 1))) == Mean(1.0, (1.0, 1.0), None)


def test_seeds_that_disagree_outweigh_any_number_of_tasks():
    """All tasks say the same of these seeds, and the seeds say nothing of others."""
    apart_SN = np.repeat([[0.5], [-0.1], [0.5]], 300, axis=1)
    paired = compare_paired(apart_SN, np.zeros_like(apart_SN))
    assert paired.p_tasks < 0.001
    assert paired.p == pytest.approx(stats.ttest_1samp([0.5, -0.1, 0.5], 0.0).pvalue)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("of_seeds", "of_tasks"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.2), (0.1, 0.2)])
def test_methods_that_are_alike_are_told_apart_no_more_often_than_the_level_says(
    seeds: int, of_seeds: float, of_tasks: float
):
    """Outcomes of two methods whose success varies with the seed, and by task, by chance alone."""
    rng, count = np.random.default_rng(0), 500

    def won(task_N: Floats) -> Floats:
        chance_SN = task_N + rng.normal(0, of_seeds, (seeds, 1)) + rng.normal(0, of_tasks, task_N.shape)
        return (rng.random(chance_SN.shape) < chance_SN).astype(float)

    found = 0
    for _ in range(count):
        task_N = rng.beta(1.5, 0.7, 140)
        p = crossed_mean(won(task_N) - won(task_N)).p
        assert p is not None
        found += p < 0.05
    assert found / count <= 0.05 + 3 * sqrt(0.05 * 0.95 / count)


def test_a_pair_is_compared_entry_by_entry():
    one_SN = np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    other_SN = np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]])
    paired = compare_paired(one_SN, other_SN)
    assert paired.seeds == 2
    assert paired.difference == pytest.approx(0.25)
    assert paired.p_tasks == 6 / 8  # tasks differ by 0, 1, -1/2, 1/2: sums of 2, 1, 1, and their negatives
    assert paired.p is not None
    assert 0.05 < paired.p < 1.0
    assert paired.interval[0] < 0.25 < paired.interval[1]
    assert compare_paired(other_SN, one_SN).difference == -paired.difference


def test_what_is_not_paired_is_refused():
    with pytest.raises(ValueError, match="not paired"):
        compare_paired(np.ones((2, 3)), np.ones((1, 3)))
