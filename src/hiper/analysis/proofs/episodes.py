"""Checks on the episodes of a real run, where no value is exact: a seeded bootstrap.

The bootstrap resamples groups of episodes of one task, or single episodes where there are no groups. Two things are
expected of a critic that is nearly right:

- The target of the switch decision agrees on average with the return to the episode's end. The target stops at the next
  boundary and continues with V_high, so a difference is evidence against V_high. No difference may
  mean too few episodes.
  Truncated episodes weaken this check: both sides are bootstrapped from the last boundary's value, which is not exact.
- The advantages vary less than those of flat GAE with the same lambda. That holds on most small processes where lambda
  is near one and episodes are long; no proof demands it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hiper.advantages import Bools, Estimator, Floats, Ints, TurnGAE, Turns
from hiper.analysis.stored import two_scales
from hiper.errors import UserError

DRAWS = 2000
"""Bootstrap resamples."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% bootstrap interval."""

    value: float
    low: float
    high: float

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high


@dataclass(frozen=True)
class EpisodeCheck:
    """Outcome of the checks on a run's episodes."""

    episodes: int
    turns: int
    truncated: int
    """Number of truncated episodes, which weaken the first check."""
    target_difference: Interval
    """Mean over turns of the switch decision's target minus the return to the end.

    It is zero if V_high is right and no episode was truncated.
    """
    variance_ratio: Interval
    """Mean square of HAE's advantages over all decisions, divided by that of flat GAE on the same decisions."""

    @property
    def target_verdict(self) -> Literal["no difference seen", "differs"]:
        """Whether the interval contains zero."""
        return "no difference seen" if 0.0 in self.target_difference else "differs"

    @property
    def variance_verdict(self) -> Literal["smaller", "cannot tell", "larger"]:
        """Whether HAE varies less or more than flat GAE; "cannot tell" if the interval contains one."""
        if 1.0 in self.variance_ratio:
            return "cannot tell"
        return "smaller" if self.variance_ratio.high < 1.0 else "larger"


def check_episodes(turns: Turns, like: Estimator, seed: int = 0) -> EpisodeCheck:
    """Resample groups (or single episodes) with replacement, :data:`DRAWS` times.

    Args:
        turns: the episodes, with the values of all decisions and of a flat critic.
        like: estimator whose gamma, lambdas and bootstrap are used; flat GAE gets its ``lambda_turn``.
        seed: seed of the resampling.

    Raises:
        UserError: there is only one group, or almost all rewards and values are zero.
    """
    hae = two_scales(like)
    to_boundary = replace(hae, lambda_boundary=0.0)  # this target uses V_high there, and nothing after it
    gae = TurnGAE(hae.gamma, hae.lambda_turn, hae.bootstrap_truncated, normalize=False)
    ours, theirs = hae(turns), gae(turns)
    to_the_end = replace(hae, lambda_boundary=1.0)(turns).return_switch_BT
    target_BT = to_boundary(turns).return_switch_BT
    assert target_BT is not None
    assert to_the_end is not None
    mask, boundary = turns.mask_BT, turns.boundary_BT
    group_B = np.arange(len(mask)) if turns.group_B is None else np.unique(turns.group_B, return_inverse=True)[1]
    groups = int(group_B.max()) + 1
    if groups < 2:
        raise UserError(
            "all episodes are of one task, and nothing follows for others: train with more tasks in an iteration, "
            "or verify without a run"
        )
    made: list[tuple[Floats, Bools]] = [(ours.low_BT, mask), (ours.high_BT, boundary), (ours.switch_BT, mask)]
    square_B = sum((_sums(advantage**2, used) for advantage, used in made), np.zeros(len(mask)))
    flat_square_B = sum((_sums(theirs.low_BT**2, used) for _, used in made), np.zeros(len(mask)))
    sums_B = (_sums(target_BT - to_the_end, mask), turns.length_B, square_B, flat_square_B)
    difference_G, turns_G, square_G, flat_square_G = (_by_group(of_B, group_B, groups) for of_B in sums_B)

    draws = np.random.default_rng(seed).integers(0, groups, (DRAWS, groups))
    if not flat_square_G[draws].any(axis=1).all():
        raise UserError(
            f"flat GAE's advantages are zero in {np.count_nonzero(flat_square_B == 0)} of {len(mask)} episodes: too "
            "few have a reward or a value to compare; train longer, or verify without a run"
        )
    return EpisodeCheck(
        episodes=len(mask),
        turns=int(mask.sum()),
        truncated=int((~turns.terminated_B).sum()),
        target_difference=_ratio(difference_G, turns_G, draws),
        variance_ratio=_ratio(square_G, flat_square_G, draws),
    )


def _sums(x_BT: Floats, used_BT: Bools) -> Floats:
    sums: Floats = np.where(used_BT, x_BT, 0.0).sum(axis=1)
    return sums


def _by_group(x_B: Floats | Ints, group_B: Ints, groups: int) -> Floats:
    return np.bincount(group_B, x_B, groups).astype(np.float64)


def _ratio(above_G: Floats, below_G: Floats, draws: np.ndarray) -> Interval:
    """Divide sum by sum, with the percentiles of the bootstrap as interval."""
    drawn = above_G[draws].sum(axis=1) / below_G[draws].sum(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
    return Interval(float(above_G.sum() / below_G.sum()), low, high)
