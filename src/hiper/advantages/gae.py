"""Generalised advantage estimation (GAE) without a hierarchy: over turns, or over tokens.

Source: Schulman, Moritz, Levine, Jordan, Abbeel, "High-Dimensional Continuous Control Using Generalized Advantage
Estimation" (arXiv 1506.02438).

    delta_t = r_t + gamma * V(t+1) - V(t)
    A(t)    = delta_t + gamma * lambda * A(t+1),    R(t) = A(t) + V(t)

V is zero after an episode's end; where it was truncated and ``bootstrap_truncated`` is set, it stays what it was at the
last step. :class:`TurnGAE` steps from turn to turn, V(t) being read before the response; all tokens of a response
get A(t). :class:`TokenGAE`, the credit of PPO as it is usual for language models, steps from token to token through all
responses of an episode in order, V being read before each token.

The defaults are those published for the baselines of HiPER (gamma = lambda = 1, advantages whitened over the batch with
unbiased variance, truncation as an end). Two departures for tokens: there, each turn is an episode of its own that is
paid the whole episode's reward, which for gamma = lambda = 1 and a reward at the end alone comes to the same; and here
``gamma`` discounts from turn to turn, not from token to token, so that it means the same for every estimator.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from hiper.advantages.checks import needed
from hiper.advantages.normalize import standardize
from hiper.advantages.parameters import check_fractions
from hiper.advantages.recurrence import flat_mix, following, lambda_returns
from hiper.advantages.types import Credit, Critic, Floats, Turns


@dataclass(frozen=True)
class TurnGAE:
    """Flat credit over turns. On plan-execute prompts it is the ablation of HAE that knows no decisions.

    Raises:
        UserError: a parameter is out of range.
    """

    critic: ClassVar[Critic] = "turn"
    grouped: ClassVar[bool] = False

    type: Literal["turn-gae"] = field(default="turn-gae", kw_only=True)
    gamma: float = 1.0
    """Discount per turn."""
    lambda_turn: float = 1.0
    """Trace decay per turn."""
    bootstrap_truncated: bool = False
    """A truncated episode goes on being worth its value at hand; False: nothing, as if the environment had ended."""
    normalize: bool = True
    """Whiten over all turns."""

    def __post_init__(self) -> None:
        check_fractions(self, "gamma", "lambda_turn")

    def __call__(self, turns: Turns) -> Credit:
        """The same advantage for all decisions of a turn.

        Raises:
            ValueError: ``turns`` has no values.
        """
        v_BT = needed(turns.v_low_BT, "v_low_BT", "turn-level GAE")
        mix = flat_mix(turns, v_BT, self.lambda_turn, self.bootstrap_truncated)
        (return_BT,) = lambda_returns(turns.reward_BT, self.gamma, mix)
        advantage_BT = return_BT - v_BT
        if self.normalize:
            advantage_BT = standardize(advantage_BT, turns.mask_BT, unbiased=True)
        return Credit.of_responses(turns, advantage_BT, return_BT)


@dataclass(frozen=True)
class TokenGAE:
    """Flat credit over tokens.

    Raises:
        UserError: a parameter is out of range.
    """

    critic: ClassVar[Critic] = "token"
    grouped: ClassVar[bool] = False

    type: Literal["token-gae"] = field(default="token-gae", kw_only=True)
    gamma: float = 1.0
    """Discount per turn."""
    lambda_token: float = 1.0
    """Trace decay per token, across turns."""
    bootstrap_truncated: bool = False
    """A truncated episode goes on being worth its value at hand; False: nothing, as if the environment had ended."""
    normalize: bool = True
    """Whiten over all tokens."""

    def __post_init__(self) -> None:
        check_fractions(self, "gamma", "lambda_token")

    def __call__(self, turns: Turns) -> Credit:
        """An advantage for every token; the decisions of a turn get its mean.

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
    """(B, T) means over the tokens of each turn."""
    sum_BT, row_B1 = np.zeros(turns.mask_BT.shape), np.arange(len(x_BK))[:, None]
    np.add.at(sum_BT, (row_B1, turns.turn_of_token_BK), np.where(turns.token_mask_BK, x_BK, 0.0))
    return sum_BT / np.maximum(1, needed(turns.tokens_BT, "tokens_BT", "a mean over tokens"))
