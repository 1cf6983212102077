"""Exact expectation and variance of the policy gradient under each estimator, on tabular processes.

With exact values, every estimate except that of the value-gap form is unbiased at any lambda. The reason: where a trace
is cut, the value that replaces the rest of it is that rest's exact expectation.

Everything else is measured on many processes, because processes differ:

- the variance of HAE beside that of flat GAE at equal lambda, by horizon and by length of segments,
- the bias of both with wrong values,
- the angle between gradient and expectation where training departs from what is proved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np

from hiper.advantages import HAE, Bools, Credit, Estimator, Floats, TurnGAE
from hiper.analysis.proofs.tabular import (
    DecisionProcess,
    Trajectories,
    Values,
    enumerate_trajectories,
    exact_gradient,
    exact_values,
)

TOLERANCE = 1e-9
"""Largest difference that counts as rounding."""
LAMBDAS = (0.0, 0.5, 0.8, 0.95, 1.0)
HORIZONS = (2, 3, 4, 5, 6)
CHANCE_TURNS = 4
"""The longest horizon that is also tried with actions that lead to two states: chance multiplies trajectories."""
SWITCH_RATES = (0.8, 0.5, 0.25, 0.1)
BOUNDARY_LAMBDAS = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)
ERRORS = (1.0,)
"""Standard deviations of the errors of wrong values; that of rewards is 1. Bias is proportional to them."""
ENDS = 0.5
"""Upper bound of the probability that an action ends the episode, where episodes differ in length."""
PROOF_SEEDS = (0, 1, 2)
"""One process per seed. What holds exactly needs few."""
SEEDS = tuple(range(20))
"""One process per seed. Measurements differ between processes, so they need more."""
UNCLAIMED = "HAE, value-gap"

PerDecision = tuple[float, float, float]
"""One number each for switches, subgoals and actions."""


class Quartiles(NamedTuple):
    """Median and quartiles of a number over processes."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: Sequence[float] | Floats) -> Quartiles:
        """Compute them from one number per process."""
        low, median, high = np.percentile(numbers, [25, 50, 75]).tolist()
        return cls(median, low, high)


@dataclass(frozen=True)
class Moments:
    """Mean and variance of the gradient that one trajectory estimates."""

    mean_N: Floats
    variance_N: Floats

    @property
    def variance(self) -> float:
        """The trace of the covariance matrix."""
        return float(self.variance_N.sum())


@dataclass(frozen=True)
class Unbiased:
    """The largest difference between an estimator's expectation and the gradient."""

    estimator: str
    cases: int
    """Number of combinations of process and lambdas that were tried."""
    largest_error: float
    """Largest absolute error of any component in any case."""
    claimed: bool
    """Whether the error is claimed to be zero."""

    @property
    def holds(self) -> bool:
        """Whether the error is zero up to rounding."""
        return self.largest_error <= TOLERANCE


@dataclass(frozen=True)
class Variance:
    """Variances at one setting, one per process."""

    turns: int
    branches: int
    """Number of states that an action may lead to; 1: only the policy is random."""
    switch_rate: float
    segment_turns: float
    """Expected length of a segment in turns."""
    lambda_: float
    hae: tuple[PerDecision, ...]
    flat: tuple[PerDecision, ...]

    @property
    def hae_total(self) -> Floats:
        """The variance of HAE over all decisions, per process."""
        total: Floats = np.array(self.hae).sum(axis=1)
        return total

    @property
    def flat_total(self) -> Floats:
        """The variance of flat GAE over all decisions, per process."""
        total: Floats = np.array(self.flat).sum(axis=1)
        return total

    @property
    def ratios(self) -> Floats:
        """HAE's variance over flat GAE's, per process; below one, HAE varies less.

        Sums over processes would be dominated by a single one, because their scales differ too much.
        """
        return self.hae_total / self.flat_total


