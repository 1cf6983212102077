"""Intervals and tests for methods trained with several seeds and evaluated on the same tasks.

Legend: S seeds (one run each), N tasks, R draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit  # scipy.stats has the same, but takes a second to import

from hiper.advantages import Floats

DRAWS = 10_000
EXACT_UP_TO = 13
"""Largest number of nonzero differences whose patterns of signs (here 8,192) are enumerated; beyond, they are drawn."""
_NEGLIGIBLE = 1e-9
"""Less than any true difference of outcomes; absorbs rounding."""


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and tasks, with inference for other seeds and tasks; see :func:`crossed_mean`."""

    value: float
    interval: tuple[float, float]
    """95% interval."""
    p: float | None
    """Two-sided p-value for a mean of zero. None: with one seed, or if nothing varies, chance cannot be estimated."""


@dataclass(frozen=True)
class Paired:
    """A method compared with another on the same tasks and seeds."""

    seeds: int
    """Number of common seeds."""
    difference: float
    """Mean success over seeds and tasks, minus that of the other method."""
    interval: tuple[float, float]
    """95% interval of the difference, see :func:`crossed_mean`."""
    p: float | None
    """p-value of the same model: are the methods equally good over all seeds and tasks? None with one seed."""
    p_tasks: float
    """p-value of :func:`sign_flip` over tasks, each averaged over seeds: are these trained agents equally good?

    It does not account for other seeds: for equal methods it is small more often than its level says.
    """
    p_holm: float | None = None
    """``p`` corrected for the number of methods compared (:func:`holm`)."""


def compare_paired(one_SN: Floats, other_SN: Floats) -> Paired:
    """Compare outcomes of two methods; equal indices mean the same seed and the same task.

    Raises:
        ValueError: the shapes differ.
    """
    if one_SN.shape != other_SN.shape:
        raise ValueError(f"outcomes of shapes {one_SN.shape} and {other_SN.shape} are not paired")
    difference_SN = one_SN - other_SN
    mean = crossed_mean(difference_SN)
    return Paired(len(difference_SN), mean.value, mean.interval, mean.p, sign_flip(difference_SN.mean(axis=0)))


def crossed_mean(x_SN: Floats) -> Mean:
    """Estimate the mean of a table whose seeds and tasks are both random samples (crossed random effects).

    Other seeds would have trained other agents. Other tasks would have been easier or harder.

    x_sn = mean + seed_s + task_n + rest_sn, all three random. With M_S, M_N and M_E the mean squares of seeds, tasks
    and the rest,

        variance of the mean = (max(M_S, M_E) + max(M_N, M_E) - M_E) / (S N),

    and Student's t has Satterthwaite's degrees of freedom. They are about S - 1 where seeds matter most, so few seeds
    give wide intervals. This is the quasi-F of Clark, "The language-as-fixed-effect fallacy" (Journal of Verbal
    Learning and Verbal Behavior 12, 1973). The maxima keep a mean square that is small by chance from narrowing the
    interval. With one seed only tasks are random, and the p-value is None.

    Args:
        x_SN: outcomes, or differences of outcomes, by seed and task.
    """
    seeds, tasks = x_SN.shape
    mean = float(x_SN.mean())
    seed_S, task_N = x_SN.mean(axis=1) - mean, x_SN.mean(axis=0) - mean
    rest_SN = x_SN - mean - seed_S[:, None] - task_N
    of_rest = _mean_square(rest_SN, (seeds - 1) * (tasks - 1))
    of_seeds = max(_mean_square(seed_S, seeds - 1) * tasks, of_rest)
    of_tasks = max(_mean_square(task_N, tasks - 1) * seeds, of_rest)
    square = of_seeds + of_tasks - of_rest
    if square < _NEGLIGIBLE:
        return Mean(mean, (mean, mean), None)
    freedom = square**2 / sum(m**2 / (count - 1) for m, count in ((of_seeds, seeds), (of_tasks, tasks)) if count > 1)
    error = float(np.sqrt(square / (seeds * tasks)))
    half = float(stdtrit(freedom, 0.975)) * error
    p = float(2 * stdtr(freedom, -abs(mean) / error)) if seeds > 1 else None
    return Mean(mean, (mean - half, mean + half), p)


def _mean_square(x: Floats, freedom: int) -> float:
    return float((x**2).sum()) / freedom if freedom else 0.0


def sign_flip(x_N: Floats, seed: int = 0) -> float:
    """Compute the two-sided p-value of the paired permutation test.

    It is the share of random signs for which the mean is at least as far from zero. With one run each and outcomes of
    0 and 1 it is McNemar's exact test. Up to :data:`EXACT_UP_TO` nonzero differences, all patterns of signs are
    enumerated. Beyond, the p-value is (hits + 1) / (draws + 1), Phipson and Smyth 2010.
    """
    nonzero_N = x_N[x_N != 0]
    count, total = len(nonzero_N), abs(float(nonzero_N.sum())) - _NEGLIGIBLE
    if count <= EXACT_UP_TO:
        sign_RN = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
        return float((np.abs(sign_RN @ nonzero_N) >= total).mean())
    sign_RN = np.random.default_rng(seed).choice(np.array((-1.0, 1.0)), size=(DRAWS, count))
    return float((np.count_nonzero(np.abs(sign_RN @ nonzero_N) >= total) + 1) / (DRAWS + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's step-down method (Scandinavian Journal of Statistics 6(2), 1979); the order stays."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = least
    return adjusted
