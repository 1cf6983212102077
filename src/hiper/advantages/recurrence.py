"""The lambda-return: the one recurrence over turns behind every temporal-difference estimator."""

from __future__ import annotations

import numpy as np

from hiper.advantages.types import Floats


def lambda_returns(reward_BT: Floats, gamma: float, *mixes: tuple[Floats, Floats]) -> list[Floats]:
    """For each pair (v, lambda) of ``mixes``: R_t = r_t + gamma * ((1 - lambda_t) * v_t + lambda_t * R_{t+1}).

    v_t is the value of what follows turn t. The mix may differ from turn to turn: 0 rests on v_t alone and cuts the
    trace between t and t+1, as it must at an episode's last turn; 1 passes everything on and ignores v_t.

    R_t - V_t is the generalised advantage of Schulman et al. (arXiv 1506.02438): with v_t = V_{t+1} and
    delta_t = r_t + gamma * V_{t+1} - V_t it is delta_t + gamma * lambda_t * A_{t+1}.
    """
    B, T = reward_BT.shape
    K = len(mixes)
    # One loop for all K pairs, turns first so that each step reads and writes contiguous memory, and in place: the
    # arrays of one turn are so small that calls and allocations take most of the time.
    return_TKB = np.empty((T, K, B))
    decay_TKB = np.empty((T, K, B))
    for k, (following_BT, lambda_BT) in enumerate(mixes):
        decay_BT = gamma * lambda_BT
        return_TKB[:, k] = (reward_BT + (gamma - decay_BT) * following_BT).T
        decay_TKB[:, k] = decay_BT.T
    return_TN, decay_TN = return_TKB.reshape(T, K * B), decay_TKB.reshape(T, K * B)
    passed_on_N = np.empty(K * B)
    for this_N, decay_N, next_N in zip(return_TN[-2::-1], decay_TN[-2::-1], return_TN[:0:-1], strict=True):
        np.multiply(decay_N, next_N, passed_on_N)
        np.add(this_N, passed_on_N, this_N)
    return [np.ascontiguousarray(return_TKB[:, k].T) for k in range(K)]


def shift(x_BT: Floats) -> Floats:
    """x_{t+1} at turn t; zero at the last column."""
    shifted = np.zeros_like(x_BT)
    shifted[:, :-1] = x_BT[:, 1:]
    return shifted