@dataclass(frozen=True)
class Bias:
    """Distance of the expectation from the gradient with wrong values, relative to the gradient's length."""

    error: float
    """Standard deviation of the errors of values."""
    lambda_: float
    hae: tuple[float, ...]
    """One number per process, as in ``flat``."""
    flat: tuple[float, ...]


@dataclass(frozen=True)
class Passing:
    """Variance and bias, per process, when traces pass the ends of segments; all other settings are HAE's defaults."""

    lambda_boundary: float
    ratios: tuple[float, ...]
    """HAE's variance over that of flat GAE at lambda 1."""
    biases: tuple[float, ...]
    """Bias relative to the gradient's length, with values whose error varies as much as rewards do."""


@dataclass(frozen=True)
class Departure:
    """The angle by which a departure of training from the proofs turns the expected gradient, with exact values."""

    what: str
    cosines: tuple[float, ...]
    """Cosine of the angle between expectation and gradient, per process."""


def moments(trajectories: Trajectories, credit: Credit) -> Moments:
    """Compute mean and variance of the gradient over all trajectories, each with its probability."""
    gradient_BN = trajectories.gradients(credit)
    mean_N = trajectories.prob_B @ gradient_BN
    return Moments(mean_N, trajectories.prob_B @ (gradient_BN - mean_N) ** 2)


def estimate(trajectories: Trajectories, values: Values, estimator: Estimator) -> Moments:
    """Compute mean and variance of the gradient under an estimator with these values."""
    return moments(trajectories, estimator(trajectories.turns(values)))


def hae(process: DecisionProcess, lambda_: float, lambda_seg: float | None = None) -> HAE:
    """Make HAE with one lambda for both levels, or with two."""
    return HAE(process.gamma, lambda_, lambda_ if lambda_seg is None else lambda_seg)


def flat_gae(process: DecisionProcess, lambda_: float) -> TurnGAE:
    """Make turn-level GAE with the discount of the process and this lambda."""
    return TurnGAE(process.gamma, lambda_, normalize=False)


def check_unbiased(seeds: Sequence[int] = PROOF_SEEDS) -> list[Unbiased]:
    """Compare expectations with the exact gradient, over discounts and pairs of lambdas.

    Episodes have one length in some processes and several lengths in others.
    """
    errors: dict[str, list[float]] = {}
    for seed, gamma, ends in product(seeds, (1.0, 0.9), (0.0, ENDS)):
        process = DecisionProcess.random(seed, gamma=gamma, ends=ends)
        trajectories, values, exact_N = enumerate_trajectories(process), exact_values(process), exact_gradient(process)
        turns = trajectories.turns(values)
        cut = trajectories.turns(values, cut=True)
        kept = replace(turns, v_low_BT=trajectories.kept_low(values))
        found: list[tuple[str, Credit]] = []
        for lambda_, lambda_seg in product((0.0, 0.7, 1.0), (0.0, 0.95, 1.0)):
            ours = hae(process, lambda_, lambda_seg)
            gap = replace(ours, switch_form="value-gap")
            found.append(("HAE, termination-value", ours(turns)))
            found.append((UNCLAIMED, gap(turns)))
            found.append((f"{UNCLAIMED} to the kept subgoal", replace(ours(turns), switch_BT=gap(kept).switch_BT)))
            found.append(("HAE, cut episodes as ended", replace(ours, bootstrap_truncated=False)(cut)))
            for passed in (0.5, 1.0):
                found.append(("HAE, traces pass boundaries", replace(ours, lambda_boundary=passed)(turns)))
        for lambda_ in LAMBDAS:
            found.append(("HAE, one time scale", HAE(gamma, lambda_, time_scales="one")(turns)))
            found.append(("turn-level GAE", flat_gae(process, lambda_)(turns)))
        for name, credit in found:
            error_N = trajectories.prob_B @ trajectories.gradients(credit) - exact_N
            errors.setdefault(name, []).append(float(np.abs(error_N).max()))
    return [Unbiased(name, len(found), max(found), name != UNCLAIMED) for name, found in errors.items()]


