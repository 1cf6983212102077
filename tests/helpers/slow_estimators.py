"""Slow, literal definitions of HAE and of the baselines, to compare the fast ones with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import cache
from itertools import accumulate
from statistics import fmean, stdev
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


# --- The estimators without a hierarchy, one turn or token at a time, straight from their definitions -----------------


Numbers = list[list[float]]


@dataclass(frozen=True)
class Episode:
    """One number per turn; `token_values` one list per turn."""

    rewards: list[float]
    penalties: list[float]
    values: list[float]
    observations: list[str]
    token_values: list[list[float]]
    terminated: bool
    group: int

    @property
    def paid(self) -> list[float]:
        """The rewards without penalties."""
        return [r - p for r, p in zip(self.rewards, self.penalties, strict=True)]

    @property
    def scores(self) -> list[float]:
        """The sum of the rewards without penalties, plus each turn's own penalty."""
        paid = sum(self.paid)
        return [paid + p for p in self.penalties]

    def returns(self, gamma: float) -> list[float]:
        """Return the discounted returns without penalties, plus each turn's own penalty."""
        paid = self.paid
        return [
            sum(gamma ** (i - t) * paid[i] for i in range(t, len(paid))) + self.penalties[t] for t in range(len(paid))
        ]


def slow_gae(episode: Episode, gamma: float, decay: float, bootstrap: bool) -> list[float]:
    """Compute turn-level GAE, not whitened."""
    return _gae(
        episode.values, episode.rewards, [gamma] * len(episode.values), decay, bootstrap and not episode.terminated
    )


def slow_token_gae(episode: Episode, gamma: float, decay: float, bootstrap: bool) -> list[float]:
    """Compute token-level GAE, not whitened: one number per token of all turns."""
    values = [v for turn in episode.token_values for v in turn]
    rewards, discounts = [], []
    for turn, reward in zip(episode.token_values, episode.rewards, strict=True):
        rewards += [0.0] * (len(turn) - 1) + [reward]
        discounts += [1.0] * (len(turn) - 1) + [gamma]
    return _gae(values, rewards, discounts, decay, bootstrap and not episode.terminated)


def _gae(values: list[float], rewards: list[float], discounts: list[float], decay: float, goes_on: bool) -> list[float]:
    """Run the textbook's recursion, from the end."""
    advantages: list[float] = []
    trace, following = 0.0, values[-1] if goes_on else 0.0
    for value, reward, discount in zip(values[::-1], rewards[::-1], discounts[::-1], strict=True):
        trace = reward + discount * following - value + discount * decay * trace
        following = value
        advantages.append(trace)
    return advantages[::-1]


def slow_grpo(episodes: Sequence[Episode], scale: bool, over_turns: bool) -> Numbers:
    advantages = []
    for episode in episodes:
        group = [e for e in episodes if e.group == episode.group]
        scores = [s for e in group for s in e.scores] if over_turns else [sum(e.paid) for e in group]
        mean, std = (fmean(scores), stdev(scores)) if len(scores) > 1 else (0.0, 1.0)
        advantages.append([(own - mean) / (std + 1e-6 if scale else 1.0) for own in episode.scores])
    return advantages


def slow_rloo(episodes: Sequence[Episode], over_turns: bool) -> Numbers:
    advantages = []
    for episode in episodes:
        group = [e for e in episodes if e.group == episode.group]
        others = [sum(e.paid) for e in group if e is not episode]
        if over_turns:
            others = [s for e in group for s in e.scores]
        baselines = [fmean(_without(others, own) if over_turns else others or [0.0]) for own in episode.scores]
        advantages.append([own - baseline for own, baseline in zip(episode.scores, baselines, strict=True)])
    return advantages


def _without(numbers: list[float], one: float) -> list[float]:
    place = numbers.index(one)
    return numbers[:place] + numbers[place + 1 :] or [0.0]


