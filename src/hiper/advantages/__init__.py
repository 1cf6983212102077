"""Credit assignment: how much of an episode's return each decision deserves. It needs numpy alone.

An estimator is one small module: a frozen dataclass of parameters, derived from :class:`Estimator`. Called on
:class:`Turns` it gives :class:`Credit`. Rewards are shaped before (:mod:`~hiper.advantages.shaping`), and credit is
spread over tokens after (:mod:`~hiper.advantages.spread`). :data:`ESTIMATORS` names every estimator.
"""

from __future__ import annotations

from hiper.advantages.checks import on_grid, prefix_mask
from hiper.advantages.contract import check_estimator
from hiper.advantages.estimator import Estimator
from hiper.advantages.gae import TokenGAE, TurnGAE
from hiper.advantages.gigpo import GiGPO
from hiper.advantages.grpo import GRPO
from hiper.advantages.hae import HAE
from hiper.advantages.registry import ESTIMATORS, find_estimator, register_estimator
from hiper.advantages.reinforce_pp import ReinforcePP
from hiper.advantages.rloo import RLOO
from hiper.advantages.shaping import Rewards, Shaping, shape
from hiper.advantages.spread import ResponseTokens, TokenCredit, spread
from hiper.advantages.types import Bools, Credit, Floats, Ints, TokenKind, Turns
from hiper.advantages.values import HEADS, HEADS_OF, Critic, Head, head_names

__all__ = [
    "ESTIMATORS",
    "GRPO",
    "HAE",
    "HEADS",
    "HEADS_OF",
    "RLOO",
    "Bools",
    "Credit",
    "Critic",
    "Estimator",
    "Floats",
    "GiGPO",
    "Head",
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
    "check_estimator",
    "find_estimator",
    "head_names",
    "on_grid",
    "prefix_mask",
    "register_estimator",
    "shape",
    "spread",
]
