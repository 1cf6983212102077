"""The arrays that credit assignment reads and writes.

Legend: B episodes, T turns (padded at the end), K response tokens of an episode, turn after turn (padded at the end).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hiper.advantages.checks import (
    Bools,
    Floats,
    Ints,
    Objects,
    masked_bools,
    masked_floats,
    masked_ints,
    masked_objects,
    needed,
    one_per_episode,
    played_mask,
)

__all__ = ["Bools", "Credit", "Floats", "Ints", "TokenKind", "Turns"]


class TokenKind(IntEnum):
    """The decision a response token belongs to."""

    OTHER = 0
    SWITCH = 1
    SUBGOAL = 2
    ACTION = 3
    THINKING = 4
    """The token belongs to the thinking block before the answer, which is no decision of its own."""


@dataclass(frozen=True, eq=False)
class Turns:
    """B episodes of up to T turns, as an estimator sees them.

    Construction checks and copies the arrays, and sets everything beyond an episode's end to zero. So an estimator is
    its formula and nothing else. Arrays are in Fortran order: recurrences run along turns, and turn t of all episodes
    is contiguous. Arrays that only some estimators need may be None.

    Raises:
        ValueError: Shapes or types disagree, a played turn holds NaN, or an episode does not begin with a boundary.
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
    """V_switch(s_t, g_{t-1}), at every turn; the `termination-value` form of the switch advantage needs it."""
    value_BT: Floats | None = None
    """V(s_t, g_{t-1}), before the response of every turn; turn-level GAE needs it."""
    switch_prob_BT: Floats | None = None
    """beta_t = P(SWITCH | s_t, g_{t-1}) under the policy; the `value-gap` form needs it."""
    said_switch_BT: Bools | None = None
    """q_t = SWITCH was said; the `value-gap` form needs it. It is not the boundary: turn 0 always is one."""
    penalty_BT: Floats | None = None
    """The part of ``reward_BT`` that a response pays for its own form; None is zero. Methods that score whole episodes
    charge it to its own turn alone."""
    group_B: Ints | None = None
    """A number per group. The episodes of a group play the same task from the same beginning."""
    observation_BT: Objects | None = None
    """The text that the environment showed before the turn."""
    tokens_BT: Ints | None = None
    """The number of tokens of the response, one at least; token-level methods need it."""
    v_token_BK: Floats | None = None
    """The value before each response token. K is the largest number of tokens of an episode."""

    def __post_init__(self) -> None:
        mask = played_mask(self.mask_BT)
        # The class is frozen, so the cleaned arrays are set through `object`.
        put = object.__setattr__
        put(self, "mask_BT", mask)
        put(self, "terminated_B", one_per_episode("terminated_B", self.terminated_B, mask, "boolean"))
        if self.group_B is not None:
            put(self, "group_B", one_per_episode("group_B", self.group_B, mask, "integer"))
        if self.observation_BT is not None:
            put(self, "observation_BT", masked_objects("observation_BT", self.observation_BT, mask))
        for name in ("boundary_BT", "said_switch_BT"):
            if (bools := getattr(self, name)) is not None:
                put(self, name, masked_bools(name, bools, mask))
        floats_BT = ("reward_BT", "v_low_BT", "v_high_BT", "v_switch_BT", "value_BT", "switch_prob_BT", "penalty_BT")
        for name in floats_BT:
            if (floats := getattr(self, name)) is not None:
                put(self, name, masked_floats(name, floats, mask))
        if self.tokens_BT is not None:
            put(self, "tokens_BT", masked_ints("tokens_BT", self.tokens_BT, mask, least=1))
        if self.v_token_BK is not None:
            put(self, "v_token_BK", masked_floats("v_token_BK", self.v_token_BK, self.token_mask_BK, of="token"))

        late = mask[:, 0] & ~self.boundary_BT[:, 0]
        if late.any():
            raise ValueError(f"boundary_BT of episode {np.argmax(late)} is False at turn 0, which is always a boundary")
        beta = self.switch_prob_BT
        if beta is not None and (beta.min() < 0 or beta.max() > 1):
            raise ValueError(f"switch_prob_BT reaches from {beta.min()} to {beta.max()}: not probabilities")

    @cached_property
    def length_B(self) -> NDArray[np.int64]:
        """The number of turns played, by episode."""
        length_B: NDArray[np.int64] = self.mask_BT.sum(axis=1, dtype=np.int64)
        return length_B

    @cached_property
    def token_mask_BK(self) -> Bools:
        """The mask of tokens that were sampled: True from an episode's first token up to its last.

        Raises:
            ValueError: ``tokens_BT`` was not given.
        """
        tokens_B = needed(self.tokens_BT, "tokens_BT", "a value per token").sum(axis=1)
        return np.asfortranarray(np.arange(tokens_B.max()) < tokens_B[:, None])

    @property
    def turn_of_token_BK(self) -> Ints:
        """The turn that each token belongs to; zero beyond the episode's last token."""
        turn_BK = np.zeros(self.token_mask_BK.shape, dtype=np.int64)
        tokens_BT = needed(self.tokens_BT, "tokens_BT", "a value per token")
        turn_BK[self.token_mask_BK] = np.repeat(np.nonzero(self.mask_BT)[1], tokens_BT[self.mask_BT])
        return turn_BK

    @property
    def cut_ends(self) -> tuple[Ints, Ints]:
        """Rows and columns of the turns at which episodes were truncated."""
        cut_N = np.flatnonzero(~self.terminated_B)
        return cut_N, self.length_B[cut_N] - 1

    @property
    def last_boundary_B(self) -> NDArray[np.int64]:
        """The turn at which the episode's last segment begins."""
        last_boundary_B: NDArray[np.int64] = self.boundary_BT.shape[1] - 1 - self.boundary_BT[:, ::-1].argmax(axis=1)
        return last_boundary_B


