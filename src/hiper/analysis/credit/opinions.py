"""Estimators compared on the same turns: how their credit is spread, how alike they rank, where they disagree.

Legend: E estimators, N turns played (episodes in order, turns in order within them), K tokens of all turns together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import rankdata

from hiper.advantages import Bools, Credit, Floats, TokenCredit, Turns

DIGITS = 9
"""What differs only behind so many digits after the point is rounding, and is equal here."""


@dataclass(frozen=True, eq=False)
class Opinion:
    """What one estimator says about all turns."""

    credit: Credit
    tokens: Sequence[TokenCredit]
    """Of each turn's response."""

    @cached_property
    def turn_N(self) -> Floats:
        """Mean over the tokens of each turn that carry credit."""
        return np.array([token.advantages[token.mask].mean() for token in self.tokens])

    @cached_property
    def token_K(self) -> Floats:
        """Of every token; NaN where it carries none."""
        return np.concatenate([self.token_K_of(row) for row in range(len(self.tokens))])

    def token_K_of(self, row: int) -> Floats:
        """Likewise, of one turn."""
        return np.where(self.tokens[row].mask, self.tokens[row].advantages, np.nan)


@dataclass(frozen=True)
class Summary:
    """The credit of one kind of decision."""

    decision: str
    count: int
    mean: float
    variance: float
    positive: float
    """Share above zero."""
    within: float
    """Share of the variance that lies within episodes: zero where all turns of an episode are judged alike."""


def summaries(opinion: Opinion, turns: Turns) -> list[Summary]:
    """By decision, or of whole responses where decisions are not told apart."""
    credit, mask = opinion.credit, turns.mask_BT
    kinds = {"response": (credit.low_BT, mask)}
    if not credit.undivided:
        kinds = {
            "switch": (credit.switch_BT, mask),
            "subgoal": (credit.high_BT, turns.boundary_BT),
            "action": (credit.low_BT, mask),
        }
    return [_summary(name, *arrays) for name, arrays in kinds.items()]


def _summary(name: str, advantage_BT: Floats, used_BT: Bools) -> Summary:
    used_N, episode_N = advantage_BT[used_BT].round(DIGITS), np.nonzero(used_BT)[0]
    mean_B = np.bincount(episode_N, used_N) / np.maximum(1, np.bincount(episode_N))
    variance = float(used_N.var())
    within = float(((used_N - mean_B[episode_N]) ** 2).mean()) / variance if variance > 10.0**-DIGITS else 0.0
    return Summary(name, len(used_N), float(used_N.mean()), variance, float((used_N > 0).mean()), within)


def ranks(x_N: Floats) -> Floats:
    """From 0 (the least) to 1 (the most); equal numbers share their mean rank. One number alone gets 1/2."""
    shared: Floats = (rankdata(x_N.round(DIGITS)) - 1) / (len(x_N) - 1) if len(x_N) > 1 else np.full(1, 0.5)
    return shared


def rank_correlation(x_N: Floats, y_N: Floats) -> float:
    """Spearman's coefficient over the entries that are numbers in both; NaN where either does not vary."""
    both = np.isfinite(x_N) & np.isfinite(y_N)
    if both.sum() < 2:
        return float("nan")
    x_N, y_N = ranks(x_N[both]) - 0.5, ranks(y_N[both]) - 0.5
    norm = float(np.sqrt((x_N**2).sum() * (y_N**2).sum()))
    return float((x_N * y_N).sum()) / norm if norm > 1e-12 else float("nan")


def correlations(opinions: Mapping[str, Floats]) -> Floats:
    """(E, E) rank correlations."""
    arrays = list(opinions.values())
    return np.array([[rank_correlation(x, y) for y in arrays] for x in arrays])


def disagreement(turn_EN: Floats) -> Floats:
    """(N,) how far apart the ranks are that estimators give to a turn among all turns, from 0 to 1."""
    rank_EN = np.array([ranks(turn_N) for turn_N in turn_EN])
    apart: Floats = rank_EN.max(axis=0) - rank_EN.min(axis=0)
    return apart
