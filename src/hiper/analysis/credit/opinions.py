"""Comparison of estimators on the same turns: statistics of their credit, rank correlations, disagreement.

Legend: E estimators, N turns played (episodes in order, turns in order within them), K tokens of all turns together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hiper.advantages import Bools, Credit, Estimator, Floats, TokenCredit, Turns, spread
from hiper.analysis.stored import Stored
from hiper.training.assign import responses_of

DIGITS = 9
"""The digits after the point that count. Smaller differences are rounding errors."""

DECISIONS = {"switch": "switch", "subgoal": "high", "action": "low"}
"""The decisions of a turn, each with the name of its advantage in :meth:`Credit.advantages`."""


@dataclass(frozen=True, eq=False)
class Opinion:
    """The credit that one estimator gives all turns."""

    credit: Credit
    tokens: Sequence[TokenCredit]
    """The same credit, spread over the tokens of each turn's response."""

    @cached_property
    def turn_N(self) -> Floats:
        """The mean over the tokens of each turn that have credit. 0: no token has, as where thinking never ends."""
        return np.array([token.advantages[token.mask].sum() / max(1, token.mask.sum()) for token in self.tokens])

    @cached_property
    def token_K(self) -> Floats:
        """The credit of every token; NaN where a token has none."""
        return np.concatenate([self.token_K_of(row) for row in range(len(self.tokens))])

    def token_K_of(self, row: int) -> Floats:
        """Return the credit of the tokens of one turn; NaN where a token has none."""
        return np.where(self.tokens[row].mask, self.tokens[row].advantages, np.nan)


def opinion_of(stored: Stored, estimator: Estimator, thinking: bool) -> Opinion:
    """Call an estimator on stored episodes.

    Args:
        stored: The episodes.
        estimator: The estimator, which must be possible (:meth:`Stored.why_not`).
        thinking: Whether thinking is credited.
    """
    credit = estimator(stored.turns)
    return Opinion(credit, spread(credit, stored.turns, responses_of(stored.episodes, stored.turns), thinking=thinking))


@dataclass(frozen=True)
class Summary:
    """Statistics of the credit of one kind of decision."""

    decision: str
    count: int
    mean: float
    variance: float
    positive: float
    """The share above zero."""
    within: float
    """The share of the variance within episodes. It is zero if all turns of an episode have the same credit."""


def summaries(opinion: Opinion, turns: Turns) -> list[Summary]:
    """Summarise credit by decision, or by response if decisions are not told apart."""
    advantages = opinion.credit.advantages(turns)
    kinds = {"response": "low"} if opinion.credit.undivided else DECISIONS
    return [_summary(decision, *advantages[name]) for decision, name in kinds.items()]


def _summary(name: str, advantage_BT: Floats, used_BT: Bools) -> Summary:
    used_N, episode_N = advantage_BT[used_BT].round(DIGITS), np.nonzero(used_BT)[0]
    mean_B = np.bincount(episode_N, used_N) / np.maximum(1, np.bincount(episode_N))
    variance = float(used_N.var())
    within = float(((used_N - mean_B[episode_N]) ** 2).mean()) / variance if variance > 10.0**-DIGITS else 0.0
    return Summary(name, len(used_N), float(used_N.mean()), variance, float((used_N > 0).mean()), within)


def ranks(x_N: Floats) -> Floats:
    """Rank numbers from 0 (the least) to 1 (the most). Equal numbers share their mean rank; a single one gets 1/2."""
    from scipy.stats import rankdata  # it takes a second to import

    shared: Floats = (rankdata(x_N.round(DIGITS)) - 1) / (len(x_N) - 1) if len(x_N) > 1 else np.full(1, 0.5)
    return shared


def rank_correlation(x_N: Floats, y_N: Floats) -> float:
    """Compute Spearman's coefficient over the entries that are finite in both; NaN if either does not vary."""
    both = np.isfinite(x_N) & np.isfinite(y_N)
    if both.sum() < 2:
        return float("nan")
    x_N, y_N = ranks(x_N[both]) - 0.5, ranks(y_N[both]) - 0.5
    norm = float(np.sqrt((x_N**2).sum() * (y_N**2).sum()))
    return float((x_N * y_N).sum()) / norm if norm > 1e-12 else float("nan")


def correlations(opinions: Mapping[str, Floats]) -> Floats:
    """Return the rank correlations (E, E)."""
    arrays = list(opinions.values())
    return np.array([[rank_correlation(x, y) for y in arrays] for x in arrays])


def disagreement(turn_EN: Floats) -> Floats:
    """Return, for each turn (N,), the range of its ranks over the estimators, from 0 to 1."""
    rank_EN = np.array([ranks(turn_N) for turn_N in turn_EN])
    apart: Floats = rank_EN.max(axis=0) - rank_EN.min(axis=0)
    return apart
