"""Generalised advantage estimation (GAE) without a hierarchy: over turns, or over tokens.

Source: Schulman, Moritz, Levine, Jordan, Abbeel, "High-Dimensional Continuous Control Using Generalized Advantage
Estimation" (arXiv 1506.02438).

    delta_t = r_t + gamma * V(t+1) - V(t)
    A(t)    = delta_t + gamma * lambda * A(t+1),    R(t) = A(t) + V(t)

V is zero after an episode's end. If an episode was truncated and ``bootstrap_truncated`` is set, the value at its last
step stands for what would have followed.

:class:`TurnGAE` steps from turn to turn. V(t) is read before the response, and all tokens of the response get A(t).
:class:`TokenGAE` steps from token to token through all responses of an episode. V is read before each token. This is
the usual credit of PPO for language models.

The defaults are those published for HiPER's baselines: gamma = lambda = 1, advantages whitened over the batch with
unbiased variance, truncation treated as termination. :class:`TokenGAE` departs from them in two ways.

- The published baseline makes each turn an episode of its own, paid the whole episode's reward. For gamma = lambda = 1
  and a reward at the end alone, both give the same.
- ``gamma`` discounts from turn to turn here, not from token to token, so that it means the same for every estimator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from hiper.advantages.checks import check_fractions, needed
from hiper.advantages.estimator import Estimator
from hiper.advantages.normalize import standardize
from hiper.advantages.recurrence import flat_mix, following, lambda_returns
from hiper.advantages.types import Credit, Floats, Turns
from hiper.advantages.values import Critic


@dataclass(frozen=True)
class TurnGAE(Estimator):
    """Flat credit over turns. On plan-execute prompts it is HAE without separate decisions.

    Raises:
        UserError: A parameter is out of range.
    """

    type: ClassVar[str] = "turn-gae"
    title: ClassVar[str] = "turn GAE"
    critic: ClassVar[Critic] = "turn"

    gamma: float = 1.0
    """Discount per turn."""
    lambda_turn: float = 1.0
    """Trace decay per turn."""
    bootstrap_truncated: bool = False
    """If true, bootstrap truncated episodes from their last value; otherwise treat truncation as termination."""
    normalize: bool = True
    """Whiten over all turns."""

    def __post_init__(self) -> None:
        check_fractions(self, "gamma", "lambda_turn")

    def unscaled(self) -> Self:
        """Return the same estimator without whitening."""
        return replace(self, normalize=False)

    def __call__(self, turns: Turns) -> Credit:
        """Compute one advantage a turn, the same for all its decisions.

        Raises:
            ValueError: ``turns`` has no values.
        """
        v_BT = needed(turns.value_BT, "value_BT", "turn-level GAE")
        mix = flat_mix(turns, v_BT, self.lambda_turn, self.bootstrap_truncated)
        (return_BT,) = lambda_returns(turns.reward_BT, self.gamma, mix)
        advantage_BT = return_BT - v_BT
        if self.normalize:
            advantage_BT = standardize(advantage_BT, turns.mask_BT, unbiased=True)
        return Credit.of_responses(turns, advantage_BT, return_BT)


@dataclass(frozen=True)
class TokenGAE(Estimator):
    """Flat credit over tokens.

    Raises:
        UserError: A parameter is out of range.
    """

    type: ClassVar[str] = "token-gae"
    title: ClassVar[str] = "token GAE"
    critic: ClassVar[Critic] = "token"

    gamma: float = 1.0
    """Discount per turn."""
    lambda_token: float = 1.0
    """Trace decay per token, across turns."""
    bootstrap_truncated: bool = False
    """If true, bootstrap truncated episodes from their last value; otherwise treat truncation as termination."""
    normalize: bool = True
    """Whiten over all tokens."""

    def __post_init__(self) -> None:
        check_fractions(self, "gamma", "lambda_token")

    def unscaled(self) -> Self:
        """Return the same estimator without whitening."""
        return replace(self, normalize=False)

    def __call__(self, turns: Turns) -> Credit:
        """Compute an advantage for every token; the decisions of a turn get the mean over its tokens.

        Raises:
            ValueError: ``turns`` has no values per token.
        """
        v_BK = needed(turns.v_token_BK, "v_token_BK", "token-level GAE")
        mask_BK, turn_BK = turns.token_mask_BK, turns.turn_of_token_BK
        rows_B1 = np.arange(len(mask_BK))[:, None]
        ends_turn_BK = mask_BK.copy()
        ends_turn_BK[:, :-1] &= ~mask_BK[:, 1:] | (turn_BK[:, 1:] != turn_BK[:, :-1])
        reward_BK = np.where(ends_turn_BK, turns.reward_BT[rows_B1, turn_BK], 0.0)
        gamma_BK = np.where(ends_turn_BK, self.gamma, 1.0)
        after_BK, lambda_BK = following(v_BK), np.full_like(v_BK, self.lambda_token)
        if self.bootstrap_truncated:
            cut_N = np.flatnonzero(~turns.terminated_B)
            last_N = cut_N, mask_BK.sum(axis=1)[cut_N] - 1
            after_BK[last_N] = v_BK[last_N]
            lambda_BK[last_N] = 0.0
        (return_BK,) = lambda_returns(reward_BK, gamma_BK, (after_BK, lambda_BK))
        advantage_BK = return_BK - v_BK
        if self.normalize:
            advantage_BK = standardize(advantage_BK, mask_BK, unbiased=True)
        return Credit.of_responses(
            turns, _mean_over_turns(advantage_BK, turns), token_BK=advantage_BK, return_token_BK=return_BK
        )


def _mean_over_turns(x_BK: Floats, turns: Turns) -> Floats:
    """Return the means (B, T) over the tokens of each turn."""
    sum_BT, row_B1 = np.zeros(turns.mask_BT.shape), np.arange(len(x_BK))[:, None]
    np.add.at(sum_BT, (row_B1, turns.turn_of_token_BK), np.where(turns.token_mask_BK, x_BK, 0.0))
    return sum_BT / np.maximum(1, needed(turns.tokens_BT, "tokens_BT", "a mean over tokens"))
