"""The scores that methods without a critic compare within groups, and their statistics.

Legend: N turns or episodes, in any order; G groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiper.advantages.checks import needed
from hiper.advantages.types import Floats, Ints, Turns

Statistics: TypeAlias = Literal["turns", "episodes"]
"""The entries of a group's mean and standard deviation: all turns of its episodes, or its episodes once each. Long
episodes weigh more over turns, which is the reference's default."""

EPSILON = 1e-6
"""The term added to a group's standard deviation, as in the reference."""


@dataclass(frozen=True)
class GroupStatistics:
    """The statistics of each entry's own group."""

    count_N: Ints
    mean_N: Floats
    std_N: Floats
    """The root of the unbiased variance; 1 in a group of one."""

    @property
    def divisor_N(self) -> Floats:
        """The divisor that makes groups comparable: std + epsilon, or 1 where all entries of a group are equal."""
        return np.where(self.std_N < EPSILON, 1.0, self.std_N + EPSILON)


def statistics_within(x_N: Floats, group_N: NDArray[np.int64]) -> GroupStatistics:
    """Compute the statistics of ``x_N`` within each group, and give them to each entry of the group."""
    _, group_N, count_G = np.unique(group_N, return_inverse=True, return_counts=True)
    mean_G = np.bincount(group_N, x_N) / count_G
    square_G = np.bincount(group_N, (x_N - mean_G[group_N]) ** 2)
    std_G = np.where(count_G > 1, np.sqrt(square_G / np.maximum(1, count_G - 1)), 1.0)
    return GroupStatistics(count_G[group_N], mean_G[group_N], std_G[group_N])


def group_statistics(turns: Turns, statistics: Statistics, who: str) -> tuple[Floats, GroupStatistics]:
    """Return the scores (N,) of all turns played, in row-major order, and the statistics of their groups.

    A turn's score is the sum of its episode's rewards, without the form penalties of other turns.

    Args:
        turns: The episodes.
        statistics: The entries that statistics run over.
        who: The estimator, for messages.

    Raises:
        ValueError: ``turns`` has no groups.
    """
    group_B = needed(turns.group_B, "group_B", who)
    paid_BT, penalty_BT = paid_and_penalty(turns)
    paid_B = paid_BT.sum(axis=1)
    score_N = (paid_B[:, None] + penalty_BT)[turns.mask_BT]
    episode_N = np.nonzero(turns.mask_BT)[0]
    if statistics == "turns":
        return score_N, statistics_within(score_N, group_B[episode_N])
    of_B = statistics_within(paid_B, group_B)
    return score_N, GroupStatistics(of_B.count_N[episode_N], of_B.mean_N[episode_N], of_B.std_N[episode_N])


def paid_and_penalty(turns: Turns) -> tuple[Floats, Floats]:
    """Split the reward of each turn (B, T) into the part without form penalties, and the penalties."""
    penalty_BT = np.zeros_like(turns.reward_BT) if turns.penalty_BT is None else turns.penalty_BT
    return turns.reward_BT - penalty_BT, penalty_BT
