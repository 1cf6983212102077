"""Group-relative policy optimisation (GRPO): an episode is judged by how its score compares within its group.

Source: Shao et al., "DeepSeekMath" (arXiv 2402.03300); without the standard deviation: Liu et al., "Understanding
R1-Zero-Like Training" (arXiv 2503.20783); over turns of agents: the implementation that comes with GiGPO
(arXiv 2505.10978), which HiPER's baselines use.

    A(t) = (S(t) - mean) / (std + epsilon),    S(t) = what the episode was paid in all + what the form of turn t cost

Every turn of an episode gets the same but for penalties of form, which are charged to the turn they are for. In a group
of one, mean is 0 and std 1: nothing is known to compare with.

Where all of a group's scores are equal there is nothing to divide by, and over ``episodes`` a penalty is charged as it
is. Over ``turns``, penalties are part of the spread, and in a group that was lost or won throughout they are all of it:
one turn of N that pays for its form then gets about -sqrt(N), as in the reference, however small the penalty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from hiper.advantages.groups import Statistics, group_spread, on_grid
from hiper.advantages.parameters import check_choices
from hiper.advantages.types import Credit, Critic, Turns


@dataclass(frozen=True)
class GRPO:
    """See the module.

    Raises:
        UserError: a parameter is unknown.
    """

    critic: ClassVar[Critic] = "none"
    grouped: ClassVar[bool] = True

    type: Literal["grpo"] = field(default="grpo", kw_only=True)
    scale: bool = True
    """Divide by the group's standard deviation."""
    statistics: Statistics = "turns"

    def __post_init__(self) -> None:
        check_choices(self, statistics=Statistics)

    def __call__(self, turns: Turns) -> Credit:
        """The same advantage for all decisions of a turn.

        Raises:
            ValueError: ``turns`` has no groups.
        """
        score_N, spread = group_spread(turns, self.statistics, "GRPO")
        advantage_N = score_N - np.where(spread.count_N > 1, spread.mean_N, 0.0)
        if self.scale:
            advantage_N /= spread.divisor_N
        return Credit.of_responses(turns, on_grid(advantage_N, turns))
