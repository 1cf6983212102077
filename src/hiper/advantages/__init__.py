"""Credit assignment: which decision deserves how much of an episode's return.

One estimator is one small module behind one signature, :data:`Estimator`: a frozen dataclass of parameters that is
called on :class:`Turns` and gives :class:`Credit`. Rewards are shaped before (:mod:`~hiper.advantages.shaping`), and
credit is spread over tokens after (:mod:`~hiper.advantages.spread`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from hiper.advantages.gae import TokenGAE, TurnGAE
from hiper.advantages.gigpo import GiGPO
from hiper.advantages.grpo import GRPO
from hiper.advantages.hae import HAE
from hiper.advantages.reinforce_pp import ReinforcePP
from hiper.advantages.rloo import RLOO
from hiper.advantages.shaping import Rewards, Shaping, shape
from hiper.advantages.spread import ResponseTokens, TokenCredit, spread
from hiper.advantages.types import Bools, Credit, Critic, Floats, Ints, TokenKind, Turns

__all__ = [
    "ESTIMATORS",
    "GRPO",
    "HAE",
    "RLOO",
    "Bools",
    "Credit",
    "Critic",
    "Estimator",
    "Floats",
    "GiGPO",
    "Ints",
    "ReinforcePP",
    "ResponseTokens",
    "Rewards",
    "Shaping",
    "TokenCredit",
    "TokenGAE",
    "TokenKind",
    "TurnGAE",
    "Turns",
    "shape",
    "spread",
]

Estimator: TypeAlias = HAE | TurnGAE | TokenGAE | GRPO | RLOO | GiGPO | ReinforcePP
"""Any of them. Besides its parameters each says what it needs: ``critic`` (:data:`Critic`), and ``grouped``, whether it
compares several episodes of one task."""

ESTIMATORS: Mapping[str, type[Estimator]] = MappingProxyType(
    {
        "hae": HAE,
        "turn-gae": TurnGAE,
        "token-gae": TokenGAE,
        "grpo": GRPO,
        "rloo": RLOO,
        "gigpo": GiGPO,
        "reinforce++": ReinforcePP,
    }
)
"""By the ``type`` that a config names."""
