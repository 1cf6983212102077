"""Hierarchical advantage estimation, one episode at a time, straight from its definition.

Written from the formulas alone and sharing no code with `hiper.advantages`, so that the two can check each
other: plain Python, recursive, no arrays. Tests compare against it and `benchmarks/advantages.py` times it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class SlowTurn:
    reward: float
    boundary: bool
    v_low: float
    v_high: float
    v_switch: float = 0.0
    said_switch: bool = False
    switch_prob: float = 0.0


@dataclass(frozen=True)
class SlowCredit:
    """One number per turn; `high` and `return_high` are 0 off boundaries, `return_switch` is 0 in the gap form."""

    low: list[float]
    high: list[float]
    switch: list[float]
    return_low: list[float]
    return_high: list[float]
    return_switch: list[float]


def slow_hae(
    turns: list[SlowTurn],
    terminated: bool,
    gamma: float = 1.0,
    lambda_turn: float = 1.0,
    lambda_seg: float = 0.95,
    bootstrap_truncated: bool = True,
    gap: bool = False,
) -> SlowCredit:
    T = len(turns)
    starts = [t for t in range(T) if turns[t].boundary]  # s_k
    ends = [s - 1 for s in starts[1:]] + [T - 1]  # e_k
    K = len(starts)
    segment_of = [max(k for k in range(K) if starts[k] <= t) for t in range(T)]

    def after(k: int, own_value: float) -> float:
        """What comes after segment k: the next segment's V_high, or what the episode's end is worth."""
        if k + 1 < K:
            return turns[starts[k + 1]].v_high
        if terminated:
            return 0.0
        return own_value if bootstrap_truncated else 0.0

    @cache
    def a_low(t: int) -> float:
        k = segment_of[t]
        inside = t < ends[k]
        following = turns[t + 1].v_low if inside else after(k, turns[t].v_low)
        delta = turns[t].reward + gamma * following - turns[t].v_low
        return delta + (gamma * lambda_turn * a_low(t + 1) if inside else 0.0)

    @cache
    def a_high(k: int) -> float:
        s, d = starts[k], ends[k] - starts[k] + 1
        collected = sum(gamma**i * turns[s + i].reward for i in range(d))
        delta = collected + gamma**d * after(k, turns[s].v_high) - turns[s].v_high
        return delta + (gamma**d * lambda_seg * a_high(k + 1) if k + 1 < K else 0.0)

    @cache
    def r_switch(t: int) -> float:
        k = segment_of[t]
        following = r_switch(t + 1) if t < ends[k] else after(k, turns[starts[k]].v_high)
        return turns[t].reward + gamma * following

    def a_switch(t: int) -> float:
        turn = turns[t]
        if gap:
            return ((1.0 if turn.said_switch else 0.0) - turn.switch_prob) * (turn.v_high - turn.v_low)
        return r_switch(t) - turn.v_switch

    low = [a_low(t) for t in range(T)]
    high = [a_high(segment_of[t]) if turns[t].boundary else 0.0 for t in range(T)]
    return SlowCredit(
        low=low,
        high=high,
        switch=[a_switch(t) for t in range(T)],
        return_low=[a + turn.v_low for a, turn in zip(low, turns, strict=True)],
        return_high=[a + turn.v_high if turn.boundary else 0.0 for a, turn in zip(high, turns, strict=True)],
        return_switch=[0.0 if gap else r_switch(t) for t in range(T)],
    )
