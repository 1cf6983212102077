"""REINFORCE leave-one-out (RLOO): an episode's score is compared with the mean of the others in its group.

Source: Kool et al., "Buy 4 REINFORCE Samples, Get a Baseline for Free!" (2019); Ahmadian et al., "Back to Basics"
(arXiv 2402.14740). With n scores S in a group,

    A(t) = S(t) - mean of the others = n / (n - 1) * (S(t) - mean of all)

The reference leaves out the turn rather than its episode (``statistics: turns``). The other turns of the same episode,
whose scores are the same, then stay in the baseline. In a group of one, A(t) = S(t).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hiper.advantages.checks import check_choices, on_grid
from hiper.advantages.estimator import Estimator
from hiper.advantages.groups import Statistics, group_statistics, paid_and_penalty
from hiper.advantages.types import Credit, Turns


@dataclass(frozen=True)
class RLOO(Estimator):
    """REINFORCE leave-one-out. The module's docstring states the formula.

    Raises:
        UserError: A parameter is unknown.
    """

    type: ClassVar[str] = "rloo"
    grouped: ClassVar[bool] = True

    statistics: Statistics = "turns"
    """Whether a turn or a whole episode is left out of the mean."""

    def __post_init__(self) -> None:
        check_choices(self, statistics=Statistics)

    def __call__(self, turns: Turns) -> Credit:
        """Compute one advantage a turn, the same for all its decisions.

        Raises:
            ValueError: ``turns`` has no groups.
        """
        score_N, group = group_statistics(turns, self.statistics, "RLOO")
        # Over episodes, penalties of form are in neither the score nor the mean, and are charged afterwards.
        own_N = paid_and_penalty(turns)[1][turns.mask_BT] if self.statistics == "episodes" else 0.0
        others = group.count_N / np.maximum(1, group.count_N - 1)
        advantage_N = np.where(group.count_N > 1, others * (score_N - own_N - group.mean_N) + own_N, score_N)
        return Credit.of_responses(turns, on_grid(advantage_N, turns.mask_BT))
