"""Credit assignment: which decision deserves how much of an episode's return.

One estimator is one small module behind one signature, :data:`Estimator`. Rewards are shaped before
(:mod:`~hiper.advantages.shaping`), and credit is spread over tokens after (:mod:`~hiper.advantages.spread`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from hiper.advantages.hae import HAE
from hiper.advantages.shaping import Rewards, Shaping, shape
from hiper.advantages.spread import ResponseTokens, TokenCredit, spread
from hiper.advantages.types import Bools, Credit, Floats, Turns
from hiper.errors import UserError, suggestion
from hiper.plan_execute.spans import TokenKind

__all__ = [
    "ESTIMATORS",
    "HAE",
    "Bools",
    "Credit",
    "Estimator",
    "Floats",
    "ResponseTokens",
    "Rewards",
    "Shaping",
    "TokenCredit",
    "TokenKind",
    "Turns",
    "make_estimator",
    "shape",
    "spread",
]

Estimator: TypeAlias = Callable[[Turns], Credit]

ESTIMATORS: Mapping[str, Callable[..., Estimator]] = MappingProxyType({"hae": HAE})
"""What a config's ``type`` may name: a frozen dataclass of parameters whose instances are estimators."""


def make_estimator(type: str, **parameters: Any) -> Estimator:
    """The estimator named ``type`` with the given parameters.

    Raises:
        UserError: no such estimator; the nearest name is given. Or a parameter is unknown or out of range.
    """
    if type not in ESTIMATORS:
        raise UserError(f"no advantage estimator '{type}'; {suggestion(type, ESTIMATORS)}")
    try:
        return ESTIMATORS[type](**parameters)
    except TypeError as error:
        raise UserError(f"advantage estimator '{type}': {error}") from error
