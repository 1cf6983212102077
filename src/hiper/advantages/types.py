"""The arrays that credit assignment reads and writes. Legend: B episodes, T turns (padded at the end)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hiper.advantages.checks import Bools, Floats, masked_bools, masked_floats, played_mask

__all__ = ["Bools", "Credit", "Floats", "Turns"]


@dataclass(frozen=True, eq=False)
class Turns:
    """What an estimator sees of B episodes of up to T turns.

    Arrays are checked and copied on construction, and everything beyond an episode's end is set to zero, so that
    an estimator is its formula and nothing else. In memory, turns come first (Fortran order): recurrences run along
    them, and all episodes' turn t lies in one piece. Arrays that only some estimators need may be None.

    Raises:
        ValueError: shapes or types disagree, a played turn holds NaN, or an episode does not begin with a boundary.
    """

    mask_BT: Bools
    """The turn was played. True from turn 0 up to the episode's last turn."""
    reward_BT: Floats
    """Reward after shaping."""
    boundary_BT: Bools
    """The turn begins a segment: SWITCH was said, or it is turn 0."""
    terminated_B: Bools
    """The environment ended the episode (False: it was truncated at its last turn)."""
    v_low_BT: Floats | None = None
    """V_low(s_t, g_t), at every turn."""
    v_high_BT: Floats | None = None
    """V_high(s_t), at every turn (the head is trained at boundaries only)."""
    v_switch_BT: Floats | None = None
    """V_switch(s_t, g_{t-1}): the third head, which the `termination-value` form of the switch advantage needs."""
    switch_prob_BT: Floats | None = None
    """beta_t = P(SWITCH | s_t, g_{t-1}) under the policy, which the `value-gap` form needs."""
    said_switch_BT: Bools | None = None
    """q_t = SWITCH was said, which the `value-gap` form needs. Not the same as a boundary: turn 0 always is one."""

    def __post_init__(self) -> None:
        mask = played_mask(self.mask_BT)
        terminated = np.asarray(self.terminated_B)
        if terminated.dtype != np.bool_ or terminated.shape != mask.shape[:1]:
            raise ValueError(
                f"terminated_B must be one boolean per episode, got {terminated.dtype} of shape {terminated.shape} "
                f"for {len(mask)} episodes"
            )
        # A frozen dataclass is assigned to through `object`; this is the one place that does so.
        put = object.__setattr__
        put(self, "mask_BT", mask)
        put(self, "terminated_B", terminated.copy())
        for name in ("boundary_BT", "said_switch_BT"):
            if (bools := getattr(self, name)) is not None:
                put(self, name, masked_bools(name, bools, mask))
        for name in ("reward_BT", "v_low_BT", "v_high_BT", "v_switch_BT", "switch_prob_BT"):
            if (floats := getattr(self, name)) is not None:
                put(self, name, masked_floats(name, floats, mask))

        late = mask[:, 0] & ~self.boundary_BT[:, 0]
        if late.any():
            raise ValueError(f"boundary_BT of episode {np.argmax(late)} is False at turn 0, which is always a boundary")
        beta = self.switch_prob_BT
        if beta is not None and (beta.min() < 0 or beta.max() > 1):
            raise ValueError(f"switch_prob_BT reaches from {beta.min()} to {beta.max()}: not probabilities")

    @cached_property
    def length_B(self) -> NDArray[np.int64]:
        """Turns played."""
        length_B: NDArray[np.int64] = self.mask_BT.sum(axis=1, dtype=np.int64)
        return length_B

    @property
    def last_boundary_B(self) -> NDArray[np.int64]:
        """The turn at which the episode's last segment begins."""
        last_boundary_B: NDArray[np.int64] = self.boundary_BT.shape[1] - 1 - self.boundary_BT[:, ::-1].argmax(axis=1)
        return last_boundary_B

    @property
    def segment_end_BT(self) -> Bools:
        """The last turn of its segment: the next turn is a boundary, or the episode has no next turn."""
        end_BT = self.mask_BT.copy(order="K")
        end_BT[:, :-1] &= self.boundary_BT[:, 1:] | ~self.mask_BT[:, 1:]
        return end_BT

    @property
    def segment_lengths(self) -> NDArray[np.int64]:
        """d_k of every segment, episode after episode."""
        starts = np.flatnonzero(self.boundary_BT)
        ends = np.flatnonzero(self.segment_end_BT)
        return (ends - starts + 1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Credit:
    """What an estimator returns: advantages per decision, and regression targets per value head.

    Each array has its own mask and is zero outside it. A target of None means that the estimator gives that head
    nothing to learn (methods without a critic; the two-head form of the switch advantage).
    :func:`hiper.advantages.spread.spread` alone knows which tokens each advantage is for; an estimator with a
    value per token would add its own optional field here and be read there.
    """

    low_BT: Floats
    """A_low: for the action tokens of every turn, and for all tokens of an invalid response."""
    high_BT: Floats
    """A_high: for the subgoal tokens of boundary turns."""
    switch_BT: Floats
    """A_switch: for the switch tokens of every turn."""
    return_low_BT: Floats | None = None
    """R_low, at every turn."""
    return_high_BT: Floats | None = None
    """R_high, at boundary turns."""
    return_switch_BT: Floats | None = None
    """R_switch, at every turn."""
