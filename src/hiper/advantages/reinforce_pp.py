"""REINFORCE++: no critic, no groups; returns normalised over the whole batch.

Source: Hu et al., "REINFORCE++" (arXiv 2501.03262).

    A(t) = (R(t) - mean) / (std + epsilon),    R(t) = sum_i gamma^i r_{t+i} + the penalty of turn t

The r_t are rewards without penalties of form. Mean and (unbiased) variance run over all turns of the batch.

Two departures from the paper. Its KL penalty is part of the reward; here the KL term is in the loss, for every
estimator. Its statistics run over tokens; over turns, a long response weighs no more than a short one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from hiper.advantages.checks import check_fractions
from hiper.advantages.estimator import Estimator
from hiper.advantages.groups import paid_and_penalty
from hiper.advantages.normalize import standardize
from hiper.advantages.recurrence import returns_to_go
from hiper.advantages.types import Credit, Turns


@dataclass(frozen=True)
class ReinforcePP(Estimator):
    """REINFORCE++. The module's docstring states the formula.

    Raises:
        UserError: A parameter is out of range.
    """

    type: ClassVar[str] = "reinforce++"
    title: ClassVar[str] = "REINFORCE++"

    gamma: float = 1.0
    """Discount per turn."""
    scale: bool = True
    """Divide by the batch's standard deviation."""

    def __post_init__(self) -> None:
        check_fractions(self, "gamma")

    def unscaled(self) -> Self:
        """Return the same estimator without division by the standard deviation."""
        return replace(self, scale=False)

    def __call__(self, turns: Turns) -> Credit:
        """Compute one advantage a turn, the same for all its decisions."""
        paid_BT, penalty_BT = paid_and_penalty(turns)
        return_BT = np.where(turns.mask_BT, returns_to_go(paid_BT, self.gamma) + penalty_BT, 0.0)
        if self.scale:
            advantage_BT = standardize(return_BT, turns.mask_BT, unbiased=True)
        else:
            advantage_BT = np.where(turns.mask_BT, return_BT - return_BT[turns.mask_BT].mean(), 0.0)
        return Credit.of_responses(turns, advantage_BT)
