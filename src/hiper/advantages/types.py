"""The arrays that credit assignment reads and writes. Legend: B episodes, T turns (padded at the end)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Turns:
    """What an estimator sees of B episodes of up to T turns. Entries beyond an episode's end are ignored."""

    mask_BT: Bools
    """The turn was played. True from turn 0 up to the episode's last turn."""
    reward_BT: Floats
    """Reward after shaping."""
    boundary_BT: Bools
    """The turn begins a segment: SWITCH was said, or it is turn 0."""
    terminated_B: Bools
    """The environment ended the episode (False: it was truncated at its last turn)."""
    v_low_BT: Floats
    v_high_BT: Floats
    v_switch_BT: Floats | None = None
    """The third head, which the `termination-value` form of the switch advantage needs."""
    switch_prob_BT: Floats | None = None
    """beta_t = P(SWITCH | s_t, g_{t-1}) under the policy, which the `value-gap` form needs."""


@dataclass(frozen=True)
class Credit:
    """What an estimator returns: advantages per decision, and regression targets per value head.

    Each array has its own mask: advantages are zero and targets are zero outside it.
    """

    low_BT: Floats
    """A_low: for the action tokens of every turn."""
    high_BT: Floats
    """A_high: for the subgoal tokens of boundary turns."""
    switch_BT: Floats
    """A_switch: for the switch tokens of every turn."""
    return_low_BT: Floats
    return_high_BT: Floats
    return_switch_BT: Floats
