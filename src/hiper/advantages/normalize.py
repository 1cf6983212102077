"""Normalisation of advantages, each over the turns that use it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hiper.advantages.types import Bools, Credit, Floats, Turns

EPSILON = 1e-8
"""The term added to the standard deviation, as in the reference: a single or constant advantage becomes zero."""


def standardize(x_BT: Floats, mask_BT: Bools, *, unbiased: bool = False) -> Floats:
    """Return (x - mean) / (std + epsilon), with statistics over ``mask_BT`` only; zero outside it.

    Args:
        x_BT: An array of any shape.
        mask_BT: A mask of the same shape.
        unbiased: Divide the variance by n - 1, as "whitening" does, rather than by n.
    """
    used = x_BT[mask_BT]
    if used.size <= unbiased:
        return np.zeros_like(x_BT)
    return np.where(mask_BT, (x_BT - used.mean()) / (used.std(ddof=int(unbiased)) + EPSILON), 0.0)


def normalized(credit: Credit, turns: Turns) -> Credit:
    """Return ``credit`` with advantages of zero mean and unit variance; the value targets do not change.

    A_low and A_switch are normalised over all turns, A_high over boundary turns. Turns with an invalid response count
    like any other, as in the reference: the A_high of an invalid boundary turn is part of the statistics.
    """
    return replace(
        credit,
        low_BT=standardize(credit.low_BT, turns.mask_BT),
        high_BT=standardize(credit.high_BT, turns.boundary_BT),
        switch_BT=standardize(credit.switch_BT, turns.mask_BT),
    )
