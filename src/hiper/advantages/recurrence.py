"""The lambda-return: the recurrence over turns that all temporal-difference estimators share."""

from __future__ import annotations

import numpy as np

from hiper.advantages.types import Floats, Turns


def lambda_returns(reward_BT: Floats, gamma: float | Floats, *mixes: tuple[Floats, Floats]) -> list[Floats]:
    """Compute R_t = r_t + gamma * ((1 - lambda_t) * v_t + lambda_t * R_{t+1}) for each pair (v, lambda) of ``mixes``.

    v_t is the value after turn t. lambda_t may differ from turn to turn. With 0, R_t uses v_t alone and the trace is
    cut between t and t+1, as it must be at an episode's last turn. With 1, R_t ignores v_t.

    R_t - V_t is the generalised advantage of Schulman et al. (arXiv 1506.02438): with v_t = V_{t+1} and
    delta_t = r_t + gamma * V_{t+1} - V_t it is delta_t + gamma * lambda_t * A_{t+1}.

    Args:
        reward_BT: r_t.
        gamma: The discount between t and t+1: one number, or one for each turn (B, T).
        mixes: The pairs (v_BT, lambda_BT).

    Returns:
        One array (B, T) for each pair.
    """
    B, T = reward_BT.shape
    K = len(mixes)
    gamma_TB = gamma.T if isinstance(gamma, np.ndarray) else gamma
    # One loop in place for all K pairs: the arrays of one turn are so small that calls and allocations take most of the
    # time. Turns are the first axis, as in the memory of `Turns`, so that each step works on contiguous rows.
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
    """Return the pair (v, lambda) of turn-level GAE for :func:`lambda_returns`: a trace up to the episode's end.

    With ``bootstrap_truncated``, the last value of a truncated episode stands for what would have followed.
    """
    after_BT = following(value_BT)
    lambda_BT = np.full_like(value_BT, lambda_)
    if bootstrap_truncated:
        ends = turns.cut_ends
        after_BT[ends] = value_BT[ends]
        lambda_BT[ends] = 0.0
    return after_BT, lambda_BT


def returns_to_go(reward_BT: Floats, gamma: float) -> Floats:
    """Return sum_i gamma^i * r_{t+i}, up to the episode's end."""
    (return_BT,) = lambda_returns(reward_BT, gamma, (np.zeros_like(reward_BT), np.ones_like(reward_BT)))
    return return_BT


def following(x_BT: Floats) -> Floats:
    """Return x_{t+1} at turn t, and zero in the last column."""
    shifted = np.empty_like(x_BT)
    shifted[:, :-1] = x_BT[:, 1:]
    shifted[:, -1] = 0.0
    return shifted
