"""Expectation and variance of the policy gradient under each estimator, exactly, on tabular processes.

With exact values every estimate is unbiased, whatever lambda: what a trace is cut by is known in expectation. What is
claimed beyond that is measured: how the variance of HAE compares with that of flat GAE at equal lambda, by horizon and
by length of segments, and how far either goes wrong with values that are wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from hiper.advantages import HAE, Credit, Estimator, Floats, TurnGAE
from hiper.verify.tabular import Process, Trajectories, Values, enumerate_trajectories, exact_gradient, exact_values

TOLERANCE = 1e-9
"""Largest difference that rounding explains."""
LAMBDAS = (0.0, 0.5, 0.8, 0.95, 1.0)
HORIZONS = (2, 3, 4, 5, 6)
SWITCH_RATES = (0.8, 0.5, 0.25, 0.1)
ERRORS = (0.0, 0.1, 0.3, 1.0)
"""Standard deviations of the errors of wrong values; rewards have 1."""
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Moments:
    """Of the gradient that one trajectory estimates."""

    mean_N: Floats
    variance_N: Floats

    @property
    def variance(self) -> float:
        """Trace of the covariance matrix."""
        return float(self.variance_N.sum())


@dataclass(frozen=True)
class Unbiased:
    """Whether an estimator's expectation is the gradient."""

    estimator: str
    cases: int
    """Processes and lambdas tried."""
    largest_error: float
    """Of any component, in any case."""
    claimed: bool
    """It is claimed to be zero."""

    @property
    def holds(self) -> bool:
        """Up to rounding."""
        return self.largest_error <= TOLERANCE


@dataclass(frozen=True)
class Variance:
    """Variances at one setting, summed over processes."""

    turns: int
    switch_rate: float
    segment_turns: float
    """Expected turns of a segment."""
    lambda_: float
    hae: float
    flat: float
    hae_by_decision: tuple[float, float, float]
    """What switches, subgoals and actions contribute."""
    flat_by_decision: tuple[float, float, float]

    @property
    def ratio(self) -> float:
        """Below one, HAE varies less."""
        return self.hae / self.flat


@dataclass(frozen=True)
class Bias:
    """How far the expectation is from the gradient with wrong values, relative to the gradient's length."""

    error: float
    """Standard deviation of the values' errors."""
    lambda_: float
    hae: float
    flat: float


def moments(trajectories: Trajectories, credit: Credit) -> Moments:
    """Over all trajectories, each with its probability."""
    gradient_BN = trajectories.gradients(credit)
    mean_N = trajectories.prob_B @ gradient_BN
    return Moments(mean_N, trajectories.prob_B @ (gradient_BN - mean_N) ** 2)


def estimate(trajectories: Trajectories, values: Values, estimator: Estimator) -> Moments:
    """Of an estimator that is given these values."""
    return moments(trajectories, estimator(trajectories.turns(values, flat=isinstance(estimator, TurnGAE))))


def hae(process: Process, lambda_: float, lambda_seg: float | None = None) -> HAE:
    """HAE with one lambda on both levels, or two."""
    return HAE(process.gamma, lambda_, lambda_ if lambda_seg is None else lambda_seg)


def flat_gae(process: Process, lambda_: float) -> TurnGAE:
    """Turn-level GAE with the same."""
    return TurnGAE(process.gamma, lambda_, normalize=False)


def check_unbiased(seeds: Sequence[int] = SEEDS) -> list[Unbiased]:
    """Compare expectations with the exact gradient, over discounts and pairs of lambdas."""
    errors: dict[str, list[float]] = {}
    for seed, gamma in product(seeds, (1.0, 0.9)):
        process = Process.random(seed, gamma=gamma)
        trajectories, values, exact_N = enumerate_trajectories(process), exact_values(process), exact_gradient(process)

        def error(estimator: Estimator) -> float:
            mean_N = estimate(trajectories, values, estimator).mean_N  # noqa: B023
            return float(np.abs(mean_N - exact_N).max())  # noqa: B023

        for lambda_, lambda_seg in product((0.0, 0.7, 1.0), (0.0, 0.95, 1.0)):
            errors.setdefault("HAE, termination-value", []).append(error(hae(process, lambda_, lambda_seg)))
            errors.setdefault("HAE, value-gap", []).append(error(HAE(gamma, lambda_, lambda_seg, "value-gap")))
        for lambda_ in LAMBDAS:
            errors.setdefault("HAE, one time scale", []).append(error(HAE(gamma, lambda_, time_scales="one")))
            errors.setdefault("turn-level GAE", []).append(error(flat_gae(process, lambda_)))
    return [Unbiased(name, len(found), max(found), name != "HAE, value-gap") for name, found in errors.items()]