def value_gap_share(seed: int = 0) -> Floats:
    """Divide the value-gap form's expected gradient of each switch parameter by beta times the exact gradient.

    All ones mean that the form is too small by the factor beta; see :func:`hiper.advantages.hae.HAE`.
    """
    process = DecisionProcess.random(seed)
    mean_N = estimate(
        enumerate_trajectories(process), exact_values(process), HAE(process.gamma, switch_form="value-gap")
    ).mean_N
    shape = process.switch_SH.shape
    size = process.switch_SH.size
    found_SH, exact_SH = mean_N[:size].reshape(shape), exact_gradient(process)[:size].reshape(shape)
    # Before the first subgoal KEEP and SWITCH have the same effect, and the gradient is zero.
    share: Floats = (found_SH / process.switch_prob_SH)[:, :-1] / exact_SH[:, :-1]
    return share


def sweep_variance(
    horizons: Sequence[int] = HORIZONS,
    switch_rates: Sequence[float] = SWITCH_RATES,
    lambdas: Sequence[float] = LAMBDAS,
    seeds: Sequence[int] = SEEDS,
) -> list[Variance]:
    """Measure variances by horizon at the second switch rate, and by switch rate at the last horizon but one.

    The sweep by horizon is done with deterministic actions, then with actions that have random effects.
    """
    usual = switch_rates[1]
    settings = [(turns, 1, usual) for turns in horizons]
    settings += [(turns, 2, usual) for turns in horizons if turns <= CHANCE_TURNS]
    settings += [(horizons[-2], 1, rate) for rate in switch_rates if rate != usual]
    return [row for setting in settings for row in _variances(*setting, lambdas, seeds)]


def _variances(
    turns: int, branches: int, rate: float, lambdas: Sequence[float], seeds: Sequence[int]
) -> list[Variance]:
    found: dict[float, list[tuple[PerDecision, PerDecision]]] = {lambda_: [] for lambda_ in lambdas}
    for seed in seeds:
        process = DecisionProcess.random(seed, turns=turns, branches=branches, switch_rate=rate)
        trajectories, values = enumerate_trajectories(process), exact_values(process)
        batch = trajectories.turns(values)
        for lambda_, rows in found.items():
            credits = hae(process, lambda_)(batch), flat_gae(process, lambda_)(batch)
            own, flat = (by_decision(process, moments(trajectories, credit).variance_N) for credit in credits)
            rows.append((own, flat))
    # It is the same in all processes, because SWITCH has the same probability in all of them.
    segment_turns = trajectories.segment_turns
    return [
        Variance(turns, branches, rate, segment_turns, lambda_, *zip(*rows, strict=True))
        for lambda_, rows in found.items()
    ]


def by_decision(process: DecisionProcess, per_parameter_N: Floats) -> PerDecision:
    """Sum a number per parameter over the parameters of switches, of subgoals and of actions."""
    cuts = np.cumsum([process.switch_SH.size, process.subgoal_SG.size])
    switch, subgoal, action = (float(part.sum()) for part in np.split(per_parameter_N, cuts))
    return switch, subgoal, action


def sweep_bias(
    errors: Sequence[float] = ERRORS, lambdas: Sequence[float] = LAMBDAS, seeds: Sequence[int] = SEEDS
) -> list[Bias]:
    """Measure the bias with wrong values."""
    found: dict[tuple[float, float], list[list[float]]] = {}
    for seed in seeds:
        process = DecisionProcess.random(seed)
        trajectories, values, exact_N = enumerate_trajectories(process), exact_values(process), exact_gradient(process)
        for error, lambda_ in product(errors, lambdas):
            wrong = values.disturbed(seed, error)
            estimators: tuple[Estimator, ...] = (hae(process, lambda_), flat_gae(process, lambda_))
            off = [np.linalg.norm(estimate(trajectories, wrong, e).mean_N - exact_N) for e in estimators]
            found.setdefault((error, lambda_), []).append((np.array(off) / np.linalg.norm(exact_N)).tolist())
    return [Bias(*key, *map(tuple, zip(*pairs, strict=True))) for key, pairs in found.items()]


