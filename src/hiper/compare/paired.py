"""Intervals and tests for methods that were trained with several seeds and played the same tasks.

Legend: S seeds (one run each), N tasks, R draws. All draws are seeded, so that equal numbers give equal answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hiper.advantages import Floats

DRAWS = 10_000
EXACT_UP_TO = 13
"""So many signs (8,192 patterns) are enumerated rather than drawn."""
_NEGLIGIBLE = 1e-9
"""Less than any difference of outcomes; sums of weights are not exact."""


@dataclass(frozen=True)
class Paired:
    """A method against another, on the same tasks and from the same seeds."""

    seeds: int
    difference: float
    """Mean of success over seeds and tasks, minus the other's."""
    interval: tuple[float, float]
    """See :func:`bootstrap_interval`."""
    p: float
    """See :func:`bootstrap_p`: are the methods equally good, whatever the seeds and the tasks?"""
    p_tasks: float
    """See :func:`sign_flip`; over tasks, each averaged over seeds: are these trained agents equally good? Other seeds
    may well train others: methods that are alike differ by this test more often than its level says."""
    p_holm: float = float("nan")
    """``p``, raised for the number of methods compared (:func:`holm`)."""


def compare_paired(one_SN: Floats, other_SN: Floats) -> Paired:
    """Two methods' outcomes, entry by entry of the same seed and the same task.

    Raises:
        ValueError: the shapes differ.
    """
    if one_SN.shape != other_SN.shape:
        raise ValueError(f"outcomes of shapes {one_SN.shape} and {other_SN.shape} are not paired")
    apart_SN = one_SN - other_SN
    return Paired(
        seeds=len(apart_SN),
        difference=float(apart_SN.mean()),
        interval=bootstrap_interval(apart_SN),
        p=bootstrap_p(apart_SN),
        p_tasks=sign_flip(apart_SN.mean(axis=0)),
    )


def bootstrap_interval(x_SN: Floats) -> tuple[float, float]:
    """The percentile interval (95%) of the mean, seeds and tasks drawn with replacement, independently of each other.

    Both are chance: other seeds would have trained other agents, other tasks would have been easier or harder. Owen,
    "The pigeonhole bootstrap" (Annals of Applied Statistics 1(2), 2007). It is too wide where seeds hardly differ, as
    the chance of a single outcome is counted twice, and too narrow where they differ much and are few; it has no width
    where all outcomes are equal. With one seed, tasks alone are chance.
    """
    low, high = np.quantile(_drawn_means(x_SN), (0.025, 0.975))
    return float(low), float(high)


def bootstrap_p(x_SN: Floats) -> float:
    """Two-sided p-value of a mean of zero, by the same draws: twice the share that lies on zero's other side.

    It is below 5% where the interval leaves out zero. (hits + 1) / (draws + 1), as in :func:`sign_flip`.
    """
    mean_R = _drawn_means(x_SN)
    beyond = min(np.count_nonzero(mean_R <= _NEGLIGIBLE), np.count_nonzero(mean_R >= -_NEGLIGIBLE))
    return float(min(1.0, 2 * (beyond + 1) / (len(mean_R) + 1)))


def _drawn_means(x_SN: Floats) -> Floats:
    rng, (seeds, tasks) = np.random.default_rng(0), x_SN.shape
    weight_RS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS) / seeds
    weight_RN = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=DRAWS) / tasks
    mean_R: Floats = ((weight_RS @ x_SN) * weight_RN).sum(axis=1)
    return mean_R


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
