"""REINFORCE++: no critic, no groups; returns normalised over the whole batch.

Source: Hu et al., "REINFORCE++" (arXiv 2501.03262).

    A(t) = (R(t) - mean) / (std + epsilon),    R(t) = sum_i gamma^i r_{t+i} + what the form of turn t cost

with mean and (unbiased) variance over all turns of the batch. The KL penalty that the paper puts into the reward stands
in the loss here, as it does for every estimator. The paper's statistics run over tokens; over turns, a long response
weighs no more than a short one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from hiper.advantages.groups import paid_and_penalty
from hiper.advantages.normalize import standardize
from hiper.advantages.parameters import check_fractions
from hiper.advantages.recurrence import returns_to_go
from hiper.advantages.types import Credit, Critic, Turns


@dataclass(frozen=True)
class ReinforcePP:
    """See the module.

    Raises:
        UserError: a parameter is out of range.
    """

    critic: ClassVar[Critic] = "none"
    grouped: ClassVar[bool] = False

    type: Literal["reinforce++"] = field(default="reinforce++", kw_only=True)
    gamma: float = 1.0
    """Discount per turn."""
    scale: bool = True
    """Divide by the batch's standard deviation."""

    def __post_init__(self) -> None:
        check_fractions(self, "gamma")

    def __call__(self, turns: Turns) -> Credit:
        """The same advantage for all decisions of a turn."""
        paid_BT, penalty_BT = paid_and_penalty(turns)
        return_BT = np.where(turns.mask_BT, returns_to_go(paid_BT, self.gamma) + penalty_BT, 0.0)
        if self.scale:
            advantage_BT = standardize(return_BT, turns.mask_BT, unbiased=True)
        else:
            advantage_BT = np.where(turns.mask_BT, return_BT - return_BT[turns.mask_BT].mean(), 0.0)
        return Credit.of_responses(turns, advantage_BT)
