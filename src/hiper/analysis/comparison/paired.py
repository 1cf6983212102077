"""Intervals and tests for methods that were trained with several seeds and played the same tasks.

Legend: S seeds (one run each), N tasks, R draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from hiper.advantages import Floats

DRAWS = 10_000
EXACT_UP_TO = 13
"""So many signs (8,192 patterns) are enumerated rather than drawn."""
_NEGLIGIBLE = 1e-9
"""Less than any difference of outcomes; sums of weights are not exact."""


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and tasks, and what it says of other seeds and tasks; see :func:`crossed_mean`."""

    value: float
    interval: tuple[float, float]
    """95%."""
    p: float | None
    """Two-sided, of a mean of zero. None: there is one seed, or nothing varies, so that nothing is known of chance."""


@dataclass(frozen=True)
class Paired:
    """A method against another, on the same tasks and from the same seeds."""

    seeds: int
    difference: float
    """Mean of success over seeds and tasks, minus the other's."""
    interval: tuple[float, float]
    """95%, see :func:`crossed_mean`."""
    p: float | None
    """Of the same: are the methods equally good, whatever the seeds and the tasks? One seed cannot tell."""
    p_tasks: float
    """See :func:`sign_flip`; over tasks, each averaged over seeds: are these trained agents equally good? Other seeds
    may well train others: methods that are alike differ by this test more often than its level says."""
    p_holm: float | None = None
    """``p``, raised for the number of methods compared (:func:`holm`)."""


def compare_paired(one_SN: Floats, other_SN: Floats) -> Paired:
    """Two methods' outcomes, entry by entry of the same seed and the same task.

    Raises:
        ValueError: the shapes differ.
    """
    if one_SN.shape != other_SN.shape:
        raise ValueError(f"outcomes of shapes {one_SN.shape} and {other_SN.shape} are not paired")
    apart_SN = one_SN - other_SN
    mean = crossed_mean(apart_SN)
    return Paired(len(apart_SN), mean.value, mean.interval, mean.p, sign_flip(apart_SN.mean(axis=0)))


def crossed_mean(x_SN: Floats) -> Mean:
    """The mean of a table in which both seeds and tasks are chance: other seeds would have trained other agents, other
    tasks would have been easier or harder.

    x_sn = mean + seed_s + task_n + rest_sn, all three random. With M_S, M_N and M_E the mean squares of seeds, tasks
    and the rest,

        variance of the mean = (max(M_S, M_E) + max(M_N, M_E) - M_E) / (S N),

    and Student's t with Satterthwaite's degrees of freedom: about S - 1 where seeds matter most, so that few seeds
    give wide intervals. This is the quasi-F of Clark, "The language-as-fixed-effect fallacy" (Journal of Verbal
    Learning and Verbal Behavior 12, 1973); the maxima keep a seeds' square that is small by chance from narrowing it.
    With one seed, tasks alone are chance, and the p-value is left open.
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
    half = float(student.ppf(0.975, freedom)) * error
    p = float(2 * student.sf(abs(mean) / error, freedom)) if seeds > 1 else None
    return Mean(mean, (mean - half, mean + half), p)


def _mean_square(x: Floats, freedom: int) -> float:
    return float((x**2).sum()) / freedom if freedom else 0.0


def sign_flip(x_N: Floats, seed: int = 0) -> float:
    """Two-sided p-value of the paired permutation test: were it chance which of a pair is which, how often would the
    mean be as far from zero?

    With one run each and outcomes of 0 and 1 it is McNemar's exact test. Up to :data:`EXACT_UP_TO` differences that
    are not zero all patterns of signs are enumerated; beyond, (hits + 1) / (draws + 1), Phipson and Smyth 2010.
    """
    apart_N = x_N[x_N != 0]
    count, total = len(apart_N), abs(float(apart_N.sum())) - _NEGLIGIBLE
    if count <= EXACT_UP_TO:
        sign_RN = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
        return float((np.abs(sign_RN @ apart_N) >= total).mean())
    sign_RN = np.random.default_rng(seed).choice(np.array((-1.0, 1.0)), size=(DRAWS, count))
    return float((np.count_nonzero(np.abs(sign_RN @ apart_N) >= total) + 1) / (DRAWS + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given; Scandinavian Journal of Statistics 6(2), 1979."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = least
    return adjusted
