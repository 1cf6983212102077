"""Hierarchical advantage estimation, one episode at a time, straight from its definition.

`slow_hae` is written from the formulas alone: plain Python, recursive, no arrays, no code of `hiper.advantages`, so
that the two can check each other. Below it: episodes of `Turns` in its form, and its results in that of `Credit`.
Tests compare against it and `benchmarks/advantages.py` times it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np

from hiper.advantages import HAE, Credit, Turns


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
    lambda_boundary: float = 0.0,
) -> SlowCredit:
    T = len(turns)
    starts = [t for t in range(T) if turns[t].boundary]  # s_k
    ends = [s - 1 for s in starts[1:]] + [T - 1]  # e_k
    K = len(starts)
    segment_of = [k - 1 for k in accumulate(int(turn.boundary) for turn in turns)]

    def after(k: int, own_value: float) -> float:
        """The value after segment k: the next segment's V_high, or that of the episode's end."""
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
        if inside:
            return delta + gamma * lambda_turn * a_low(t + 1)
        if k + 1 == K:
            return delta
        # The next segment's return beyond what V_high expects of it.
        beyond = turns[t + 1].v_low + a_low(t + 1) - turns[t + 1].v_high
        return delta + gamma * lambda_boundary * beyond

    @cache
    def a_high(k: int) -> float:
        s, d = starts[k], ends[k] - starts[k] + 1
        collected = sum(gamma**i * turns[s + i].reward for i in range(d))
        delta = collected + gamma**d * after(k, turns[s].v_high) - turns[s].v_high
        return delta + (gamma**d * lambda_seg * a_high(k + 1) if k + 1 < K else 0.0)

    @cache
    def r_switch(t: int) -> float:
        k = segment_of[t]
        if t < ends[k]:
            following = r_switch(t + 1)
        else:
            following = after(k, turns[starts[k]].v_high)
            if k + 1 < K:
                following += lambda_boundary * (r_switch(t + 1) - following)
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


SlowEpisode = tuple[list[SlowTurn], bool]
"""The turns of an episode, and whether it terminated."""


def slow_episodes(turns: Turns) -> list[SlowEpisode]:
    """Return the episodes of `turns`, one by one."""
    zeros = np.zeros_like(turns.reward_BT)
    columns: list[Any] = [
        turns.reward_BT,
        turns.boundary_BT,
        turns.v_low_BT,
        turns.v_high_BT,
        zeros if turns.v_switch_BT is None else turns.v_switch_BT,
        zeros.astype(bool) if turns.said_switch_BT is None else turns.said_switch_BT,
        zeros if turns.switch_prob_BT is None else turns.switch_prob_BT,
    ]
    lengths = turns.mask_BT.sum(axis=1)
    return [
        ([SlowTurn(*(column[b, t].item() for column in columns)) for t in range(length)], bool(turns.terminated_B[b]))
        for b, length in enumerate(lengths)
    ]


def slow_episode(episode: SlowEpisode, parameters: HAE) -> SlowCredit:
    """Compute the credit that `parameters` asks for, without normalisation."""
    return slow_hae(
        *episode,
        parameters.gamma,
        parameters.lambda_turn,
        parameters.lambda_seg,
        parameters.bootstrap_truncated,
        gap=parameters.switch_form == "value-gap",
        lambda_boundary=parameters.lambda_boundary,
    )


def slow_credit(turns: Turns, parameters: HAE) -> Credit:
    """Compute the same for all episodes, as (B, T) arrays."""
    arrays: dict[str, Any] = {field: np.zeros(turns.mask_BT.shape) for field in SlowCredit.__dataclass_fields__}
    for b, episode in enumerate(slow_episodes(turns)):
        credit = slow_episode(episode, parameters)
        for field, array in arrays.items():
            array[b, : len(episode[0])] = getattr(credit, field)
    arrays = {f"{field}_BT": array for field, array in arrays.items()}
    if parameters.switch_form == "value-gap":
        del arrays["return_switch_BT"]
    return Credit(**arrays)


def random_turns(
    rng: np.random.Generator, B: int, T: int, full_length: bool = False, switch_rate: float = 0.25
) -> Turns:
    """Make episodes of random length, rewards, values and decisions. Padding holds NaN and True."""
    lengths = np.full(B, T) if full_length else rng.integers(1, T + 1, B)
    mask = np.arange(T) < lengths[:, None]
    said = rng.random((B, T)) < switch_rate
    boundary = said | (np.arange(T) == 0)

    def floats(low: float = -3.0, high: float = 3.0) -> np.ndarray:
        return np.where(mask, rng.uniform(low, high, (B, T)), np.nan)

    return Turns(
        mask_BT=mask,
        reward_BT=floats(),
        boundary_BT=boundary | ~mask,
        terminated_B=rng.random(B) < 0.5,
        v_low_BT=floats(),
        v_high_BT=floats(),
        v_switch_BT=floats(),
        switch_prob_BT=floats(0.0, 1.0),
        said_switch_BT=said | ~mask,
    )
