"""The one loop over turns that every temporal-difference estimator needs."""

from __future__ import annotations

import numpy as np

from hiper.advantages.types import Floats


def backward_sum(x_BT: Floats, decay_BT: Floats) -> Floats:
    """y_t = x_t + decay_t * y_{t+1}, from the last turn to the first, for all episodes at once.

    The decay may differ from turn to turn; 0 cuts the trace between t and t+1.
    """
    # Turn-major, so that each step of the loop reads and writes contiguous memory.
    y_TB = np.array(x_BT.T, order="C")
    decay_TB = np.ascontiguousarray(decay_BT.T)
    for t in range(len(y_TB) - 2, -1, -1):
        y_TB[t] += decay_TB[t] * y_TB[t + 1]
    return np.ascontiguousarray(y_TB.T)


def shift(x_BT: Floats) -> Floats:
    """x_{t+1} at turn t; zero at the last column."""
    shifted = np.zeros_like(x_BT)
    shifted[:, :-1] = x_BT[:, 1:]
    return shifted
