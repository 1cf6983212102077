"""Normalising each advantage on its own, over the turns that use it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hiper.advantages.types import Bools, Credit, Floats, Turns

EPSILON = 1e-8
"""Added to the standard deviation, as the reference does: a lone or constant advantage becomes zero."""


def standardize(x_BT: Floats, mask_BT: Bools, *, unbiased: bool = False) -> Floats:
    """(x - mean) / (std + epsilon), both over ``mask_BT`` only; zero outside it.

    Args:
        x_BT: of any shape.
        mask_BT: of the same shape.
        unbiased: divide the variance by n - 1, as "whitening" does, rather than by n.
    """
    used = x_BT[mask_BT]
    if used.size <= unbiased:
        return np.zeros_like(x_BT)
    return np.where(mask_BT, (x_BT - used.mean()) / (used.std(ddof=int(unbiased)) + EPSILON), 0.0)


def normalized(credit: Credit, turns: Turns) -> Credit:
    """``credit`` with zero-mean, unit-variance advantages; the value targets stay as they are.

    A_low and A_switch are normalised over all turns, A_high over boundary turns. The turns of invalid responses
    count like any other, as in the reference: an invalid boundary turn still has its A_high in the statistics.
    """
    return replace(
        credit,
        low_BT=standardize(credit.low_BT, turns.mask_BT),
        high_BT=standardize(credit.high_BT, turns.boundary_BT),
        switch_BT=standardize(credit.switch_BT, turns.mask_BT),
    )