def slow_gigpo(
    episodes: Sequence[Episode], gamma: float, weight: float, scale: bool, similarity: float | None
) -> Numbers:
    whole = slow_grpo(episodes, scale, over_turns=True)
    same: Callable[[str, str], bool] = lambda first, text: (  # noqa: E731
        first == text if similarity is None else SequenceMatcher(None, text, first).ratio() >= similarity
    )
    clusters: list[tuple[int, str, list[tuple[int, int]]]] = []
    for b, episode in enumerate(episodes):
        for t, text in enumerate(episode.observations):
            for group, first, members in clusters:
                if group == episode.group and same(first, text):
                    members.append((b, t))
                    break
            else:
                clusters.append((episode.group, text, [(b, t)]))
    advantages = [list(row) for row in whole]
    all_returns = [episode.returns(gamma) for episode in episodes]
    for _, _, members in clusters:
        returns = [all_returns[b][t] for b, t in members]
        if len(returns) == 1:
            continue
        mean, divisor = fmean(returns), stdev(returns) + 1e-6 if scale else 1.0
        for (b, t), own in zip(members, returns, strict=True):
            advantages[b][t] += weight * (own - mean) / divisor
    return advantages


def slow_reinforce_pp(episodes: Sequence[Episode], gamma: float) -> Numbers:
    return whiten([e.returns(gamma) for e in episodes])


def whiten(numbers: Numbers) -> Numbers:
    flat = [x for row in numbers for x in row]
    mean, std = fmean(flat), stdev(flat)
    return [[(x - mean) / (std + 1e-8) for x in row] for row in numbers]


def random_batch(rng: np.random.Generator, groups: int = 3, size: int = 4, T: int = 7) -> Turns:
    """Make random turns in groups out of order, with few different observations and responses of one to five tokens."""
    B = groups * size
    turns = random_turns(rng, B, T)
    tokens_BT = rng.integers(1, 6, (B, T))
    most = int((tokens_BT * turns.mask_BT).sum(axis=1).max())
    return replace(
        turns,
        reward_BT=np.where(rng.random((B, T)) < 0.3, turns.reward_BT, 0.0),
        penalty_BT=rng.choice([0.0, -0.1], (B, T)),
        group_B=rng.permutation(np.repeat(np.arange(groups), size)),
        observation_BT=np.array([f"You see a {w} room." for w in ("red", "read", "green", "blue")], dtype=object)[
            rng.integers(0, 4, (B, T))
        ],
        tokens_BT=tokens_BT,
        value_BT=rng.uniform(-3, 3, (B, T)),
        v_token_BK=rng.uniform(-3, 3, (B, most)),
    )


def episodes_of(turns: Turns) -> list[Episode]:
    """Return the episodes of `turns`, one by one. Arrays that were not given count as zero."""
    zeros = np.zeros(turns.mask_BT.shape)
    B, T = turns.mask_BT.shape
    penalty = zeros if turns.penalty_BT is None else turns.penalty_BT
    value = zeros if turns.value_BT is None else turns.value_BT
    group = np.zeros(B, dtype=int) if turns.group_B is None else turns.group_B
    seen = np.full((B, T), "") if turns.observation_BT is None else turns.observation_BT
    episodes = []
    for b, n in enumerate(turns.mask_BT.sum(axis=1).tolist()):
        tokens: list[list[float]] = [[] for _ in range(n)]
        if turns.tokens_BT is not None and turns.v_token_BK is not None:
            left = iter(turns.v_token_BK[b].tolist())
            tokens = [[next(left) for _ in range(turns.tokens_BT[b, t])] for t in range(n)]
        rows: list[Any] = [array[b, :n].tolist() for array in (turns.reward_BT, penalty, value, seen)]
        rest: list[Any] = [tokens, bool(turns.terminated_B[b]), int(group[b])]
        episodes.append(Episode(*rows, *rest))
    return episodes
