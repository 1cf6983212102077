"""What can be checked on the episodes of a real run, where no value is exact: a seeded bootstrap over episodes, or over
groups of episodes of one task, where there are any.

Two things are expected of a critic that is nearly right. The target of the switch decision, which stops at the next
boundary and goes on with V_high, agrees on average with the return to the episode's end: that a difference is seen
speaks against V_high, that none is seen may be for want of episodes. (A truncated episode goes on being worth its value
at hand in both, which is that of its last boundary and not exactly what comes next: with many of them, a small
difference says little.) And the advantages vary less than those of flat GAE with the same lambda, as they do on most
small processes where lambda is near one and episodes are long; no proof asks it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hiper.advantages import Bools, Estimator, Floats, Ints, TurnGAE, Turns
from hiper.analysis.stored import two_scales
from hiper.errors import UserError

DRAWS = 2000


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
    """What a run's episodes say."""

    episodes: int
    turns: int
    truncated: int
    """Episodes that were, see the module."""
    target_difference: Interval
    """Mean over turns of the switch decision's target minus the return to the end: zero if V_high is right and no
    episode was truncated."""
    variance_ratio: Interval
    """Mean square of HAE's advantages over all decisions made, over that of flat GAE's on the same decisions."""

    @property
    def target_verdict(self) -> Literal["no difference seen", "differs"]:
        """Whether the interval holds zero."""
        return "no difference seen" if 0.0 in self.target_difference else "differs"

    @property
    def variance_verdict(self) -> Literal["smaller", "cannot tell", "larger"]:
        """HAE's beside flat GAE's, where the whole interval lies on one side of one."""
        if 1.0 in self.variance_ratio:
            return "cannot tell"
        return "smaller" if self.variance_ratio.high < 1.0 else "larger"


def check_episodes(turns: Turns, like: Estimator, seed: int = 0) -> EpisodeCheck:
    """Resample groups with replacement, :data:`DRAWS` times; without groups, episodes.

    Args:
        turns: the episodes, with the values of all decisions and of a flat critic.
        like: gamma, lambdas and bootstrap are taken from it; flat GAE gets ``lambda_turn``.
        seed: of the resampling.

    Raises:
        UserError: there is one group alone, or hardly any episode has a reward or a value other than zero.
    """
    hae = two_scales(like)
    to_boundary = replace(hae, lambda_boundary=0.0)  # what rests on V_high there, and on nothing after
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
            "the episodes are all of one task, which says nothing of others: train with more in an iteration, or "
            "verify without a run"
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
            "few have a reward or a value to compare by; train on, or verify without a run"
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
    """Sum over sum, with the percentiles of its bootstrap."""
    drawn = above_G[draws].sum(axis=1) / below_G[draws].sum(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
    return Interval(float(above_G.sum() / below_G.sum()), low, high)