def value_gap_share(seed: int = 0) -> Floats:
    """What the value-gap form expects of each switch parameter's gradient, over the gradient itself, over beta.

    All ones: the form is short by the factor beta, see :func:`hiper.advantages.hae.HAE`.
    """
    process = Process.random(seed)
    mean_N = estimate(
        enumerate_trajectories(process), exact_values(process), HAE(process.gamma, switch_form="value-gap")
    ).mean_N
    shape = process.switch_SH.shape
    size = process.switch_SH.size
    found_SH, exact_SH = mean_N[:size].reshape(shape), exact_gradient(process)[:size].reshape(shape)
    # Before the first subgoal nothing hangs on what is said, and the gradient is zero.
    share: Floats = (found_SH / process.switch_prob_SH)[:, :-1] / exact_SH[:, :-1]
    return share


def sweep_variance(
    horizons: Sequence[int] = HORIZONS,
    switch_rates: Sequence[float] = SWITCH_RATES,
    lambdas: Sequence[float] = LAMBDAS,
    seeds: Sequence[int] = SEEDS,
) -> list[Variance]:
    """By horizon at the second switch rate, by switch rate at the longest horizon; only the policy is random."""
    settings = [(turns, switch_rates[1]) for turns in horizons[:-1]] + [(horizons[-1], rate) for rate in switch_rates]
    return [row for turns, rate in settings for row in _variances(turns, rate, lambdas, seeds)]


def _variances(turns: int, rate: float, lambdas: Sequence[float], seeds: Sequence[int]) -> list[Variance]:
    processes = [Process.random(seed, turns=turns, branches=1, switch_rate=rate) for seed in seeds]
    parts = {lambda_: np.zeros((2, 3)) for lambda_ in lambdas}
    lengths = []
    for process in processes:
        trajectories, values = enumerate_trajectories(process), exact_values(process)
        lengths.append(trajectories.segment_turns)
        for lambda_ in lambdas:
            estimators: tuple[Estimator, ...] = (hae(process, lambda_), flat_gae(process, lambda_))
            for side, estimator in enumerate(estimators):
                parts[lambda_][side] += by_decision(process, estimate(trajectories, values, estimator).variance_N)
    return [
        Variance(turns, rate, float(np.mean(lengths)), lambda_, *both.sum(axis=1).tolist(), *map(tuple, both.tolist()))
        for lambda_, both in parts.items()
    ]


def by_decision(process: Process, per_parameter_N: Floats) -> Floats:
    """(3,) sums over the parameters of switches, subgoals and actions."""
    cuts = np.cumsum([process.switch_SH.size, process.subgoal_SG.size])
    return np.array([part.sum() for part in np.split(per_parameter_N, cuts)])


def sweep_bias(
    errors: Sequence[float] = ERRORS, lambdas: Sequence[float] = LAMBDAS, seeds: Sequence[int] = SEEDS
) -> list[Bias]:
    """Bias with wrong values, the mean over processes."""
    found: dict[tuple[float, float], list[Floats]] = {}
    for seed in seeds:
        process = Process.random(seed)
        trajectories, values, exact_N = enumerate_trajectories(process), exact_values(process), exact_gradient(process)
        for error, lambda_ in product(errors, lambdas):
            wrong = values.disturbed(seed, error)
            estimators: tuple[Estimator, ...] = (hae(process, lambda_), flat_gae(process, lambda_))
            off = [np.linalg.norm(estimate(trajectories, wrong, e).mean_N - exact_N) for e in estimators]
            found.setdefault((error, lambda_), []).append(np.array(off) / np.linalg.norm(exact_N))
    return [Bias(*key, *np.mean(pairs, axis=0).tolist()) for key, pairs in found.items()]
