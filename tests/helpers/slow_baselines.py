"""The estimators without a hierarchy, one turn or token at a time, straight from their definitions.

Plain Python and no code of `hiper.advantages`, so that the two can check each other: each takes the episodes of `Turns`
as :class:`Episode` and gives a list of numbers per episode. `random_batch` makes `Turns` with everything they need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from statistics import fmean, stdev
from typing import Any

import numpy as np

from helpers.slow_hae import random_turns
from hiper.advantages import Turns

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