def sweep_passing(
    lambdas: Sequence[float] = BOUNDARY_LAMBDAS, turns: int = HORIZONS[-2], seeds: Sequence[int] = SEEDS
) -> list[Passing]:
    """Measure variance and bias by the share of a trace that passes boundaries; 0 is the paper's HAE."""
    found: dict[float, list[tuple[float, float]]] = {}
    for seed in seeds:
        process = DecisionProcess.random(seed, turns=turns, branches=1)
        trajectories, values, exact_N = enumerate_trajectories(process), exact_values(process), exact_gradient(process)
        wrong = values.disturbed(seed, ERRORS[-1])
        flat = estimate(trajectories, values, flat_gae(process, 1.0)).variance
        for lambda_ in lambdas:
            passing = HAE(process.gamma, lambda_boundary=lambda_)
            off = np.linalg.norm(estimate(trajectories, wrong, passing).mean_N - exact_N) / np.linalg.norm(exact_N)
            ratio = estimate(trajectories, values, passing).variance / flat
            found.setdefault(lambda_, []).append((ratio, float(off)))
    return [Passing(lambda_, *zip(*pairs, strict=True)) for lambda_, pairs in found.items()]


def measure_departures(seeds: Sequence[int] = SEEDS) -> list[Departure]:
    """Measure what training does that no proof covers, at the published lambdas and a discount of 0.95.

    Truncated episodes are compared with the gradient of a process that lasts twice as long. Their bootstrap uses the
    value before the last turn's action, which contains nothing about that action.
    """
    cosines: dict[str, list[float]] = {}
    for seed in seeds:
        process = DecisionProcess.random(seed, gamma=0.95, ends=ENDS)
        trajectories, values, exact_N = enumerate_trajectories(process), exact_values(process), exact_gradient(process)
        estimator = HAE(process.gamma)
        credit = estimator(trajectories.turns(values))
        scaled = normalized_in_a_large_batch(trajectories, credit)
        rest_SH = values.switch_TSH[0]
        longer_N = exact_gradient(process, rest_SH)
        going_on = estimator(trajectories.turns(exact_values(process, rest_SH), cut=True))
        for what, found_BN, aim_N in (
            ("gamma^t left out", trajectories.gradients(credit, discounted=False), exact_N),
            ("three advantages normalised", trajectories.gradients(scaled), exact_N),
            ("cut episodes bootstrapped", trajectories.gradients(going_on), longer_N),
            ("cut episodes as ended", trajectories.gradients(credit), longer_N),
        ):
            mean_N = trajectories.prob_B @ found_BN
            cosine = mean_N @ aim_N / (np.linalg.norm(mean_N) * np.linalg.norm(aim_N))
            cosines.setdefault(what, []).append(float(cosine))
    return [Departure(what, tuple(found)) for what, found in cosines.items()]


def normalized_in_a_large_batch(trajectories: Trajectories, credit: Credit) -> Credit:
    """Divide each kind of advantage by its standard deviation; its mean stays, because it acts as a baseline."""
    mask_BT, boundary_BT = trajectories.mask_BT, trajectories.boundary_BT

    def scaled(x_BT: Floats, used_BT: Bools) -> Floats:
        weight_BT = trajectories.prob_B[:, None] * used_BT
        mean = np.average(x_BT, weights=weight_BT)
        deviation: float = np.sqrt(np.average((x_BT - mean) ** 2, weights=weight_BT))
        return x_BT / deviation

    return replace(
        credit,
        low_BT=scaled(credit.low_BT, mask_BT),
        high_BT=scaled(credit.high_BT, boundary_BT),
        switch_BT=scaled(credit.switch_BT, mask_BT),
    )
