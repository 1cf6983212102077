"""The lambda-return: the one recurrence over turns behind every temporal-difference estimator."""

from __future__ import annotations

import numpy as np

from hiper.advantages.types import Floats, Turns


def lambda_returns(reward_BT: Floats, gamma: float | Floats, *mixes: tuple[Floats, Floats]) -> list[Floats]:
    """For each pair (v, lambda) of ``mixes``: R_t = r_t + gamma * ((1 - lambda_t) * v_t + lambda_t * R_{t+1}).

    v_t is the value of what follows turn t. The mix may differ from turn to turn: 0 rests on v_t alone and cuts the
    trace between t and t+1, as it must at an episode's last turn; 1 passes everything on and ignores v_t.

    R_t - V_t is the generalised advantage of Schulman et al. (arXiv 1506.02438): with v_t = V_{t+1} and
    delta_t = r_t + gamma * V_{t+1} - V_t it is delta_t + gamma * lambda_t * A_{t+1}.

    ``gamma`` may differ from turn to turn as well: then it is the discount between t and t+1.
    """
    B, T = reward_BT.shape
    K = len(mixes)
    gamma_TB = gamma.T if isinstance(gamma, np.ndarray) else gamma
    # One loop for all K pairs, and in place: the arrays of one turn are so small that calls and allocations take most
    # of the time. Turns come first, as they do in the memory of `Turns`, so that each step works on contiguous rows.
    return_TKB = np.empty((T, K, B))
    decay_TKB = np.empty((T, K, B))
    for k, (v_BT, lambda_BT) in enumerate(mixes):
        decay_TB = np.multiply(gamma_TB, lambda_BT.T, out=decay_TKB[:, k])
        np.add(reward_BT.T, (gamma_TB - decay_TB) * v_BT.T, out=return_TKB[:, k])
    returns, decays = list(return_TKB.reshape(T, K * B)), list(decay_TKB.reshape(T, K * B))
    passed_on = np.empty(K * B)
    for t in range(T - 2, -1, -1):
        np.multiply(decays[t], returns[t + 1], passed_on)
        np.add(returns[t], passed_on, returns[t])
    return [return_TKB[:, k].copy().T for k in range(K)]


def flat_mix(turns: Turns, value_BT: Floats, lambda_: float, bootstrap_truncated: bool) -> tuple[Floats, Floats]:
    """The pair (v, lambda) of turn-level GAE for :func:`lambda_returns`: one trace from each turn to the episode's end.

    After a truncated episode comes the value at hand (``bootstrap_truncated``); else nothing comes after an end.
    """
    after_BT = following(value_BT)
    lambda_BT = np.full_like(value_BT, lambda_)
    if bootstrap_truncated:
        ends = turns.cut_ends
        after_BT[ends] = value_BT[ends]
        lambda_BT[ends] = 0.0
    return after_BT, lambda_BT


def returns_to_go(reward_BT: Floats, gamma: float) -> Floats:
    """sum_i gamma^i * r_{t+i}, to the episode's end."""
    (return_BT,) = lambda_returns(reward_BT, gamma, (np.zeros_like(reward_BT), np.ones_like(reward_BT)))
    return return_BT


def following(x_BT: Floats) -> Floats:
    """x_{t+1} at turn t; zero at the last column."""
    shifted = np.empty_like(x_BT)
    shifted[:, :-1] = x_BT[:, 1:]
    shifted[:, -1] = 0.0
    return shifted
