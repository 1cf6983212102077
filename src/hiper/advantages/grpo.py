"""Group-relative policy optimisation (GRPO): an episode's score is compared within its group.

Source: Shao et al., "DeepSeekMath" (arXiv 2402.03300); without the standard deviation: Liu et al., "Understanding
R1-Zero-Like Training" (arXiv 2503.20783); over turns of agents: the implementation that comes with GiGPO
(arXiv 2505.10978), which HiPER's baselines use.

    A(t) = (S(t) - mean) / (std + epsilon),    S(t) = the episode's reward without penalties + the penalty of turn t

Every turn of an episode gets the same, apart from penalties of form: each is charged to its own turn. A group of one
has nothing to compare with; its mean is taken as 0 and its std as 1.

If all scores of a group are equal, nothing is divided. Over ``episodes``, a penalty is then charged as it is. Over
``turns``, penalties are part of the deviation. In a group whose episodes were all lost or all won they are all of it:
one turn of N that pays a penalty gets about -sqrt(N), however small the penalty. The reference does the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from hiper.advantages.checks import check_choices, on_grid
from hiper.advantages.estimator import Estimator
from hiper.advantages.groups import Statistics, group_statistics
from hiper.advantages.types import Credit, Turns


@dataclass(frozen=True)
class GRPO(Estimator):
    """Group-relative policy optimisation. The module's docstring states the formula.

    Raises:
        UserError: A parameter is unknown.
    """

    type: ClassVar[str] = "grpo"
    grouped: ClassVar[bool] = True

    scale: bool = True
    """Divide by the group's standard deviation."""
    statistics: Statistics = "turns"
    """Whether the mean and the deviation run over turns or over episodes."""

    def __post_init__(self) -> None:
        check_choices(self, statistics=Statistics)

    def unscaled(self) -> Self:
        """Return the same estimator without division by the standard deviation."""
        return replace(self, scale=False)

    def __call__(self, turns: Turns) -> Credit:
        """Compute one advantage a turn, the same for all its decisions.

        Raises:
            ValueError: ``turns`` has no groups.
        """
        score_N, group = group_statistics(turns, self.statistics, "GRPO")
        advantage_N = score_N - np.where(group.count_N > 1, group.mean_N, 0.0)
        if self.scale:
            advantage_N /= group.divisor_N
        return Credit.of_responses(turns, on_grid(advantage_N, turns.mask_BT))
