"""Numbers in a row, one per turn or token played, laid out as arrays (B, T) or (B, K)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hiper.advantages.checks import Bools


def prefix_mask(lengths_B: Sequence[int]) -> Bools:
    """Return the mask (B, T) that is True for the first ``lengths_B[b]`` places of row b; T is the longest length."""
    mask_BT: Bools = np.arange(max(lengths_B)) < np.array(lengths_B)[:, None]
    return mask_BT


def on_grid(x_N: ArrayLike, mask_BT: Bools, dtype: type = float) -> NDArray[Any]:
    """Lay out one number per place of ``mask_BT``, in row-major order; zero elsewhere. ``x_BT[mask_BT]`` undoes it."""
    x_BT: NDArray[Any] = np.zeros(mask_BT.shape, dtype=dtype)
    x_BT[mask_BT] = x_N
    return x_BT
