"""REINFORCE leave-one-out (RLOO): an episode is judged against the mean of the others in its group.

Source: Kool et al., "Buy 4 REINFORCE Samples, Get a Baseline for Free!" (2019); Ahmadian et al., "Back to Basics"
(arXiv 2402.14740). With n scores S in a group,

    A(t) = S(t) - mean of the others = n / (n - 1) * (S(t) - mean of all)

The reference leaves out the turn itself rather than its episode (``statistics: turns``), so that the other turns of the
same episode, whose scores are the same, stay in the baseline. In a group of one, A(t) = S(t).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from hiper.advantages.groups import Statistics, group_spread, on_grid, paid_and_penalty
from hiper.advantages.parameters import check_choices
from hiper.advantages.types import Credit, Critic, Turns


@dataclass(frozen=True)
class RLOO:
    """See the module.

    Raises:
        UserError: a parameter is unknown.
    """

    critic: ClassVar[Critic] = "none"
    grouped: ClassVar[bool] = True

    type: Literal["rloo"] = field(default="rloo", kw_only=True)
    statistics: Statistics = "turns"

    def __post_init__(self) -> None:
        check_choices(self, statistics=Statistics)

    def __call__(self, turns: Turns) -> Credit:
        """The same advantage for all decisions of a turn.

        Raises:
            ValueError: ``turns`` has no groups.
        """
        score_N, spread = group_spread(turns, self.statistics, "RLOO")
        # Over episodes, a penalty of form is no part of what is left out, nor of what it is compared with.
        own_N = paid_and_penalty(turns)[1][turns.mask_BT] if self.statistics == "episodes" else 0.0
        others = spread.count_N / np.maximum(1, spread.count_N - 1)
        advantage_N = np.where(spread.count_N > 1, others * (score_N - own_N - spread.mean_N) + own_N, score_N)
        return Credit.of_responses(turns, on_grid(advantage_N, turns))