@dataclass(frozen=True, eq=False)
class Credit:
    """The result of an estimator: an advantage per decision, and a regression target per value head.

    Each array has its own mask and is zero outside it. A target of None means that the head has nothing to learn, as
    in methods without a critic. :func:`hiper.advantages.spread.spread` alone maps advantages to tokens.
    """

    low_BT: Floats
    """A_low, for the action tokens of every turn and for all tokens of an invalid response."""
    high_BT: Floats
    """A_high, for the subgoal tokens of boundary turns."""
    switch_BT: Floats
    """A_switch, for the switch tokens of every turn."""
    return_low_BT: Floats | None = None
    """The target of V_low, at every turn."""
    return_high_BT: Floats | None = None
    """The target of V_high, at boundary turns."""
    return_switch_BT: Floats | None = None
    """The target of V_switch, at every turn."""
    return_BT: Floats | None = None
    """The target of the value before each response, at every turn."""
    undivided: bool = False
    """Every response is credited as a whole, as an invalid one always is. All its tokens get A_low, or their own entry
    of ``token_BK``."""
    token_BK: Floats | None = None
    """An advantage per response token. A_low is then its mean over the tokens of a turn."""
    return_token_BK: Floats | None = None
    """The target of the value before each response token."""

    def advantages(self, turns: Turns) -> dict[str, tuple[Floats, Bools]]:
        """Return the advantages that are told apart, each with the mask of the places that use it.

        The names are ``low``, ``high`` and ``switch``; ``low`` alone for undivided credit, and ``token`` beside it
        where each token has its own.
        """
        advantages = {"low": (self.low_BT, turns.mask_BT)}
        if not self.undivided:
            advantages["high"] = (self.high_BT, turns.boundary_BT)
            advantages["switch"] = (self.switch_BT, turns.mask_BT)
        if self.token_BK is not None:
            advantages["token"] = (self.token_BK, turns.token_mask_BK)
        return advantages

    @classmethod
    def of_responses(
        cls,
        turns: Turns,
        advantage_BT: Floats,
        return_BT: Floats | None = None,
        token_BK: Floats | None = None,
        return_token_BK: Floats | None = None,
    ) -> Credit:
        """Build the credit of an estimator that does not tell decisions apart: all three of a turn get the same.

        Args:
            turns: The episodes.
            advantage_BT: The advantage of each response.
            return_BT: The target of the value before each response.
            token_BK: The advantage of each token, where tokens differ.
            return_token_BK: The target of the value before each token.
        """
        return cls(
            low_BT=advantage_BT,
            high_BT=np.where(turns.boundary_BT, advantage_BT, 0.0),
            switch_BT=advantage_BT.copy(),
            return_BT=return_BT,
            undivided=True,
            token_BK=token_BK,
            return_token_BK=return_token_BK,
        )
