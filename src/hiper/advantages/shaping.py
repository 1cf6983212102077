"""Reward shaping: the environment's reward, and penalties for the form of a response, part by part.

The parts are those of the reference implementation of HiPER (arXiv 2602.16165). Its ALFWorld values are the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from hiper.advantages.checks import Bools, Floats, check_choices, masked_bools, masked_floats, played_mask
from hiper.errors import UserError

_LARGEST = 1e6
"""The largest size of a penalty. Sums and squares of far larger ones are no numbers any more."""

KeepMode: TypeAlias = Literal["fixed", "normalized"]


@dataclass(frozen=True)
class Shaping:
    """The weight of each part. Every penalty is *added* to the reward, so it is zero or negative.

    Raises:
        UserError: A penalty is positive, NaN or beyond a million, or the mode is unknown.
    """

    invalid_penalty: float = -0.1
    """The penalty at the turn of an invalid response."""
    keep_penalty: float = -0.3
    """The penalty c, against never switching (WebShop: -3.5 with ``keep_mode: normalized``)."""
    keep_mode: KeepMode = "fixed"
    """``fixed``: c at each KEEP turn. ``normalized``: c * keeps / turns an episode, shared by its KEEP turns."""
    consistency_penalty: float = -0.3
    """The penalty at a KEEP turn whose subgoal differs from the previous turn's, if both have one."""

    def __post_init__(self) -> None:
        for name in ("invalid_penalty", "keep_penalty", "consistency_penalty"):
            if not -_LARGEST <= (value := getattr(self, name)) <= 0.0:
                low = f", and not below {-_LARGEST:,.0f}" if value < 0 else ""
                raise UserError(f"{name} is {value}; it is added to the reward, so it must be zero or negative{low}")
        check_choices(self, keep_mode=KeepMode)


@dataclass(frozen=True, eq=False)
class Rewards:
    """The reward of each turn by part; zero beyond an episode's end."""

    environment_BT: Floats
    invalid_BT: Floats
    keep_BT: Floats
    consistency_BT: Floats

    def parts(self) -> dict[str, Floats]:
        """Return the parts by name, for metrics and display. Their sum is :attr:`total_BT`."""
        return {
            "environment": self.environment_BT,
            "invalid": self.invalid_BT,
            "keep": self.keep_BT,
            "consistency": self.consistency_BT,
        }

    @property
    def total_BT(self) -> Floats:
        """The sum of the parts, which estimators see."""
        return self.environment_BT + self.invalid_BT + self.keep_BT + self.consistency_BT


def shape(
    shaping: Shaping, *, mask_BT: Bools, reward_BT: Floats, valid_BT: Bools, keep_BT: Bools, strayed_BT: Bools
) -> Rewards:
    """Split each turn's reward into its parts.

    As in the reference, the keep penalty depends on what was said, not on where segments begin. KEEP at turn 0 is
    penalised although turn 0 is a boundary. An invalid turn pays both penalties if KEEP was said in it. In the
    ``normalized`` mode, an episode of one turn pays none.

    >>> played, no = np.array([[True, True]]), np.array([[False, False]])
    >>> kept = np.array([[False, True]])
    >>> won = np.array([[0.0, 10.0]])
    >>> shape(Shaping(), mask_BT=played, reward_BT=won, valid_BT=played, keep_BT=kept, strayed_BT=no).total_BT
    array([[0. , 9.7]])

    Args:
        shaping: The weights.
        mask_BT: The turn was played.
        reward_BT: What the environment paid.
        valid_BT: The response was valid.
        keep_BT: KEEP was said.
        strayed_BT: The subgoal's tokens differ from the previous turn's, and both turns have some. It counts where
            KEEP was said, from turn 1 on.

    Raises:
        ValueError: Shapes or types disagree, or a played turn's reward is NaN or infinite.
    """
    mask_BT = played_mask(mask_BT)
    valid_BT = masked_bools("valid_BT", valid_BT, mask_BT)
    keep_BT = masked_bools("keep_BT", keep_BT, mask_BT)
    strayed_BT = masked_bools("strayed_BT", strayed_BT, mask_BT) & keep_BT
    strayed_BT[:, 0] = False

    share_B1 = np.ones((len(mask_BT), 1))
    if shaping.keep_mode == "normalized":
        # c * (keeps / turns) shared by the keeps is c / turns each.
        turns_B1 = mask_BT.sum(axis=1, keepdims=True)
        share_B1 = np.where(turns_B1 > 1, 1.0 / np.maximum(turns_B1, 1), 0.0)
    return Rewards(
        environment_BT=masked_floats("reward_BT", reward_BT, mask_BT),
        invalid_BT=np.where(mask_BT & ~valid_BT, shaping.invalid_penalty, 0.0),
        keep_BT=np.where(keep_BT, shaping.keep_penalty * share_B1, 0.0),
        consistency_BT=np.where(strayed_BT, shaping.consistency_penalty, 0.0),
    )
