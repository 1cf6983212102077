"""What methods without a critic compare: the scores of turns and episodes, within groups.

Legend: N turns or episodes, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiper.advantages.checks import needed
from hiper.advantages.types import Floats, Ints, Turns

Statistics: TypeAlias = Literal["turns", "episodes"]
"""What a group's mean and standard deviation run over: all turns of its episodes, so that long episodes weigh more (the
reference's default), or its episodes, each once."""

EPSILON = 1e-6
"""Added to a group's standard deviation, as the reference does."""


@dataclass(frozen=True)
class Spread:
    """Statistics of each entry's own group."""

    count_N: Ints
    mean_N: Floats
    std_N: Floats
    """With unbiased variance; 1 in a group of one."""

    @property
    def divisor_N(self) -> Floats:
        """Numbers of the group are divided by this to be comparable with those of others; 1 where all are equal."""
        return np.where(self.std_N < EPSILON, 1.0, self.std_N + EPSILON)


def spread_within(x_N: Floats, group_N: NDArray[np.int64]) -> Spread:
    """Statistics of ``x_N`` within each group, given to each entry of the group."""
    _, group_N, count_G = np.unique(group_N, return_inverse=True, return_counts=True)
    mean_G = np.bincount(group_N, x_N) / count_G
    square_G = np.bincount(group_N, (x_N - mean_G[group_N]) ** 2)
    std_G = np.where(count_G > 1, np.sqrt(square_G / np.maximum(1, count_G - 1)), 1.0)
    return Spread(count_G[group_N], mean_G[group_N], std_G[group_N])


def group_spread(turns: Turns, statistics: Statistics, who: str) -> tuple[Floats, Spread]:
    """Scores (N,) of all turns played, in row-major order, and what their groups' scores are like.

    A turn's score is what its episode was paid in all, without the form penalties of other turns.

    Raises:
        ValueError: ``turns`` has no groups.
    """
    group_B = needed(turns.group_B, "group_B", who)
    paid_BT, penalty_BT = paid_and_penalty(turns)
    paid_B = paid_BT.sum(axis=1)
    score_N = (paid_B[:, None] + penalty_BT)[turns.mask_BT]
    episode_N = np.nonzero(turns.mask_BT)[0]
    if statistics == "turns":
        return score_N, spread_within(score_N, group_B[episode_N])
    spread_B = spread_within(paid_B, group_B)
    return score_N, Spread(spread_B.count_N[episode_N], spread_B.mean_N[episode_N], spread_B.std_N[episode_N])


def paid_and_penalty(turns: Turns) -> tuple[Floats, Floats]:
    """The reward of each turn (B, T) without what its own form cost, and that."""
    penalty_BT = np.zeros_like(turns.reward_BT) if turns.penalty_BT is None else turns.penalty_BT
    return turns.reward_BT - penalty_BT, penalty_BT


def on_grid(x_N: Floats, turns: Turns) -> Floats:
    """(B, T) from one number per turn played, in row-major order; zero beyond each episode's end."""
    x_BT = np.zeros(turns.mask_BT.shape)
    x_BT[turns.mask_BT] = x_N
    return x_BT
